"""The records that make a kernel send early, and that they are taken out again."""

from __future__ import annotations

from ipaddress import ip_address

from feedback.sync.replication import records
from feedback.sync.replication.push import MARK, MASTER_BYTES, PUSH_RECORDS, push_datagrams, without_push
from feedback.sync.replication.records import RECORD6_BYTES, RECORD_BYTES, Record

LO = ip_address("127.0.0.1").packed
FOREIGN = Record(6, 0x83, 1, bytes(4), 1024, b"\x0a\0\0\x64", 80, b"\x0a\1\0\1", 80, 0, 900)
FOREIGN6 = Record(6, 0x83, 1, bytes(16), 1024, bytes(15) + b"\1", 80, bytes(15) + b"\2", 80, 0, 900)


def test_the_two_records_are_of_one_connection_and_differ_in_its_destination() -> None:
    one, two = (records.decode(d).records[0] for d in push_datagrams(LO, 40000, 2))
    assert one.key == two.key
    assert (one.destination, one.destination_port) != (two.destination, two.destination_port)
    assert not one.flags & 0x100  # an inactive record would not replace the connection


def test_ours_push_out_whatever_is_in_the_buffer() -> None:
    """The kernel sends its buffer when a record does not fit into it any more."""
    room = MASTER_BYTES - records.HEADER_BYTES
    for foreign in (RECORD_BYTES, RECORD6_BYTES):
        assert foreign + PUSH_RECORDS * RECORD_BYTES > room
    assert room >= PUSH_RECORDS * RECORD_BYTES  # and no smaller than needed: each datagram costs


def test_ours_are_known_by_their_mark_and_taken_out_and_nothing_else_is() -> None:
    ours = [records.decode(d).records[0] for d in push_datagrams(LO, 40000, 2)]
    (mixed,) = records.encode([ours[0], FOREIGN, ours[1], FOREIGN6], 1)
    assert MARK in mixed
    (kept,) = without_push(mixed, 2)
    assert records.decode(kept) == records.Datagram(2, (FOREIGN, FOREIGN6))
    assert MARK not in kept
    assert without_push(records.encode(ours, 1)[0], 2) == []
