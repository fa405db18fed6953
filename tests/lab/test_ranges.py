"""The scenario `range`: its ranges as configuration and as clients' targets, what its figures say, and that it runs."""

from __future__ import annotations

import json
import math
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from feedback.config import MasterConfig, marks, parse
from feedback.lab import runner
from feedback.lab.job import Options
from feedback.lab.pair import looks, ranges
from feedback.lab.pair.topology import FLOATING, VIP, VIP6, pair
from feedback.lab.scenarios import range as scenario
from feedback.lab.trace import Event, Trace
from feedback.lab.workload import streams
from feedback.lab.workload.records import Record
from feedback.lab.workload.streams import Stream
from tests.lab.judging import missed


def test_every_target_is_matched_by_the_mark_of_its_way_and_nobody_has_its_address() -> None:
    config = parse(ranges.services(pair("x")), MasterConfig)
    found = marks(config)
    assert len(config.service) == 4 and all(len(service.destination) == 3 for service in config.service)
    for target in ranges.targets():
        mark = 7 if target.name.startswith("route") else 8
        taken = [m for m, each in found.items() for match in each if ip_address(target.address) in match.network]
        assert taken == [mark]
    assert {str(address) for address in ranges.asked()} == {target.address for target in ranges.targets()}
    assert not {str(address) for address, _ in FLOATING} & {target.address for target in ranges.targets()}


@pytest.mark.parametrize(
    ("line", "moves"),
    [
        ("local 10.77.0.100 dev eth0 table local proto kernel scope host src 10.77.0.100", True),
        ("fd77::100 dev eth0 proto kernel metric 256 pref medium", True),
        ("10.79.1.0/30 dev hb1 proto kernel scope link src 10.79.1.2", True),
        ("local 10.77.0.10 dev eth0 table local", False),
        ("fd77::1001 dev eth0", False),
        ("7433:\tfrom all fwmark 0x7 lookup 7433 proto 251", False),
        ("-A feedback-steer -d 198.51.100.0/24 -p tcp -m multiport --dports 80:82 -j MARK", False),
    ],
)
def test_what_a_takeover_itself_changes_is_not_compared(line: str, moves: bool) -> None:
    assert bool(ranges.MOVING.search(line)) is moves


GOOD: dict[str, Any] = {"restored": [1.5, 2.5], "removed": [[], []], "answers": {str(VIP): 9, str(VIP6): 8, "x": 0}}


def trace(tmp_path: Path, died: float = 20.0, lost: int = 0, **changed: Any) -> Trace:
    said = GOOD | changed
    seen = [looks.Look(i / 20, 0.001, i % len(FLOATING), looks.D1 if i < 400 else looks.D2, 0) for i in range(1200)]
    (tmp_path / looks.FILE).write_bytes(b"".join(looks.FORMAT.pack(*look) for look in seen))
    kinds = ["talk"] * 400 + ["download"] * 7
    found = [Stream(i, kind, "route4", 16, 16, 0.01, "reset" * (i < lost)) for i, kind in enumerate(kinds)]
    streams.write(tmp_path / streams.FILE, found)
    (tmp_path / scenario.ANSWERS).write_text(json.dumps(said["answers"]))
    events = [Event("death", died, {}), Event("transition", died + 0.1, {"new": "active"})]
    events += [Event("steer restored", 15.0, {"seconds": seconds}) for seconds in said["restored"]]
    events += [Event("steer removed", 16.0, {"lines": lines}) for lines in said["removed"]]
    records = [Record(i / 10, 0.2, 200, 1) for i in range(600)]
    return Trace(records, [], events, tmp_path)


@pytest.mark.parametrize(
    ("changed", "fails"),
    [
        ({}, []),
        ({"lost": 1}, ["survived"]),
        ({"restored": [1.5, 5.1]}, ["restored_ms"]),
        ({"restored": [math.inf]}, ["restored_ms"]),
        ({"restored": []}, ["restored_ms"]),
        ({"removed": [[], ["+ a line"]]}, ["left_behind"]),
        ({"removed": []}, ["left_behind"]),
        ({"answers": {str(VIP): 9, str(VIP6): 8, "x": 1}}, ["arp_answers"]),
        ({"answers": {str(VIP): 9, str(VIP6): 0, "x": 0}}, ["vip_answers"]),
    ],
)
def test_each_promise_has_its_figure(tmp_path: Path, changed: dict[str, Any], fails: list[str]) -> None:
    figures = scenario.SCENARIO.figures({"feedback": trace(tmp_path, **changed)}, Options(seconds=30))
    assert missed(scenario.SCENARIO, figures) == fails
    assert figures["flows"] == 407 and (figures["gap_max_ms"] == pytest.approx(200))


def test_lines_that_come_go_or_change_places_differ() -> None:
    before = {"ip rule": ["a", "b"], "save": ["x"]}
    assert scenario._differing(before, {"ip rule": ["a", "b"], "save": ["x"]}) == []
    assert scenario._differing(before, {"ip rule": ["b", "a"], "save": ["y"]}) == [
        "? ip rule: another order",
        "- x",
        "+ y",
    ]


@pytest.mark.lab(on="host")
@pytest.mark.long
def test_it_holds_on_a_real_kernel(tmp_path: Path) -> None:
    result = runner.run("range", tmp_path / "output", options=Options(seconds=30))
    assert result.disturbed or missed(scenario.SCENARIO, result.figures) == [], result.figures
