"""Both ends of a session against each other, with a network between them that loses, doubles and delays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.sync.replication import ledger, records, replica
from feedback.sync.replication.ledger import Ledger
from feedback.sync.replication.messages import (
    Ack,
    Alive,
    Hello,
    Message,
    Records,
    Refused,
    TableBegin,
    TableEnd,
    Welcome,
)
from feedback.sync.replication.records import Record
from feedback.sync.replication.replica import BACKUP_ID, Bulk, Condition, Replica, Sender


def connection(number: int, state: int = 1) -> Record:
    return Record(6, 0x83, state, number.to_bytes(4, "big"), 1024, b"\x0a\0\0\x64", 80, b"\x0a\1\0\1", 80, 0, 900)


def latest(expected: dict[object, Record]) -> Bulk:
    """A table that says what is expected when it is taken, as the ledger's parts do."""
    return Bulk(([records.body(record) for record in expected.values()] for _ in range(1)), len(expected))


PART = 500
FULL = 255  # records in a datagram of the bulk


def bulk(found: Iterable[Record]) -> Bulk:
    """A table that is what it is; the ledger's parts say what is known when they are taken."""
    bodies = [records.body(record) for record in found]
    return Bulk(iter([bodies[at : at + PART] for at in range(0, len(bodies), PART)]), len(bodies))


def live(*numbers: int, state: int = 1) -> list[bytes]:
    return records.encode([connection(number, state) for number in numbers], BACKUP_ID)


class Pair:
    """A standby, its session with an active director, and the standby's kernel, which takes what it is given."""

    def __init__(self) -> None:
        self.now = 100.0
        self.replica = Replica("standby", self.now)
        self.kernel: dict[object, Record] = {}
        self.connect()

    def connect(self) -> None:
        self.sender = Sender(self.replica.begin(self.now), "active", self.now)
        self.deliver([self.sender.greeting()])

    def deliver(self, messages: list[Message]) -> None:
        for message in messages:
            self.replica.receive(message, self.now)

    def inject(self, limit: int = 1000) -> None:
        taken = self.replica.take(limit)
        for datagram in taken:
            self.kernel.update({record.key: record for record in records.decode(datagram).records})
        self.replica.injected(len(taken))
        self.replica.observed(0, 0, self.now)

    def answer(self) -> None:
        while (ack := self.replica.acknowledgement()) is not None:
            self.sender.receive(ack, self.now)

    def turn(self, seconds: float = 0.0) -> list[Message]:
        """The sender's word goes over, into the kernel, and is acknowledged."""
        self.now += seconds
        messages = self.sender.outgoing(self.now)
        self.deliver(messages)
        self.inject()
        self.answer()
        return messages

    def catch_up(self, connections: int) -> None:
        self.sender.table(bulk(map(connection, range(connections))))
        while not self.sender.settled:
            self.turn()

    @property
    def status(self) -> replica.Status:
        return self.replica.status(self.now)


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_a_standby_is_complete_when_the_tables_end_is_in_its_kernel(pair: Pair) -> None:
    assert pair.status.condition is Condition.CATCHING_UP
    pair.catch_up(100_000)
    assert len(pair.kernel) == 100_000
    assert pair.status.complete
    assert (pair.status.injected, pair.status.total) == (100_000, 100_000)


def test_an_empty_table_makes_complete_too(pair: Pair) -> None:
    pair.catch_up(0)
    assert pair.status.complete


def test_progress_is_counted_in_connections(pair: Pair) -> None:
    pair.sender.table(bulk(map(connection, range(800))))
    for _ in range(2):
        pair.deliver(pair.sender.outgoing(pair.now))
    pair.inject(limit=1)
    assert str(pair.status) == f"catching up {FULL} of 800"


