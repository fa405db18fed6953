"""What is written at a takeover, in which order, and what an error does to it: on a table that only remembers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import pytest

from feedback.ipvs.errors import IpvsError
from feedback.sync.conntrack import entries, reader, table, tracking
from feedback.sync.conntrack.adjustments import Adjustment, Key, Shift, encode
from feedback.sync.conntrack.table import BATCH, TrackingError, Written
from feedback.sync.conntrack.tracking import Tracking, batches
from feedback.sync.replication import records
from feedback.sync.replication.ledger import NEWEST, Ledger
from feedback.sync.replication.records import Record


def connection(number: int, *, flags: int = 0, state: int = 1, server: int = 1) -> Record:
    client, destination = number.to_bytes(4, "big"), bytes((10, 1, 0, server))
    return Record(6, flags, state, client, 1024, b"\x0a\0\0\x64", 80, destination, 80, 0, 900)


def note(book: Ledger, at: float, *found: Record) -> None:
    for datagram in records.encode(found, 2, records.DATAGRAM_BYTES_MAX):
        book.note([datagram], at)


def client(body: bytes) -> int:
    return int.from_bytes(body[24:28], "big")


def written(book: Ledger, now: float) -> list[list[int]]:
    return [[client(body) for body in batch] for batch in batches(book, lambda: now)]


def test_those_that_were_heard_last_come_first() -> None:
    book = Ledger(10.0)
    note(book, 100.0, *map(connection, range(1, 6)))
    note(book, 101.0, connection(2))
    assert written(book, 102.0) == [[2, 5, 4, 3, 1]]


def test_each_is_written_once_and_none_is_left_out_that_is_masqueraded() -> None:
    book, count = Ledger(10.0), NEWEST + 3 * BATCH
    for first in range(1, count, 250):
        note(book, 100.0 + first / count, *map(connection, range(first, first + 250)))
    note(book, 101.0, connection(7), connection(9_999_999, flags=3))
    found = written(book, 102.0)
    assert max(map(len, found)) == BATCH and found[0][:2] == [7, 5000]
    flat = [each for batch in found for each in batch]
    assert len(flat) == len(set(flat)) and set(range(1, count)) <= set(flat)
    assert 9_999_999 not in flat


def test_what_is_noted_after_the_takeover_has_an_entry_already() -> None:
    book, count = Ledger(10.0), 3 * NEWEST // 2
    for first in range(1, count, 250):
        note(book, 100.0, *map(connection, range(first, first + 250)))
    steps = batches(book, lambda: 102.0)
    found = [client(body) for body in next(steps)]
    note(book, 102.5, connection(3, server=2), connection(count + 1000))
    found += [client(body) for batch in steps for body in batch]
    assert 3 not in found and count + 1000 not in found and len(found) >= count - 2


class Remembering:
    """In place of the kernel's table."""

    def __init__(self, *, fails_after: int = 1_000_000) -> None:
        self.written: list[tuple[int, Adjustment | None]] = []
        self.late: list[int] = []
        self.fails_after = fails_after

    def write(self, bodies: Sequence[bytes], adjustments: Mapping[Key, Adjustment], *, replace: bool = True) -> Written:
        if not replace:
            self.late += map(client, bodies)
            return Written(len(bodies), 0, {})
        if len(self.written) >= self.fails_after:
            raise TrackingError("full")
        self.written += [(client(body), adjustments.get(entries.key(body))) for body in bodies]
        return Written(len(bodies) - 1, 1, {"ENOMEM": 1})

    def close(self) -> None:
        pass


def made(
    monkeypatch: pytest.MonkeyPatch,
    book: Ledger,
    kernel: Remembering,
    mode: str = "auto",
    at: Sequence[float] = (102.0,),
) -> Tracking:
    def now(work: Coroutine[Any, Any, None], name: str) -> None:
        asyncio.run(work)

    monkeypatch.setattr(table, "wanted", lambda netns: True)
    monkeypatch.setattr(tracking, "LATE_SECONDS", 0.0)
    monkeypatch.setattr(tracking, "Table", lambda netns: kernel)
    found = Tracking(mode, book, lambda: at[0], now, lambda: None)
    found.look()
    return found


def full(count: int) -> Ledger:
    book = Ledger(10.0)
    note(book, 100.0, *map(connection, range(1, count + 1)))
    return book


def test_a_takeover_writes_all_and_says_what_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Remembering()
    found = made(monkeypatch, full(2 * BATCH + 5), kernel)
    found.take_over()
    assert len(kernel.written) == 2 * BATCH + 5
    told = found.status()["written"]
    assert (told["entries"], told["replaced"], told["refused"]) == (2 * BATCH + 2, 3, {"ENOMEM": 3})
    assert told["newest_ms"] is not None


