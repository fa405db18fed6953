"""Figures of the pair's scenarios, from made-up looks and streams."""

import math
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from feedback.lab.job import Options
from feedback.lab.pair import figures, frames, looks
from feedback.lab.pair.looks import BOTH, D1, D2, FORMAT, Look
from feedback.lab.pair.topology import DIRECTORS, FLOATING, WATCHER
from feedback.lab.scenarios import handover, latejoin, restart, splitlinks, takeover
from feedback.lab.trace import Event, Trace
from feedback.lab.workload import streams
from feedback.lab.workload.records import Record
from feedback.lab.workload.streams import Stream
from tests.lab.judging import missed

STEP = 0.01


def seen(*spans: tuple[float, int], until: float, address: int = 0) -> list[Look]:
    """A look at each step; `spans` are (from when, who answers)."""
    made = []
    for i in range(round(until / STEP)):
        owners = [who for since, who in spans if since <= i * STEP + 1e-9][-1]
        made.append(Look(i * STEP, 0.001 if owners else 0.0, address, owners, 0))
    return made


def everywhere(*spans: tuple[float, int], until: float) -> list[Look]:
    each = [seen(*spans, until=until, address=i) for i in range(len(FLOATING))]
    return sorted((look for one in each for look in one), key=lambda look: look.sent)


def test_a_takeover_counts_until_the_standby_answers_for_the_last_vip() -> None:
    late = seen((0, D1), (1, 0), (1.3, D2), until=2, address=1)
    others = [look for look in everywhere((0, D1), (1, 0), (1.2, D2), until=2) if look.address != 1]
    made = figures.of_takeover(sorted(others + late), died=1.0)
    assert made["vip_ms"] == pytest.approx(301)
    assert made["gateway_ms"] == pytest.approx(201)
    assert made["both_active_ms"] == 0


def test_a_standby_that_never_answers_has_taken_for_ever() -> None:
    assert figures.of_takeover(everywhere((0, D1), (1, 0), until=2), died=1.0)["vip_ms"] == math.inf


def test_answers_before_the_death_do_not_count() -> None:
    assert looks.answered_at(seen((0, D2), (1, D1), until=2), D2, 1.0) == math.inf


@pytest.mark.parametrize(
    ("spans", "both_ms", "changes"),
    [
        ([(0, D1)], 0, 0),
        ([(0, D1), (1, D2)], 0, 1),
        ([(0, D1), (1, 0), (1.5, D1)], 0, 0),
        ([(0, D1), (1, BOTH), (1.25, D2)], 250, 1),
        ([(0, D1), (1, BOTH), (1.5, D1)], 500, 0),
        ([(0, D1), (0.5, D2), (1, D1), (1.5, BOTH)], 490, 2),
    ],
)
def test_both_active_and_role_changes(spans: list[tuple[float, int]], both_ms: float, changes: int) -> None:
    made = everywhere(*spans, until=2)
    assert figures.both_active_ms(made) == pytest.approx(both_ms)
    assert figures.role_changes(made) == changes


def test_looks_survive_the_file_and_a_half_written_one_waits(tmp_path: Path) -> None:
    made = [Look(1.5, 0.25, 0, D1, 0), Look(2.5, 0.0, 1, 0, D2)]
    data = b"".join(FORMAT.pack(*look) for look in made)
    (tmp_path / "looks").write_bytes(data + b"half")
    assert looks.read(tmp_path / "looks") == made


STREAMS = [
    Stream(0, "talk", "route4", 160, 160, 0.1),
    Stream(1, "talk", "route6", 160, 160, 0.3),
    Stream(2, "talk", "masquerade4", 160, 64, 3.5, "ECONNRESET", 9.0),
    Stream(3, "idle", "masquerade4", 32, 32, 0.01),
    Stream(4, "mute", "route4", 16, 0, 0.0, "ECONNRESET", 9.0),
    Stream(5, "download", "route4", 0, 5000, 0.4),
    Stream(6, "udp", "udp", 100, 95, 0.2, "", 0.0, 1),
    Stream(7, "udp", "udp", 100, 90, 0.2, "moved", 0.0, 2),
]


def test_streams_are_counted_by_kind_and_way() -> None:
    made = figures.of_streams(STREAMS) | figures.of_ways(STREAMS)
    assert (made["established"], made["survived"]) == (5, 4)
    assert (made["gap_ms"], made["gap_max_ms"]) == (pytest.approx(300), pytest.approx(3500))
    assert (made["mute"], made["mute_survived"]) == (1, 0)
    assert (made["udp_lost"], made["udp_moved"]) == (15, 1)
    assert (made["lost_masquerade4"], made["lost_route4"]) == (1, 0)


def trace(tmp_path: Path, events: dict[str, float], seen_by: list[Look], found: list[Stream]) -> Trace:
    (tmp_path / "watcher.looks").write_bytes(b"".join(FORMAT.pack(*look) for look in seen_by))
    streams.write(tmp_path / "client.streams", found)
    visits = [Event("visits", at, {"found": {"10.77.1.1": "r1"}}) for at in (0.0, 1.0)]
    return Trace([], [], [*(Event(what, at, {}) for what, at in events.items()), *visits], tmp_path)


GOOD = [Stream(i, "talk", "route4", 160, 160, 0.03) for i in range(1000)]