def test_it_is_not_complete_before_the_kernel_has_read_its_queue(pair: Pair) -> None:
    pair.sender.table(bulk([connection(1)]))
    while pair.sender.more:
        pair.deliver(pair.sender.outgoing(pair.now))
    pair.replica.observed(0, 0, pair.now)
    assert not pair.status.complete  # nothing was injected yet
    pair.replica.injected(len(pair.replica.take(10)))
    pair.replica.observed(2304, 0, pair.now)
    assert not pair.status.complete  # in the socket, not in the table
    pair.replica.observed(0, 0, pair.now)
    assert pair.status.complete


def test_the_live_stream_goes_before_the_bulk(pair: Pair) -> None:
    pair.sender.table(bulk(map(connection, range(100_000))))
    turns = 0
    while pair.sender.more:  # until the bulk has filled its part of the window
        sent = sum(m.datagram[4] for m in pair.sender.outgoing(pair.now) if isinstance(m, Records))
        assert sent == PART
        turns += 1
    assert turns > 1
    pair.sender.live(live(200_000))
    (message,) = pair.sender.outgoing(pair.now)
    assert isinstance(message, Records)
    assert not message.bulk


def test_what_becomes_live_while_the_bulk_is_under_way_is_never_overwritten_by_it(pair: Pair) -> None:
    book = Ledger(10)
    book.note(live(*range(20_000)), pair.now)
    pair.sender.table(Bulk((book.part(index, pair.now) for index in range(ledger.PARTS)), len(book)))
    for start in range(0, 20_000, 1000):
        closed = live(*range(start, start + 1000), state=4)
        book.note(closed, pair.now)
        pair.sender.live(closed)
        pair.turn()
    while not pair.sender.settled:
        pair.turn()
    assert {pair.kernel[connection(number).key].state for number in range(20_000)} == {4}


def test_what_the_ledger_had_no_place_for_is_said_until_it_has_expired(pair: Pair) -> None:
    pair.sender.table(Bulk(iter(()), 0, lacking=77, lacking_seconds=60))
    while not pair.sender.settled:
        pair.turn()
    assert pair.status.complete  # a takeover is better than none
    assert pair.status.lacking == 77
    assert "at most 77 connections" in str(pair.status)
    for _ in range(70):
        pair.turn(seconds=1.0)
    assert (pair.status.lacking, str(pair.status)) == (0, "complete")


def test_a_gap_needs_a_new_session_and_the_new_one_makes_complete_again(pair: Pair) -> None:
    pair.catch_up(10)
    complete_since = pair.status.since
    pair.sender.live([*live(20), *live(21)])
    messages = pair.sender.outgoing(pair.now)
    pair.now += 5
    pair.deliver(messages[1:])
    assert pair.status.condition is Condition.BEHIND
    assert pair.status.since == pair.now > complete_since
    assert "a gap: messages 4 to 4 did not come" in pair.replica.restart(pair.now)
    assert pair.replica.take(10) == []  # what came after the gap is not injected
    since = pair.status.since
    pair.connect()
    assert pair.replica.restart(pair.now) == ""
    assert (pair.status.condition, pair.status.since) == (Condition.CATCHING_UP, since)
    pair.catch_up(22)
    assert pair.status.complete
    assert (pair.status.gaps, pair.status.sessions) == (1, 2)


@pytest.mark.parametrize("end", [Alive(1, 3), TableEnd(1, 3, 0), TableBegin(1, 3, 0)])
def test_a_loss_at_the_end_is_seen_by_the_next_word(pair: Pair, end: Message) -> None:
    pair.deliver([end])
    assert "a gap" in pair.replica.restart(pair.now)


def test_a_drop_by_the_kernel_needs_a_new_session(pair: Pair) -> None:
    pair.catch_up(10)
    pair.replica.observed(0, 3, pair.now)
    assert str(pair.status) == "behind: the kernel dropped 3 datagrams"
    assert pair.replica.restart(pair.now)
    assert pair.status.dropped == 3


