"""The schedulers' choices as tables: who gets the next connection, connection by connection."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.ipvs.schedulers import MODELLED, Scheduler, make, usable


@dataclass(eq=False)
class Server:
    name: str
    weight: int = 1
    active: int = 0
    inactive: int = 0
    overloaded: bool = False


def pool(**weights: int) -> list[Server]:
    return [Server(name, weight) for name, weight in weights.items()]


def choices(name: str, servers: list[Server], count: int, *, keep: bool = True) -> str:
    """Names in the order of `count` choices; `keep` lets each connection stay active."""
    scheduler: Scheduler[Server] = make(name)
    scheduler.changed(servers)
    chosen = ""
    for _ in range(count):
        server = scheduler.choose(servers)
        chosen += server.name if server else "-"
        if server and keep:
            server.active += 1
    return chosen


@pytest.mark.parametrize(
    ("scheduler", "weights", "expected"),
    [
        ("rr", {"a": 1, "b": 5, "c": 1}, "abcabc"),
        ("rr", {"a": 1, "b": 0, "c": 1}, "acacac"),
        ("wrr", {"a": 1, "b": 1}, "abab"),
        ("wrr", {"a": 3, "b": 2, "c": 1}, "aababcaababc"),  # a pass for weight 3, one for 2, one for 1
        ("wrr", {"a": 30, "b": 20, "c": 10}, "aababcaababc"),  # only the ratio counts
        ("wrr", {"a": 0, "b": 0}, "---"),
        ("wlc", {"a": 1, "b": 1, "c": 1}, "abcabc"),
        ("wlc", {"a": 1, "b": 9}, "abbbbbbbbba"),  # idle: the head of the list, whatever the weights
        ("sed", {"a": 1, "b": 9}, "bbbbbbbba"),  # at 9/9 against 1/1 the head wins
        ("nq", {"a": 1, "b": 9}, "abbbbbbbb"),  # an idle server first
        ("lc", {"a": 1, "b": 9, "c": 0}, "ababab"),
        ("fo", {"a": 1, "b": 9, "c": 9}, "bbbb"),
        ("ovf", {"a": 1, "b": 2}, "bbbaa--"),  # each admits one more than its weight
    ],
)
def test_the_choices_are(scheduler: str, weights: dict[str, int], expected: str) -> None:
    assert choices(scheduler, pool(**weights), len(expected)) == expected


def test_wlc_counts_an_active_connection_as_256_inactive_ones() -> None:
    assert choices("wlc", [Server("a", 1, 1), Server("b", 1, 0, 255)], 1) == "b"
    assert choices("wlc", [Server("a", 1, 1), Server("b", 1, 0, 257)], 1) == "a"
    assert choices("sed", [Server("a", 1, 1), Server("b", 1, 0, 999)], 1) == "b"


def test_wlc_does_not_round_with_the_largest_weights() -> None:
    big = 2**31 - 1
    assert choices("wlc", [Server("a", big - 1, 1000), Server("b", big, 1000)], 1) == "b"


@pytest.mark.parametrize("name", sorted(MODELLED))
@given(data=st.data())
def test_only_a_usable_server_is_chosen_and_one_is_if_there_is_one(name: str, data: st.DataObject) -> None:
    """ovf refuses more than that: it is full at its weight."""
    server = st.builds(Server, st.just("x"), st.integers(0, 5), st.integers(0, 3), st.integers(0, 3), st.booleans())
    servers = data.draw(st.lists(server, max_size=6))
    scheduler: Scheduler[Server] = make(name)
    scheduler.changed(servers)
    for _ in range(data.draw(st.integers(1, 20))):
        chosen = scheduler.choose(servers)
        if chosen is not None:
            assert usable(chosen)
            chosen.active += 1
        elif name != "ovf":
            assert not any(usable(s) for s in servers)
        for s in servers:
            s.overloaded = data.draw(st.booleans())


def test_wrr_is_exact_over_a_cycle() -> None:
    counts = Counter(choices("wrr", pool(a=5, b=3, c=2), 100))
    assert counts == {"a": 50, "b": 30, "c": 20}


def test_a_weight_that_is_written_before_each_connection_sends_wrr_to_one_server() -> None:
    servers = pool(a=1, b=1, c=1)
    scheduler: Scheduler[Server] = make("wrr")
    chosen = []
    for _ in range(9):
        scheduler.changed(servers)
        chosen.append(scheduler.choose(servers))
    assert set(chosen) == {servers[0]}


def test_rr_goes_on_where_it_was_when_the_last_one_is_removed() -> None:
    servers = pool(a=1, b=1, c=1, d=1)
    scheduler: Scheduler[Server] = make("rr")
    assert [scheduler.choose(servers) for _ in range(2)] == servers[:2]
    gone, after = servers[1], servers[2]
    scheduler.removing(servers, gone)
    servers.remove(gone)
    assert scheduler.choose(servers) is after
    first = servers[0]
    scheduler.choose(servers), scheduler.choose(servers)
    scheduler.removing(servers, first)
    servers.remove(first)
    assert scheduler.choose(servers) is servers[0]
