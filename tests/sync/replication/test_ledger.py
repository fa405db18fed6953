"""The table kept from the stream: what it holds, for how long, and what a reading of the kernel's adds and removes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.sync.replication import ledger, records
from feedback.sync.replication.ledger import Ledger, pieces
from feedback.sync.replication.records import Record
from tests.sync.replication.test_records import any_record

ESTABLISHED, FIN_WAIT = 1, 4


def connection(number: int, state: int = ESTABLISHED, timeout: int = 900, destination: bytes = b"\x0a\1\0\1") -> Record:
    return Record(
        6, 0x83, state, number.to_bytes(4, "big"), 1024, b"\x0a\0\0\x64", 80, destination, 80, 0, timeout
    )  # fmt: skip


def noted(*found: Record, at: float = 100.0) -> Ledger:
    made = Ledger(slack_seconds=10)
    made.note(records.encode(found, 2), at)
    return made


def of(bodies: Iterable[bytes]) -> tuple[Record, ...]:
    return tuple(r for d in records.packed(bodies, 2) for r in records.decode(d).records)


def table(book: Ledger, now: float) -> tuple[Record, ...]:
    return of(body for index in range(ledger.PARTS) for body in book.part(index, now))


def sweep(book: Ledger, now: float) -> None:
    for _ in range(ledger.PARTS):
        book.sweep(now)


def test_the_last_word_on_a_connection_is_what_is_kept() -> None:
    book = noted(connection(1), connection(2))
    book.note(records.encode([connection(1, FIN_WAIT, 120)], 2), 101.0)
    assert {r.client[3]: r.state for r in table(book, 102.0)} == {1: FIN_WAIT, 2: ESTABLISHED}


def test_a_timer_runs_on_and_ends_never_earlier_than_the_kernels() -> None:
    book = noted(connection(1, timeout=60))
    (record,) = table(book, 130.0)
    assert record.timeout_seconds >= 60 - 30
    assert table(book, 160.0)  # the kernel repeats a record only when its timer is off by the slack
    assert not table(book, 170.5)


def test_the_newest_are_told_in_the_order_in_which_they_were_heard() -> None:
    book = noted(connection(1), connection(2), connection(3))
    book.note(records.encode([connection(1)], 2), 101.0)
    book.note(records.encode([connection(4)], 2), 103.0)
    assert [r.client[3] for r in of(book.newest(104.0, before=102.0))] == [1, 3, 2]
    assert [r.timeout_seconds for r in of(book.newest(104.0, before=102.0))] == [908, 907, 907]
    sweep(book, 2000.0)
    assert book.newest(2000.0, before=2000.0) == []


def test_a_part_is_told_as_it_was_before_a_moment() -> None:
    book = noted(*map(connection, range(1, 200)))
    book.note(records.encode([connection(5), connection(500)], 2), 102.0)
    found, at = [], 0
    while at is not None:
        bodies, at = book.take_before(at, 20, 103.0, before=101.0)
        found += [int.from_bytes(r.client, "big") for r in of(bodies)]
    assert sorted(found) == [n for n in range(1, 200) if n != 5]


def template(call: bytes, timeout: int = 300) -> Record:
    return Record(
        17, 0x1083, 0, b"\x0a\0\0\x09", 0, b"\x0a\0\0\x64", 5060, b"\x0a\1\0\1", 5060, 0, timeout,
        pe_data=call, pe_name=b"sip",
    )  # fmt: skip


def test_a_template_keeps_its_services_timeout_however_old_it_is() -> None:
    """What is left of it would become its timeout for ever, whatever the client does."""
    book = noted(template(b""), at=100.0)
    (record,) = table(book, 380.0)
    assert record.timeout_seconds == 300
    assert not table(book, 500.0)


def test_templates_of_one_client_differ_by_their_engines_data() -> None:
    calls = [b"call-%d@phone" % number for number in range(30)]
    book = noted(*map(template, calls))
    assert sorted(record.pe_data for record in table(book, 101.0)) == sorted(calls)
    assert len({record.key for record in table(book, 101.0)}) == 30


@given(st.lists(any_record(), min_size=1, max_size=4), st.integers(0, 400), st.integers(0, 255), st.floats(0, 1000))
def test_whatever_is_noted_a_table_can_be_made(found: list[Record], at: int, byte: int, later: float) -> None:
    """A local user's datagram may begin as the kernel's do: what enters is what can be read again."""
    (datagram, *_) = records.encode(found, 2)
    if at + records.HEADER_BYTES < len(datagram):
        place = at + records.HEADER_BYTES
        datagram = datagram[:place] + bytes((byte,)) + datagram[place + 1 :]
    book = noted(connection(1), at=100.0)
    malformed = book.note([datagram], 100.0)
    table(book, 100.0 + later)
    assert malformed or len(book) > 1 or all(record.key == connection(1).key for record in found)


def test_a_good_first_record_lets_no_bad_second_one_in() -> None:
    (datagram,) = records.encode([connection(1), connection(2)], 2)
    at = records.HEADER_BYTES + records.RECORD_BYTES
    for place, byte in ((0, 2), (0, 1), (2, 0x10), (3, 200), (3, 12)):
        book = noted(connection(7))
        broken = datagram[: at + place] + bytes((byte,)) + datagram[at + place + 1 :]
        assert book.note([broken], 100.0) == 1
        assert [record.client[3] for record in table(book, 101.0)] == [7]


def test_what_has_expired_is_swept_out() -> None:
    book = noted(*(connection(number, timeout=10) for number in range(100)))
    book.note(records.encode([connection(200)], 2), 130.0)
    sweep(book, 130.0)
    assert len(book) == 1


def test_the_kernels_table_adds_what_was_there_before_and_removes_what_is_gone() -> None:
    book = noted(connection(1), connection(2))
    assert not book.whole
    book.absorb([connection(2), connection(3)], began=200.0, now=201.0)
    assert sorted(r.client[3] for r in table(book, 202.0)) == [2, 3]
    assert book.whole


def test_what_was_said_while_the_table_was_read_is_newer_than_the_table() -> None:
    book = noted(connection(1), at=100.0)
    book.note(records.encode([connection(1, FIN_WAIT, 120), connection(4)], 2), 200.5)
    book.absorb([connection(1), connection(2)], began=200.0, now=201.0)
    assert {r.client[3]: r.state for r in table(book, 202.0)} == {1: FIN_WAIT, 2: ESTABLISHED, 4: ESTABLISHED}


def test_the_table_corrects_what_was_missed() -> None:
    book = noted(connection(1), connection(2))
    moved = connection(2, destination=b"\x0a\1\0\2")
    book.absorb([connection(1, FIN_WAIT, 100), moved], began=200.0, now=201.0)
    found = {r.client[3]: (r.state, r.destination) for r in table(book, 202.0)}
    assert found == {1: (FIN_WAIT, b"\x0a\1\0\1"), 2: (ESTABLISHED, b"\x0a\1\0\2")}


def test_the_streams_record_is_kept_where_the_table_says_the_same_of_less() -> None:
    whole = Record(
        6, 0x603, 1, b"\0\0\0\1", 5, b"\x0a\0\0\x64", 80, b"\x0a\1\0\1", 80, 9, 900, bytes(range(24)), b"call", b"sip"
    )
    seen = Record(6, 0x83, 1, b"\0\0\0\1", 5, b"\x0a\0\0\x64", 80, b"\x0a\1\0\1", 80, 0, 500)
    book = noted(whole)
    book.absorb([seen], began=200.0, now=201.0)
    (record,) = table(book, 202.0)
    assert (record.sequence, record.pe_data, record.fwmark) == (whole.sequence, b"call", 9)


def flooded(limit: int, *later: Record, at: float = 101.0) -> Ledger:
    """Full of connections that last 900 s and the slack, and then others that find no place."""
    made = Ledger(slack_seconds=10, limit=limit)
    made.absorb([], 99.0, 99.0)
    made.note(records.encode([connection(number) for number in range(limit)], 2), 100.0)
    made.note(records.encode(later, 2), at)
    return made


def test_above_the_limit_what_is_there_stays_and_goes_on_and_what_is_new_is_counted() -> None:
    book = flooded(1000, *(connection(number) for number in range(1000, 1300)), connection(7, FIN_WAIT, 120))
    assert len(book) == 1000
    found = {int.from_bytes(r.client, "big"): r.state for r in table(book, 102.0)}
    assert found.keys() == set(range(1000))
    assert found[7] == FIN_WAIT
    assert book.lacking(102.0) == 300
    assert book.whole  # reading the kernel's table again would bring nothing that has a place


def test_what_found_no_place_is_lacking_until_the_last_of_it_expires() -> None:
    book = flooded(10, connection(10, timeout=60), connection(11, timeout=120))
    assert book.lacking(101.0 + 129) == 2
    assert book.lacking_seconds(101.0) == 130
    assert book.lacking(101.0 + 130) == 0
    book.note(records.encode([connection(12)], 2), 300.0)
    assert book.lacking(301.0) == 1


def test_what_expires_makes_room() -> None:
    book = noted(*(connection(number, timeout=10) for number in range(100)))
    book.limit = 100
    sweep(book, 130.0)
    book.note(records.encode([connection(number) for number in range(100, 200)], 2), 130.0)
    assert (len(book), book.lacking(130.0)) == (100, 0)


def test_the_kernels_table_finds_no_place_above_the_limit_either() -> None:
    book = flooded(10)
    book.absorb([connection(number) for number in range(30)], began=200.0, now=201.0)
    assert (len(book), book.lacking(201.0)) == (10, 20)


def test_a_sweep_takes_a_small_part_each_time_and_all_of_it_in_a_round() -> None:
    """The loop sends heartbeats: the sweep of a million may not be one step."""
    book = noted(*(connection(number, timeout=10) for number in range(50_000)))
    lengths = [len(book)]
    for _ in range(ledger.PARTS):
        book.sweep(200.0)
        lengths.append(len(book))
    assert lengths[-1] == 0
    assert max(before - after for before, after in pairwise(lengths)) < 50_000 / ledger.PARTS * 2.5


def test_a_part_has_what_was_noted_until_it_is_taken() -> None:
    """So the bulk that is made of it never says less than what went before it in the live stream."""
    book = noted(*(connection(number) for number in range(1000)))
    found = list(of(body for index in range(ledger.PARTS // 2) for body in book.part(index, 101.0)))
    book.note(records.encode([connection(number, FIN_WAIT) for number in range(1000)], 2), 101.0)
    later = of(body for index in range(ledger.PARTS // 2, ledger.PARTS) for body in book.part(index, 102.0))
    assert {record.state for record in later} == {FIN_WAIT}
    assert {record.client for record in (*found, *later)} == {connection(number).client for number in range(1000)}


def test_many_parts_of_few_connections_are_taken_together() -> None:
    book = noted(*(connection(number) for number in range(3000)))
    at, lengths = 0, []
    while at < ledger.PARTS:
        keys, at = book.keys(at, 1000)
        lengths.append(len(book.taken(keys, 101.0)))
    assert sum(lengths) == 3000
    assert all(1000 <= length < 1050 for length in lengths[:-1])


def test_what_is_taken_by_its_key_is_the_last_word_and_what_is_gone_is_left_out() -> None:
    """A large part goes in pieces, and what came meanwhile went before it in the live stream."""
    book = noted(
        *(connection(number) for number in range(1, 100)), *(connection(n, timeout=10) for n in range(100, 200))
    )
    keys, at = book.keys(0, 1000)
    assert len(keys) == 199 and at == ledger.PARTS
    book.note(records.encode([connection(number, FIN_WAIT) for number in range(1, 100)], 2), 101.0)
    sweep(book, 150.0)
    book.note(records.encode([connection(500)], 2), 151.0)
    found = [record for piece in (keys[:70], keys[70:]) for record in of(book.taken(piece, 151.0))]
    assert {record.state for record in found} == {FIN_WAIT}
    assert sorted(int.from_bytes(record.client, "big") for record in found) == list(range(1, 100))


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(0, [0]), (3, [3]), (500, [500]), (585, [585]), (977, [488, 489]), (1999, [499, 500, 500, 500])],
)
def test_pieces_are_alike_and_together_all(count: int, sizes: list[int]) -> None:
    keys = [number.to_bytes(2, "big") for number in range(count)]
    found = list(pieces(keys, 500))
    assert [len(piece) for piece in found] == sizes
    assert [key for piece in found for key in piece] == keys


def test_parameters_that_no_kernel_knows_do_not_enter() -> None:
    """One may be as long as a record can be: four kilobytes each would be another limit than the one that is stated."""
    long = b"".join(bytes((0x60 | n, 200)) + bytes(200) for n in range(8))
    size = records.RECORD_BYTES + len(long)
    plain = records.body(connection(1))
    (datagram,) = records.packed([plain[:2] + size.to_bytes(2, "big") + plain[4:] + long], 2, 9000)
    book = Ledger(10)
    assert book.note([datagram], 100.0) == 0
    assert [len(body) for index in range(ledger.PARTS) for body in book.part(index, 101.0)] == [records.RECORD_BYTES]


def test_a_malformed_datagram_is_counted_and_leaves_the_others() -> None:
    (datagram,) = records.encode([connection(1)], 2)
    book = Ledger(10)
    assert book.note([datagram[:8] + b"\1" + datagram[9:], datagram], 100.0) == 1
    assert len(book) == 1


@given(st.lists(any_record(), max_size=40))
def test_every_record_comes_back_but_for_its_timer(found: list[Record]) -> None:
    book = noted(*found)
    expected = {r.key: (r.flags, r.state, r.destination, r.sequence, r.pe_data, r.pe_name, r.fwmark) for r in found}
    assert {
        r.key: (r.flags, r.state, r.destination, r.sequence, r.pe_data, r.pe_name, r.fwmark) for r in table(book, 100.0)
    } == expected


def test_what_of_a_part_expires_when_and_which_part_the_sweep_was_at() -> None:
    """Noted at 100 s, with 10 s of slack."""
    book = noted(
        *(connection(n, timeout=60) for n in range(1, 300)), *(connection(n, timeout=20) for n in range(300, 400))
    )

    def found(now: float, until: float | None = None) -> list[int]:
        bodies = [body for index in range(ledger.PARTS) for body in book.lives(index, now, until)]
        assert {body[20:24] for body in bodies} <= {(60).to_bytes(4, "big"), (20).to_bytes(4, "big")}
        return sorted(int.from_bytes(r.client, "big") for r in of(bodies))

    assert found(129.0) == list(range(1, 400))
    assert found(131.0) == list(range(1, 300))
    assert found(129.0, 131.0) == list(range(300, 400))
    assert found(169.0, 1e9) == list(range(1, 300)) and found(170.0) == []
    assert [book.sweep(120.0) for _ in range(ledger.PARTS + 1)] == [*range(ledger.PARTS), 0]