def test_takeover_splits_the_time_at_the_decision_and_names_the_peer(tmp_path: Path) -> None:
    events = {"start": 0.0, "death": 1.0, "end": 2.0}
    made = trace(tmp_path, events, everywhere((0, D1), (1, 0), (1.14, D2), until=2), GOOD)
    made.events.append(Event("transition", 1.13, {"director": "d2", "old": "looking", "new": "active"}))
    found = takeover.SCENARIO.figures({"feedback": made, "keepalived": made}, Options(seconds=20))
    assert found["vip_ms"] == pytest.approx(141)
    assert (found["detect_ms"], found["act_ms"]) == (pytest.approx(130), pytest.approx(11))
    assert found["keepalived_gap_max_ms"] == pytest.approx(30)
    assert missed(takeover.SCENARIO, found) == []
    assert missed(takeover.SCENARIO, {**found, "survived": 999})
    assert missed(takeover.SCENARIO, {**found, "vip_ms": math.inf})


def test_handover_and_latejoin_judge_feedback_only(tmp_path: Path) -> None:
    made = trace(tmp_path, {"start": 0.0, "handover": 1.0}, everywhere((0, D1), (1, D2), until=2), GOOD)
    made.records.extend(
        [Record(-0.1, 0.2, 200, 0), Record(0.1, 0.03, 200, 0), Record(9.9, 0.049, 200, 0), Record(10.1, 0.2, 200, 0)]
    )
    found = handover.SCENARIO.figures({"feedback": made}, Options(seconds=20))
    assert missed(handover.SCENARIO, found) == []
    assert (found["gap_max_ms"], found["whole_run_gap_max_ms"]) == (pytest.approx(49), pytest.approx(30))
    alone = handover.SCENARIO.figures({"keepalived": made}, Options(seconds=20))
    assert missed(handover.SCENARIO, alone) == []
    assert missed(handover.SCENARIO, {**found, "gap_max_ms": 51})
    full = {"established": 20_000, "survived": 20_000, "resync_ms": 4000}
    assert missed(latejoin.SCENARIO, full) == []
    assert missed(latejoin.SCENARIO, {**full, "resync_ms": 5001})


PHASES = {
    "start": 0.0, "one": 1.0, "none": 2.0, "deaf": 3.0, "healed done": 4.0, "blind": 6.0, "seen done": 7.0, "end": 10.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("spans", "wrong"),
    [
        ([(0, D1)], set()),
        ([(0, D1), (3.1, BOTH), (3.2, D2)], set()),  # deaf: it takes over, and the other hears of it
        ([(0, D1), (6.2, BOTH), (7.2, D1)], set()),  # blind: nothing else can be
        ([(0, D1), (2.5, BOTH), (2.6, D1)], {"both_active_while_seen_ms"}),
        ([(0, D1), (2.5, D2)], {"role_changes_while_seen"}),
        ([(0, D1), (3.1, BOTH), (4.5, D2)], {"both_active_ms"}),
        ([(0, D1), (3.1, D2), (5.5, D1)], {"role_changes_settled"}),
        ([(0, D1), (6.2, BOTH), (8.5, D2)], {"both_active_ms"}),
        ([(0, D1), (9.5, 0)], {"active_at_end"}),
    ],
)
def test_splitlinks_judges_each_phase_by_itself(
    tmp_path: Path, spans: list[tuple[float, int]], wrong: set[str]
) -> None:
    made = trace(tmp_path, PHASES, everywhere(*spans, until=10), GOOD)
    found = splitlinks.SCENARIO.figures({"feedback": made}, Options(seconds=25))
    assert set(missed(splitlinks.SCENARIO, found)) == wrong


def test_restart_allows_nothing(tmp_path: Path) -> None:
    made = trace(tmp_path, {"start": 0.0, "end": 2.0}, everywhere((0, D1), until=2), GOOD)
    found = restart.SCENARIO.figures({"feedback": made}, Options(seconds=30))
    assert missed(restart.SCENARIO, found) == []
    changed = trace(tmp_path, {"start": 0.0, "end": 2.0}, everywhere((0, D1), (1, D2), until=2), STREAMS)
    found = restart.SCENARIO.figures({"feedback": changed}, Options(seconds=30))
    assert (found["lost"], found["role_changes"]) == (1, 1)


# The watcher's frames.


def test_a_question_is_answered_and_the_answer_is_read() -> None:
    """RFC 826's layout, byte for byte: who has 10.77.0.100, says 10.77.0.4."""
    vip = IPv4Address("10.77.0.100")
    asked = frames.question(WATCHER.mac, WATCHER.front, vip)
    assert asked.hex() == "ffffffffffff024c0000000408060001080006040001024c000000040a4d00040000000000000a4d0064"
    reply = WATCHER.mac + DIRECTORS[0].mac + bytes.fromhex("0806000108000604 0002") + DIRECTORS[0].mac + vip.packed
    assert frames.answer(reply + WATCHER.mac + WATCHER.front.packed) == (vip, DIRECTORS[0].mac, False)
    assert frames.answer(asked) is None


@pytest.mark.parametrize(("address", "count"), [(IPv4Address("10.77.0.100"), 2), (IPv6Address("fd77::100"), 1)])
def test_announcements_are_read_as_such(address: IPv4Address | IPv6Address, count: int) -> None:
    made = frames.announcements(DIRECTORS[1].mac, address)
    assert [frames.answer(frame) for frame in made] == [(address, DIRECTORS[1].mac, True)] * count


def test_a_solicitation_goes_to_the_group_of_the_address_with_a_right_checksum() -> None:
    asked = frames.question(WATCHER.mac, WATCHER.front6, IPv6Address("fd77::1:100"))
    assert asked[:6].hex() == "3333ff010100"
    pseudo = asked[22:54] + (len(asked) - 54).to_bytes(4, "big") + (58).to_bytes(4, "big")
    data = pseudo + asked[54:]
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF
