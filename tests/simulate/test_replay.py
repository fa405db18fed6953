"""Recordings: read as written; replayed with another law."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from feedback.cli.main import main
from feedback.config import MasterConfig, parse
from feedback.master.shell.recording import Entry, RecordingError, line, read
from feedback.model import Edit, Snapshot
from feedback.simulate import traffic
from feedback.simulate.draws import generator
from feedback.simulate.policy import Feedback, Policy
from feedback.simulate.replay import recorded, replay
from feedback.simulate.world import World
from feedback.wire import Report
from tests.simulate.builders import case


class Tapped(Feedback):
    """A controller whose every word is written down."""

    def __init__(self, law: str) -> None:
        super().__init__(law)
        self.entries: list[Entry] = []

    def receive(self, report: Report, now: float) -> None:
        self.entries.append(Entry(now, report))
        super().receive(report, now)

    def decide(self, snapshot: Snapshot, now: float) -> tuple[Sequence[Edit], Sequence[float] | None]:
        self.entries.append(Entry(now, snapshot))
        return super().decide(snapshot, now)


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    made = case(cores=(1.0, 4.0), part=0.6, seconds=8.0)
    world = World(made, Policy("capacity", "sed"), traffic.make(made, generator(1, "traffic")), generator(1, "world"))
    world.driver = tapped = Tapped("capacity")
    world.run()
    return tapped.entries


def test_what_is_written_is_read(entries: list[Entry]) -> None:
    assert list(read([line(e.at, e.what) for e in entries], "r")) == entries


def test_the_same_law_decides_the_same_again(entries: list[Entry]) -> None:
    assert replay(entries, "capacity").weights == recorded(entries).weights


def test_another_law_has_a_history_of_its_own(entries: list[Entry]) -> None:
    first, second = (changes[-1][1] for changes in replay(entries, "static").weights.values())
    assert first == second
    small, large = sorted(changes[-1][1] for changes in recorded(entries).weights.values())
    assert large > 2 * small


def test_a_recorded_zero_stays(entries: list[Entry]) -> None:
    def quiesced(entry: Entry) -> Entry:
        if isinstance(entry.what, Report) or entry.at < 4:
            return entry
        service = entry.what.services[0]
        gone = service.destinations[0]
        gone = msgspec.structs.replace(gone, destination=msgspec.structs.replace(gone.destination, weight=0))
        whole = msgspec.structs.replace(service, destinations=(gone, *service.destinations[1:]))
        return Entry(entry.at, Snapshot((whole,)))

    history = replay([quiesced(e) for e in entries], "static")
    assert next(iter(history.weights.values()))[-1][1] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "line 1"),
        ('{"at": 1}', "line 1: expected one of report and kernel"),
        ('{"at": 1, "kernel": [], "other": 1}', "line 1: Object contains unknown field"),
        ('{"at": 2, "kernel": []}\n{"at": 1, "kernel": []}', "line 2: 1 comes after 2"),
    ],
)
def test_what_is_no_recording_is_one_line(text: str, words: str) -> None:
    with pytest.raises(RecordingError, match=words):
        list(read(text.splitlines(), "r"))


def test_the_command_shows_both_histories(entries: list[Entry], tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    path.write_bytes(b"".join(line(e.at, e.what) for e in entries))
    answer = CliRunner().invoke(main, ["simulate", "--replay", str(path), "--law", "static", "--json"])
    assert answer.exit_code == 0, answer.output
    found = json.loads(answer.stdout.splitlines()[-1])
    assert set(found["laws"]) == {"recorded", "static"}
    assert found["laws"]["recorded"]["writes"] > 0
    answer = CliRunner().invoke(main, ["simulate", "--replay", str(tmp_path / "none")])
    assert (answer.exit_code, len(answer.output.splitlines())) == (1, 1)


LIMITED = """
[guards]
ceiling = 1.0
[[service]]
virtual = "{virtual}"
law = "{law}"
law_options = {options}
"""


def test_a_replay_takes_the_configuration(entries: list[Entry], tmp_path: Path) -> None:
    """Its guards, and its options of the law that it has; without --law its own laws."""
    snapshot = next(e.what for e in entries if isinstance(e.what, Snapshot))
    virtual, tape, config = str(snapshot.services[0].service.key), tmp_path / "r.jsonl", tmp_path / "master.toml"
    tape.write_bytes(b"".join(line(e.at, e.what) for e in entries))

    def asked(*words: str) -> tuple[int, str, list[str]]:
        answer = CliRunner().invoke(main, ["simulate", "--json", *words])
        found = json.loads(answer.stdout.splitlines()[-1]) if answer.exit_code == 0 else {}
        return answer.exit_code, answer.output, [str(x) for x in found.get("laws", found)]

    replaying = ("--replay", str(tape), "--config", str(config))
    config.write_text(LIMITED.format(virtual=virtual, law="pid", options="{ proportional = 0.1 }"))
    code, output, _ = asked(*replaying)
    assert code == 0 and "pid" in output, output
    config.write_text(LIMITED.format(virtual=virtual, law="pid", options="{ proportional = -1 }"))
    code, output, _ = asked(*replaying)
    assert code == 1 and "law_options" in output
    assert asked(*replaying, "--law", "capacity")[0] == 0, "options of another law do not count"
    code, output, _ = asked("--config", str(config))
    assert code == 1 and "--replay" in output
    bounded = parse(LIMITED.format(virtual=virtual, law="capacity", options="{}"), MasterConfig)
    assert replay(entries, "capacity", bounded).weights != replay(entries, "capacity").weights
