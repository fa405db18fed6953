"""Who has a queue while the others have none, by the director's own counts, and for how long that counts."""

from __future__ import annotations

import pytest

from feedback.config import Guards
from feedback.master.bounds.doubt import HOLD_SECONDS
from feedback.master.pool import Pool
from feedback.master.servers.arrivals import REFRESH_SECONDS
from feedback.master.servers.fleet import Trust
from feedback.model import Counters, DestinationEntry
from tests.master.builders import estimate, member, pool, replace, rip, shares
from tests.master.stages import Doubt, Guard

RATE = 50.0
USUAL, QUEUE = 10, 200  # open connections at that rate: 0.2 s, and 4 s


def at(now: float, *active: int, utilisation: float = 0.3, trust: Trust = Trust.FRESH) -> Pool:
    """Servers that get RATE connections a second each, counted every 2 s, and have so many open."""
    count = int(RATE * (now // 2) * 2)
    made = []
    for i, open_now in enumerate(active, 1):
        base = member(i)
        entry = DestinationEntry(base.base, open_now, 0, 0, Counters(connections=count))
        made.append(
            replace(base, kernel=entry, estimate=estimate(100.0, utilisation), trust=trust if i == 1 else Trust.FRESH)
        )
    return pool(*made)


def run(doubt: Doubt, start: float, seconds: float, *active: int, **given: object) -> dict[float, set[object]]:
    return {
        start + k / 5: set(doubt.doubted(at(start + k / 5, *active, **given), start + k / 5))  # type: ignore[arg-type]
        for k in range(int(5 * seconds))
    }


def test_a_queue_behind_a_server_that_has_room_is_noticed_when_it_lasts() -> None:
    doubt = Doubt()
    assert not any(run(doubt, 0, 6, USUAL, USUAL, USUAL).values())
    found = run(doubt, 6, 6, QUEUE, USUAL, USUAL)
    assert not any(who for now, who in found.items() if now < 6 + REFRESH_SECONDS - 0.1)
    assert {rip(1)} in found.values()


@pytest.mark.parametrize(
    ("active", "given"),
    [
        ((QUEUE, QUEUE, QUEUE), {}),
        ((4 * USUAL, USUAL, USUAL), {}),
        ((19, 1, 1), {}),
        ((QUEUE,), {}),
    ],
    ids=["all wait", "four times", "few", "alone"],
)
def test_what_is_no_queue(active: tuple[int, ...], given: dict[str, object]) -> None:
    doubt = Doubt()
    run(doubt, 0, 6, *(USUAL for _ in active))
    assert not any(run(doubt, 6, 20, *active, **given).values())


@pytest.mark.parametrize("given", [{"utilisation": 0.95}, {"trust": Trust.STALE}, {"trust": Trust.LOST}])
def test_a_queue_is_one_whatever_its_agent_says_or_does_not_say(given: dict[str, object]) -> None:
    doubt = Doubt()
    run(doubt, 0, 6, USUAL, USUAL, USUAL)
    assert {rip(1)} in run(doubt, 6, 6, QUEUE, USUAL, USUAL, **given).values()


def test_it_ends_by_itself_and_lasts_twice_as_long_the_next_time() -> None:
    doubt = Doubt()
    run(doubt, 0, 6, USUAL, USUAL)
    lengths = []
    now = 6.0
    for _ in range(3):
        doubted = run(doubt, now, 4, QUEUE, USUAL)
        now = max(doubted) + 0.2
        after = run(doubt, now, 100, USUAL, USUAL)
        lengths.append(sum(1 for who in (doubted | after).values() if who) / 5)
        now = max(after) + 0.2
    assert lengths == pytest.approx([HOLD_SECONDS, 2 * HOLD_SECONDS, 4 * HOLD_SECONDS], abs=0.5)


def test_counters_that_begin_anew_tell_nothing() -> None:
    doubt = Doubt()
    run(doubt, 100, 6, USUAL, USUAL)
    assert not any(run(doubt, 0, 1.8, QUEUE, USUAL).values())


def test_the_guard_gives_a_doubted_server_its_part_and_no_more() -> None:
    guard, wanted = Guard(Guards()), shares(0.8, 0.1, 0.1)
    for k in range(100):
        out = guard.apply(at(k / 5, QUEUE if k > 40 else USUAL, USUAL, USUAL), wanted, k / 5)
        if k == 40:
            assert out.shares[rip(1)].value == pytest.approx(0.8, abs=0.01)
    assert out.shares[rip(1)].value == pytest.approx(1 / 3)
    assert "its static share at most" in str(out.shares[rip(1)].reasons)
    assert sum(s.value for s in out.shares.values()) == pytest.approx(1)


def test_doubt_never_takes_what_a_server_is_owed() -> None:
    guard = Guard(Guards())
    for k in range(100):
        out = guard.apply(at(k / 5, QUEUE, USUAL, USUAL), shares(0.2, 0.4, 0.4), k / 5)
    assert out.shares[rip(1)].value == pytest.approx(0.2, abs=0.01)
