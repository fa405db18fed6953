"""The lab's HTTP server speaks of itself in the agent's own language."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.agent.signals.applications import ApplicationSource
from feedback.lab.workload import word
from feedback.lab.workload.burn import burn
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


@pytest.mark.parametrize(("quota", "least", "most"), [(0.001, 1.0, 1.0), (1000.0, 0.0, 0.01)])
def test_utilisation_is_of_what_may_be_used(source: ApplicationSource, quota: float, least: float, most: float) -> None:
    with speaking(str(source.path), quota) as speaker:
        burn(100_000)
        speaker.say(in_flight=1)
    said = source.sample(0.0)[0].utilisation
    assert said is not None
    assert least <= said <= most


def test_nobody_there_to_listen_is_no_harm(tmp_path: Path) -> None:
    with speaking(str(tmp_path / "none")) as lonely, speaking("") as silent:
        lonely.say(in_flight=0)
        silent.say(in_flight=0)
        assert silent.patience() == -1
