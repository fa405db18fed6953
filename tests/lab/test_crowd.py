"""The scenario with 200,000 connections: its datagrams, how late heartbeats were, its figures; and all of it."""

from __future__ import annotations

import math
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from feedback.lab import runner
from feedback.lab.job import Options
from feedback.lab.pair.looks import D1, D2, FILE, FORMAT, Look
from feedback.lab.pair.topology import FLOATING
from feedback.lab.scenarios import crowd
from feedback.lab.trace import Event, Trace
from feedback.lab.workload import beats, flood, streams
from feedback.lab.workload.streams import Stream
from tests.lab.judging import missed


def test_each_datagram_is_a_clients_own_and_its_header_is_right() -> None:
    made = list(
        flood.frames(bytes(6), bytes(6), IPv4Address("10.77.0.100"), 4000, int(IPv4Address("10.77.255.254")), 2, 3)
    )
    assert len({frame[26:30] + frame[34:36] for frame in made}) == 6
    for frame in made:
        assert frame[30:34] == IPv4Address("10.77.0.100").packed
        assert frame[36:38] == (4000).to_bytes(2, "big")
        assert flood.checksum(frame[14:34]) == 0
        assert int.from_bytes(frame[16:18], "big") == len(frame) - 14


def test_gaps_are_of_one_director_and_of_the_time_asked_for() -> None:
    lines = ["10.0.0.1 1.000000", "10.0.0.2 1.010000", "10.0.0.1 1.030000", "10.0.0.1 1.070000", "10.0.0.1 9.000000"]
    assert beats.gaps(lines, "10.0.0.1", 1.0, 2.0) == pytest.approx([0.03, 0.04])
    assert beats.gaps(lines, "10.0.0.2", 1.0, 2.0) == []


def test_what_is_missing_and_what_lives_too_short_is_told(tmp_path: Path) -> None:
    seen = [Look(i / 20, 0.001, i % len(FLOATING), D1 if i < 800 else D2, 0) for i in range(1200)]
    (tmp_path / FILE).write_bytes(b"".join(FORMAT.pack(*look) for look in seen))
    streams.write(tmp_path / streams.FILE, [Stream(i, "idle", "route4", 16, 16, 0.01) for i in range(crowd.TALKING)])
    (tmp_path / crowd.BEATS).write_text("10.79.1.1 10.1\n10.79.1.1 10.138\n10.79.1.2 11.0\n", encoding="ascii")
    events = {
        "start": (0.0, {}),
        "join": (10.0, {}),
        "replica": (13.9, {"took_seconds": 2.0}),
        "complete": (14.0, {}),
        "tables": (15.0, {"first": 200_100, "second": 200_100, "templates": 20_000}),
        "templates": (16.0, {"shortest_seconds": 293}),
        "death": (40.0, {}),
    }

    def figures(**changed: dict[str, int]) -> dict[str, float]:
        made = [Event(what, at, {**details, **changed.get(what, {})}) for what, (at, details) in events.items()]
        return crowd.SCENARIO.figures({"feedback": Trace([], [], made, tmp_path)}, Options(seconds=120))

    good = figures()
    assert missed(crowd.SCENARIO, good) == []
    assert (good["resync_ms"], good["copying_ms"], good["template_short_seconds"]) == (4000, 2000, 1)
    assert good["heartbeat_late_ms_d1"] == pytest.approx(8)
    assert math.isnan(good["heartbeat_late_ms_d2"])
    assert missed(crowd.SCENARIO, figures(tables={"second": 200_099})) == ["copied"]
    assert missed(crowd.SCENARIO, figures(templates={"shortest_seconds": 270})) == ["template_short_seconds"]


@pytest.mark.long
@pytest.mark.lab(on="host")
def test_a_crowd_is_copied_whole_on_a_real_kernel(tmp_path: Path) -> None:
    result = runner.run("crowd", tmp_path / "output")
    assert missed(crowd.SCENARIO, result.figures) == []