def test_silence_makes_behind_and_then_a_new_session(pair: Pair) -> None:
    pair.catch_up(10)
    pair.now += replica.SILENCE_SECONDS + 0.1
    assert "no word" in str(pair.status)
    assert pair.replica.restart(pair.now) == ""
    pair.now += replica.RESTART_SECONDS
    assert "no word" in pair.replica.restart(pair.now)


def test_a_short_silence_heals_without_a_new_session_when_nothing_was_missed(pair: Pair) -> None:
    pair.catch_up(10)
    pair.now += replica.SILENCE_SECONDS + 0.1
    assert not pair.status.complete
    pair.turn()
    assert pair.status.complete
    assert pair.status.sessions == 1


def test_a_sender_with_nothing_to_say_says_so_in_time(pair: Pair) -> None:
    pair.catch_up(1)
    said: list[Message] = []
    for _ in range(100):
        said += pair.turn(seconds=0.05)
        assert pair.status.complete
    assert {type(message) for message in said} == {Alive}
    assert len(said) >= 20
    assert pair.sender.next_timer() <= pair.now + replica.ALIVE_SECONDS


def test_an_unanswered_hello_is_repeated(pair: Pair) -> None:
    pair.replica.begin(pair.now)
    assert pair.replica.restart(pair.now + replica.RESTART_SECONDS) == ""
    assert pair.replica.restart(pair.now + replica.RESTART_SECONDS + 0.1)


def test_messages_of_an_older_session_count_for_nothing(pair: Pair) -> None:
    old = pair.sender
    old.live(live(1))
    pair.connect()
    pair.deliver(old.outgoing(pair.now))
    assert pair.replica.take(10) == []
    assert pair.status.stale == 1
    assert pair.replica.restart(pair.now) == ""


def test_records_before_the_welcome_are_a_gap(pair: Pair) -> None:
    pair.replica.begin(pair.now)
    pair.deliver([Records(2, 1, False, live(1)[0])])
    assert pair.replica.restart(pair.now)


def test_a_malformed_datagram_is_counted_and_never_injected(pair: Pair) -> None:
    pair.deliver([Records(1, 1, False, b"\0\2\0\x09\1\1\0\0x")])
    assert pair.replica.take(10) == []
    assert pair.status.malformed == 1
    assert "malformed" in pair.replica.restart(pair.now)


def test_whatever_id_a_datagram_has_it_is_our_backups_when_injected(pair: Pair) -> None:
    pair.deliver([Records(1, 1, False, records.encode([connection(1)], 77)[0])])
    assert [datagram[1] for datagram in pair.replica.take(10)] == [BACKUP_ID]


def test_a_refusal_is_the_reason(pair: Pair) -> None:
    pair.deliver([Refused(1, "the standby is too slow")])
    assert pair.replica.restart(pair.now) == "the standby is too slow"


def test_an_unbounded_sender_is_cut_off(pair: Pair) -> None:
    for sequence in range(1, 3 * replica.WINDOW):
        pair.deliver([Records(1, sequence, False, live(1)[0])])
    assert pair.replica.waiting <= 2 * replica.WINDOW
    assert "sends too much" in pair.replica.restart(pair.now)


def test_no_more_than_a_window_is_under_way(pair: Pair) -> None:
    pair.sender.table(bulk(map(connection, range(100_000))))
    for _ in range(5):
        pair.sender.live(live(*range(100_000, 108_000)))
        pair.sender.outgoing(pair.now)
    status = pair.sender.status()
    assert status.unacknowledged == replica.WINDOW
    assert status.live_waiting == 5 * 200 - status.live_datagrams > 0
    assert status.live_datagrams > replica.WINDOW - replica.BULK_WINDOW


