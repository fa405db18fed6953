"""Who has to live on because something depends on it, and who has not."""

from __future__ import annotations

import pytest

from feedback.sync.replication import records
from feedback.sync.replication.records import Record
from feedback.sync.replication.ties import SOON_SECONDS, Ties

PHONE, OTHER = b"\x0a\0\0\x09", b"\x0a\0\0\x0a"
VIP, SERVER, SECOND = b"\x0a\0\0\x64", b"\x0a\1\0\1", b"\x0a\1\0\2"
TCP, UDP = 6, 17
NEARLY, LONG = SOON_SECONDS - 1, SOON_SECONDS + 1


def template(client: bytes = PHONE, server: bytes = SERVER, call: bytes = b"call-1") -> bytes:
    made = Record(UDP, 0x1103, 0, client, 0, VIP, 5060, server, 5060, 0, 300, pe_data=call, pe_name=b"sip")
    return records.body(made)


def flow(client: bytes = PHONE, server: bytes = SERVER) -> bytes:
    return records.body(Record(UDP, 0x183, 0, client, 5060, VIP, 5060, server, 5060, 0, 300))


def control(state: int = 1, *, flags: int = 0) -> bytes:
    return records.body(Record(TCP, flags, state, PHONE, 40000, VIP, 21, SERVER, 21, 0, 900))


def data(state: int = 1, client: bytes = PHONE) -> bytes:
    return records.body(Record(TCP, 0, state, client, 40001, VIP, 20, SERVER, 20, 0, 900))


def after(ties: Ties, *bodies: tuple[float, bytes]) -> list[bytes]:
    """Two whole rounds over the same ledger, in two parts."""
    for _ in range(2):
        note(ties, *bodies[:1])
        note(ties, *bodies[1:])
        kept = ties.round()
    return kept


def note(ties: Ties, *bodies: tuple[float, bytes]) -> None:
    ties.note_ending([body for left, body in bodies if 0 < left < SOON_SECONDS])
    if ties.seeks:
        ties.note_living([body for left, body in bodies if left > 0])


@pytest.mark.parametrize(
    ("holder", "held", "expected"),
    [
        ((NEARLY, template()), (LONG, flow()), True),
        ((NEARLY, template()), (5.0, flow()), True),
        ((LONG, template()), (LONG, flow()), False),  # has time
        ((NEARLY, template()), (-1.0, flow()), False),  # has expired, and is not swept yet
        ((-1.0, template()), (LONG, flow()), False),
        ((NEARLY, template()), (LONG, flow(OTHER)), False),
        ((NEARLY, template()), (LONG, flow(server=SECOND)), False),
        ((NEARLY, control()), (LONG, data()), True),
        ((NEARLY, control()), (LONG, data(state=4)), False),  # the transfer has ended
        ((NEARLY, control()), (LONG, data(client=OTHER)), False),
        ((NEARLY, control(state=4)), (LONG, data()), False),
        ((NEARLY, control(flags=3)), (LONG, data()), False),  # not through us
        ((NEARLY, control()), (LONG, template()), False),  # holders hold no holders
    ],
)
def test_a_holder_lives_on_while_something_depends_on_it(
    holder: tuple[float, bytes], held: tuple[float, bytes], expected: bool
) -> None:
    assert after(Ties(), holder, held) == ([holder[1]] if expected else [])
    assert after(Ties(), held, holder) == ([holder[1]] if expected else [])


def test_every_call_of_a_phone_lives_on_with_its_flow() -> None:
    ties = Ties()
    calls = [(NEARLY, template(call=b"call-%d" % n)) for n in range(3)]
    assert sorted(after(ties, (LONG, flow()), *calls)) == sorted(body for _, body in calls)


def test_nothing_is_kept_from_a_round_that_saw_it_end() -> None:
    ties = Ties()
    note(ties, (NEARLY, template()), (LONG, flow()))
    assert ties.round() == []
    note(ties, (NEARLY, template()))
    assert ties.round() == []


def test_a_firewall_marks_template_holds_what_bears_the_mark() -> None:
    mark = records.body(Record(0, 0x1103, 0, PHONE, 0, b"\0\0\0\7", 0, SERVER, 0, 7, 300))
    marked = records.body(Record(TCP, 3, 1, PHONE, 40000, VIP, 443, SERVER, 443, 7, 900))
    assert after(Ties(), (NEARLY, mark), (LONG, marked)) == [mark]
    other = records.body(Record(TCP, 3, 1, PHONE, 40000, VIP, 443, SERVER, 443, 8, 900))
    assert after(Ties(), (NEARLY, mark), (LONG, other)) == []


def test_ipv6_is_the_same() -> None:
    client, vip, server, second = (bytes(15) + bytes((n,)) for n in (1, 2, 3, 4))
    holder = records.body(Record(TCP, 0, 1, client, 40000, vip, 21, server, 21, 0, 900))
    held, others = (
        records.body(Record(TCP, 0, 1, client, 40001, vip, 30000, to, 30000, 0, 900)) for to in (server, second)
    )
    assert after(Ties(), (NEARLY, holder), (LONG, held)) == [holder]
    assert after(Ties(), (NEARLY, holder), (LONG, others)) == []
