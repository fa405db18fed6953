"""Who may hold how much of a socket: connections and bytes."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from feedback.ops import sessions
from feedback.ops.sessions import KEY_SESSIONS, PEER_BYTES_MAX, STRANGER_BYTES_MAX, Sessions, wire_bytes

SECOND = 1.0


def test_the_source_with_the_most_strangers_loses_its_oldest() -> None:
    table = Sessions(3)
    assert [table.came(1, "honest"), table.came(2, "flood"), table.came(3, "flood")] == [None] * 3
    assert table.came(4, "flood") == 2
    assert table.came(5, "late") == 3
    assert len(table) == 3


def test_who_has_spoken_is_no_stranger_any_more() -> None:
    table = Sessions(1)
    for descriptor in range(20):
        assert table.came(descriptor, "same") is None
        assert table.spoke(descriptor, f"key{descriptor}", 100) is None


def test_a_key_keeps_its_newest_connections() -> None:
    table, shut = Sessions(), list[int | None]()
    for descriptor in range(KEY_SESSIONS + 2):
        table.came(descriptor, "a")
        shut.append(table.spoke(descriptor, "one", 10))
    assert shut == [None] * KEY_SESSIONS + [0, 1]
    assert table.spoke(0, "one", 10) is None, "what was queued of one that has been shut changes nothing"
    assert len(table) == KEY_SESSIONS


def test_a_number_that_is_used_again_is_another_connection() -> None:
    table = Sessions(1)
    table.came(7, "a")
    table.spoke(7, "one", 10)
    table.gone(7)
    assert len(table) == 0
    table.came(7, "b")
    assert table.came(8, "b") == 7, "it is a stranger again"


def test_what_was_taken_does_not_wait() -> None:
    table = Sessions()
    table.came(1, "a")
    for _ in range(1000):
        table.spoke(1, "one", 5000)
    received = 1000 * wire_bytes(5000)
    assert table.over(lambda _: received, SECOND) == []
    assert table.over(lambda _: received + PEER_BYTES_MAX, 0.0) == []
    assert table.over(lambda _: received + PEER_BYTES_MAX + 1, 0.0) == [1]
    assert len(table) == 0


def test_a_stranger_may_leave_less_unfinished_than_who_has_spoken() -> None:
    table = Sessions()
    for descriptor in (1, 2):
        table.came(descriptor, "a")
    table.spoke(2, "one", 0)
    assert table.over(lambda _: STRANGER_BYTES_MAX + 1000, 0.0) == [1]


def test_heartbeats_are_not_held_against_anybody() -> None:
    table = Sessions()
    table.came(1, "a")
    table.spoke(1, "one", 100)
    received = wire_bytes(100)
    for _ in range(7 * 86400):
        received += 30
        assert table.over(lambda _, got=received: got, 1.0) == []  # type: ignore[misc]


@given(
    st.lists(st.integers(0, 2 * PEER_BYTES_MAX), min_size=1, max_size=60), st.integers(0, 2 * sessions.ALL_BYTES_MAX)
)
def test_all_together_never_leave_more_than_the_bound(waiting: list[int], most: int) -> None:
    table = Sessions()
    table.all_bytes = most
    for descriptor in range(len(waiting)):
        table.came(descriptor, "a")
        table.spoke(descriptor, f"key{descriptor}", 0)
    shut = table.over(lambda descriptor: wire_bytes(0) + waiting[descriptor], 0.0)
    left = [waits for descriptor, waits in enumerate(waiting) if descriptor not in shut]
    assert sum(left) <= most
    assert all(waits <= PEER_BYTES_MAX for waits in left)
    smallest = min((waiting[descriptor] for descriptor in shut), default=0)
    assert all(waits <= smallest or waits <= PEER_BYTES_MAX for waits in left)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 19), st.sampled_from("abc")), max_size=80), st.integers(1, 6))
def test_the_source_with_the_most_strangers_is_found_whoever_came_and_went(
    steps: list[tuple[bool, int, str]], limit: int
) -> None:
    table = Sessions(limit)
    there: dict[int, str] = {}  # the oldest first
    for comes, descriptor, source in steps:
        there.pop(descriptor, None)
        if not comes:
            table.gone(descriptor)
            continue
        there[descriptor] = source
        shut = table.came(descriptor, source)
        if len(there) <= limit:
            assert shut is None
            continue
        assert shut is not None
        sources = list(there.values())
        of = there[shut]
        assert sources.count(of) == max(map(sources.count, sources))
        assert shut == next(d for d, s in there.items() if s == of), "its oldest"
        del there[shut]
    assert len(table) == len(there)


def test_a_flood_from_many_addresses_costs_the_same_however_many_there_are() -> None:
    def seconds(sources: int) -> float:
        table = Sessions(sources)
        for descriptor in range(sources):
            table.came(descriptor, str(descriptor))
        began = time.process_time()
        for descriptor in range(sources, sources + 4000):
            assert table.came(descriptor, str(descriptor)) is not None
        return time.process_time() - began

    assert seconds(8000) < 10 * min(seconds(100) for _ in range(3))


def test_what_the_kernel_still_holds_is_no_memory_of_the_daemon() -> None:
    table = Sessions()
    for descriptor in (1, 2):
        table.came(descriptor, "a")
        table.spoke(descriptor, f"key{descriptor}", 0)
    received, held = PEER_BYTES_MAX + 100_000, {1: 120_000, 2: 50_000}
    assert table.over(lambda _: received, 0.0, held.__getitem__) == [2]