def test_a_standby_too_slow_for_the_live_stream_is_told_and_memory_stays_bounded(pair: Pair) -> None:
    for _ in range(replica.LIVE_QUEUE // 200 + 2):
        pair.sender.live(live(*range(8000)))
    assert pair.sender.status().live_waiting == 0
    (message,) = pair.sender.outgoing(pair.now)
    assert isinstance(message, Refused)
    assert "too slow" in message.reason
    assert pair.sender.outgoing(pair.now) == []
    pair.deliver([message])
    assert pair.replica.restart(pair.now) == message.reason


def test_a_standby_that_acknowledges_nothing_ends_the_session(pair: Pair) -> None:
    pair.sender.live(live(1))
    assert len(pair.sender.outgoing(pair.now)) == 1
    pair.now += replica.STALL_SECONDS + 0.1
    assert isinstance(pair.sender.outgoing(pair.now)[0], Refused)


def test_an_idle_session_does_not_stall(pair: Pair) -> None:
    pair.catch_up(1)
    for _ in range(10):
        pair.turn(seconds=replica.STALL_SECONDS + 1)
    pair.sender.live(live(5))
    assert [type(m) for m in pair.turn(seconds=1)] == [Records]
    assert pair.sender.ended == ""


@pytest.mark.parametrize("ack", [Ack(1, 9, 0, 0), Ack(1, 2**62, 0, 0)])
def test_an_acknowledgement_of_what_was_never_sent_ends_the_session(pair: Pair, ack: Ack) -> None:
    pair.sender.receive(ack, pair.now)
    assert pair.sender.ended


def test_acknowledgements_of_another_session_are_ignored(pair: Pair) -> None:
    pair.sender.receive(Ack(9, 5, 0, 0), pair.now)
    assert pair.sender.ended == ""


def test_messages_come_in_the_order_in_which_they_mean_something(pair: Pair) -> None:
    pair.sender.table(bulk([connection(1)]))
    said = pair.sender.outgoing(pair.now) + pair.sender.outgoing(pair.now)
    assert [type(message) for message in said] == [TableBegin, Records, TableEnd]
    assert isinstance(pair.sender.greeting(), Welcome)
    assert isinstance(pair.replica.begin(pair.now), Hello)


def faults(draw: st.DataObject) -> Iterator[str]:
    while True:
        yield draw.draw(st.sampled_from(["ok"] * 8 + ["lost", "twice", "swapped", "dropped"]))


@given(st.data())
def test_whatever_the_network_does_complete_means_that_the_kernel_has_everything(data: st.DataObject) -> None:
    pair = Pair()
    expected: dict[object, Record] = {}
    fault = faults(data)
    table = [connection(number) for number in range(data.draw(st.integers(0, 120)))]
    expected.update({record.key: record for record in table})
    pair.sender.table(latest(expected))
    for step in range(data.draw(st.integers(1, 15))):
        pair.now += 0.05
        if data.draw(st.booleans()):
            number, state = data.draw(st.integers(0, 400)), data.draw(st.sampled_from([1, 4]))
            expected[connection(number).key] = connection(number, state)
            pair.sender.live(live(number, state=state))
        messages = pair.sender.outgoing(pair.now)
        match next(fault):
            case "lost" if messages:
                messages.pop(step % len(messages))
            case "twice":
                messages = [m for m in messages for _ in range(2)]
            case "swapped":
                messages.reverse()
            case "dropped" if pair.replica.waiting:
                taken = pair.replica.take(1)
                pair.replica.injected(len(taken))
                pair.replica.observed(0, 1, pair.now)
        pair.deliver(messages)
        pair.inject(data.draw(st.integers(0, 20)))
        pair.answer()
        sent = pair.sender.status()
        if pair.status.complete and not sent.live_waiting and not sent.unacknowledged:
            assert pair.kernel == expected
        if pair.replica.restart(pair.now):
            pair.connect()
            pair.sender.table(latest(expected))
    for _ in range(100):  # the network heals
        pair.turn(seconds=0.05)
        if pair.replica.restart(pair.now):
            pair.connect()
            pair.sender.table(latest(expected))
    assert pair.status.complete
    assert pair.kernel == expected
