"""The lab's HTTP server speaks of itself in the agent's own language."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.agent.signals.applications import ApplicationSource
from feedback.lab.workload import word
from feedback.lab.workload.word import Word


@contextlib.contextmanager
def speaking(path: str, quota: float = 1.0) -> Iterator[Word]:
    made = Word(path, port=80, quota=quota)
    yield made
    made.close()


@pytest.fixture
def source(tmp_path: Path) -> Iterator[ApplicationSource]:
    made = ApplicationSource(tmp_path / "words.sock")
    yield made
    made.close()


def test_the_agent_understands_what_the_server_says(source: ApplicationSource) -> None:
    with speaking(str(source.path)) as speaker:
        speaker.completions, speaker.errors, speaker.latencies = 7, 2, [0.1, 0.3]
        speaker.say(in_flight=3)
    heard = source.sample(0.0)[0]
    assert source.refused == 0
    assert (heard.port, heard.in_flight, heard.completions, heard.errors) == (80, 3, 7, 2)
    assert heard.latency_seconds == pytest.approx(0.2)


def test_it_speaks_no_more_often_than_agreed(source: ApplicationSource) -> None:
    with speaking(str(source.path)) as speaker:
        speaker.say(in_flight=1)
        speaker.say(in_flight=2)
        assert source.sample(0.0)[0].in_flight == 1
        assert 0 < speaker.patience() <= word.INTERVAL_SECONDS


def test_one_who_is_busy_all_the_time_is_full_even_if_a_neighbour_takes_the_cpu(source: ApplicationSource) -> None:
    with speaking(str(source.path)) as speaker:
        time.sleep(0.05)
        speaker.busy_seconds += 10
        speaker.say(in_flight=1)
    assert source.sample(0.0)[0].utilisation == 1.0


def test_nobody_there_to_listen_is_no_harm(tmp_path: Path) -> None:
    with speaking(str(tmp_path / "none")) as lonely, speaking("") as silent:
        lonely.say(in_flight=0)
        silent.say(in_flight=0)
        assert silent.patience() == -1