def test_what_comes_when_the_takeover_has_begun_is_written_where_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, book, work, at = Remembering(), full(3), list[Coroutine[Any, Any, None]](), [102.0]
    found = made(monkeypatch, book, kernel, at=at)
    monkeypatch.setattr(found, "_spawn", lambda coroutine, name: work.append(coroutine))
    found.take_over()
    note(book, 102.0, connection(7), connection(8, flags=3))
    at[0] = 102.7
    asyncio.run(work[0])
    assert [number for number, _ in kernel.written] == [3, 2, 1] and kernel.late == [7]


def test_an_adjustment_that_came_goes_with_its_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, shift = Remembering(), Shift(5, 0, 2)
    found = made(monkeypatch, full(3), kernel)
    record = connection(2)
    found.hear(True, encode([Adjustment(6, record.client, 1024, record.virtual, 80, None, shift)]))
    found.take_over()
    assert {number: each and each.received for number, each in kernel.written} == {1: None, 2: shift, 3: None}


def test_adjustments_that_are_none_leave_those_before(monkeypatch: pytest.MonkeyPatch) -> None:
    found = made(monkeypatch, full(1), Remembering())
    record = connection(1)
    found.hear(True, encode([Adjustment(6, record.client, 1024, record.virtual, 80, None, Shift(1, 2, 3))]))
    found.hear(True, b"\xc1")
    assert found.status()["adjusted"] == 1 and found.peer is True


def test_an_error_ends_the_writing_and_not_the_takeover(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Remembering(fails_after=BATCH)
    found = made(monkeypatch, full(3 * BATCH), kernel)
    found.take_over()
    assert len(kernel.written) == BATCH


def test_with_mode_off_nothing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Remembering()
    found = made(monkeypatch, full(3), kernel, mode="off")
    assert not found.wanted
    found.take_over()
    assert kernel.written == []


def test_a_kernel_that_cannot_be_asked_is_told_of_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Callable[[], object]] = [_refuse, Remembering]
    monkeypatch.setattr(table, "wanted", lambda netns: True)
    monkeypatch.setattr(tracking, "Table", lambda netns: answers.pop(0)())
    found = Tracking("auto", full(1), lambda: 102.0, lambda work, name: work.close(), lambda: None)
    assert found.look() and "modprobe" in found.problem
    found.take_over()
    assert not found.look() and found.problem == ""


def _refuse() -> None:
    raise IpvsError("modprobe nf_conntrack_netlink")


class Reading:
    """In place of the kernel: what each reading finds, an error among them."""

    def __init__(self, *answers: list[Adjustment] | OSError, took_seconds: float = 0.0) -> None:
        self.answers, self.took_seconds, self.reads = list(answers), took_seconds, 0

    async def read(self) -> list[Adjustment]:
        self.reads += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer

    def close(self) -> None:
        pass


def attended(monkeypatch: pytest.MonkeyPatch, source: Reading, *, active: bool = True) -> tuple[Tracking, list[bytes]]:
    """For a tenth of a second."""
    told: list[bytes] = []
    found = made(monkeypatch, full(1), Remembering())
    monkeypatch.setattr(tracking, "READ_SECONDS", 0.001)
    monkeypatch.setattr(tracking, "Reader", lambda: source)
    monkeypatch.setattr(reader, "needed", lambda: True)
    monkeypatch.setattr(found, "_changed", lambda: told.append(found.adjustments))

    async def for_a_moment() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(found.attend(lambda: active), 0.1)

    asyncio.run(for_a_moment())
    return found, told


SHIFTED = Adjustment(6, b"\0\0\0\1", 1024, b"\x0a\0\0\x64", 80, None, Shift(5, 0, 2))


def test_what_a_helper_has_changed_is_told_once_and_an_error_is_none_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Reading([], OSError(5, "torn"), [SHIFTED], [SHIFTED])
    found, told = attended(monkeypatch, source)
    assert told == [encode([SHIFTED])] and source.reads > 4
    assert found.problem == ""


def test_what_cannot_be_read_says_nothing_of_what_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    found, told = attended(monkeypatch, Reading(OSError(5, "torn")))
    assert told == [] and found.status()["problem"] == ""


def test_a_standby_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Reading([SHIFTED])
    assert attended(monkeypatch, source, active=False)[1] == [] and source.reads == 0


def test_a_reading_that_takes_long_is_made_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Reading([SHIFTED], took_seconds=1.0)
    attended(monkeypatch, source)
    assert source.reads == 1
