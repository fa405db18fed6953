"""The channel against a scripted socket: batches, lost and foreign answers, and never an answer to another question."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable

import pytest

from feedback.ipvs import NoIpvs, NotPermitted, OutOfStep, netlink
from feedback.ipvs import channel as channel_module
from feedback.ipvs.channel import BATCH_BYTES, BATCH_MESSAGES, Channel, KernelError
from feedback.ipvs.netlink import Message

FAMILY = 0x1C
BODY = netlink.attribute(1, b"body")

Answers = list["bytes | BaseException"]
Script = Callable[[list[Message]], Answers]


def reply(sequence: int, kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, 0) + body.ljust((len(body) + 3) & ~3, b"\0")


def status(sequence: int, code: int = 0) -> bytes:
    return reply(sequence, netlink.NLMSG_ERROR, struct.pack("=i", -code) + bytes(16))


def done(sequence: int) -> bytes:
    return reply(sequence, netlink.NLMSG_DONE, bytes(4))


def datum(sequence: int, payload: bytes = b"data") -> bytes:
    return reply(sequence, FAMILY, bytes(4) + netlink.attribute(1, payload))


class ScriptedSocket:
    """A kernel that answers the family's lookup, and everything else by the script."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.sent: list[list[Message]] = []
        self.answers: Answers = []
        self.closed = False

    def send(self, data: bytes) -> int:
        assert len(data) <= 212_992 - 32, "EMSGSIZE"
        messages = list(netlink.messages(data))
        if messages[0].kind == netlink.GENL_ID_CTRL:
            family = netlink.attribute(netlink.CTRL_ATTR_FAMILY_ID, struct.pack("=H", FAMILY))
            sequence = messages[0].sequence
            self.answers += [reply(sequence, netlink.GENL_ID_CTRL, bytes(4) + family), *answered(messages)]
        else:
            self.sent.append(messages)
            self.answers += self.script(messages)
        return len(data)

    def recvmsg(self, size: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        if not self.answers:
            raise BlockingIOError
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer, [], 0, (0, 0)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], tuple[Channel, list[ScriptedSocket]]]:
    """A channel on scripted sockets, and the list of all that it opened."""

    def make(script: Script) -> tuple[Channel, list[ScriptedSocket]]:
        sockets: list[ScriptedSocket] = []

        def fresh() -> socket.socket:
            sockets.append(ScriptedSocket(script))
            return sockets[-1]  # type: ignore[return-value]

        monkeypatch.setattr(channel_module, "_netlink_socket", fresh)
        return Channel("IPVS", 1), sockets

    return make


Opened = Callable[[Script], tuple[Channel, list[ScriptedSocket]]]


def answered(messages: list[Message], code: int = 0) -> Answers:
    return [status(messages[0].sequence, code), *(status(m.sequence) for m in messages[1:])]


def acknowledged(messages: list[Message]) -> Answers:
    return [status(messages[-1].sequence)]


def test_a_batch_is_one_datagram_and_asks_for_one_acknowledgement(opened: Opened) -> None:
    channel, (sock,) = opened(acknowledged)
    assert channel.batch([(6, BODY)] * 100) == {}
    (messages,) = sock.sent
    assert [m.kind for m in messages] == [FAMILY] * 100 + [netlink.NLMSG_NOOP]
    assert [bool(m.flags & netlink.NLM_F_ACK) for m in messages] == [False] * 100 + [True]
    assert all(m.flags & netlink.NLM_F_REQUEST for m in messages)


@pytest.mark.parametrize(
    ("count", "body", "datagrams"),
    [(0, BODY, 0), (1, BODY, 1), (BATCH_MESSAGES, BODY, 1), (BATCH_MESSAGES + 1, BODY, 2), (9, bytes(40_000), 3)],
)
def test_a_batch_is_cut_by_number_and_by_size(opened: Opened, count: int, body: bytes, datagrams: int) -> None:
    channel, (sock,) = opened(acknowledged)
    assert channel.batch([(6, body)] * count) == {}
    assert len(sock.sent) == datagrams
    assert sum(len(messages) - 1 for messages in sock.sent) == count
    assert all(sum(len(m.body) + 16 for m in messages) <= BATCH_BYTES + 16 for messages in sock.sent)


def test_errors_are_of_their_own_request_over_all_chunks(opened: Opened) -> None:
    def some_fail(messages: list[Message]) -> Answers:
        bad = [status(m.sequence, errno.ENOENT) for m in messages[:-1] if m.sequence % 400 == 0]
        return [*bad, status(messages[-1].sequence)]

    channel, (sock,) = opened(some_fail)
    failed = channel.batch([(6, BODY)] * 2500)
    flat = [m.sequence for messages in sock.sent for m in messages[:-1]]
    assert failed == {index: errno.ENOENT for index, sequence in enumerate(flat) if sequence % 400 == 0}
    assert len(failed) == 6


def test_the_last_one_may_fail_too(opened: Opened) -> None:
    channel, _ = opened(lambda messages: [status(messages[-2].sequence, errno.ERANGE), *acknowledged(messages)])
    assert channel.batch([(6, BODY)] * 3) == {2: errno.ERANGE}


def test_lost_answers_fail_their_chunk_and_the_next_goes_on_afresh(opened: Opened) -> None:
    def first_overruns(messages: list[Message]) -> Answers:
        if len(messages) > BATCH_MESSAGES:
            return [OSError(errno.ENOBUFS, "No buffer space available")]
        return acknowledged(messages)

    channel, sockets = opened(first_overruns)
    failed = channel.batch([(6, BODY)] * (BATCH_MESSAGES + 5))
    assert failed == dict.fromkeys(range(BATCH_MESSAGES), errno.ENOBUFS)
    assert [s.closed for s in sockets] == [True, False]


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([], errno.ETIMEDOUT),
        ([status(99)], errno.EPROTO),
        ([b"\1\2\3"], errno.EPROTO),
        ([OSError(errno.ENOBUFS, "No buffer space available")], errno.ENOBUFS),
    ],
)
def test_an_exchange_out_of_step_costs_the_socket(opened: Opened, answers: Answers, code: int) -> None:
    channel, sockets = opened(lambda messages: list(answers))
    with pytest.raises(OutOfStep) as caught:
        channel.request(15)
    assert caught.value.errno == code
    assert sockets[0].closed
    sockets.clear()
    with pytest.raises(OutOfStep):
        channel.dump(4)
    assert len(sockets) == 1  # opened anew, and given up again


def test_an_interrupted_exchange_leaves_no_answer_behind(opened: Opened) -> None:
    interrupted = [True]

    def script(messages: list[Message]) -> Answers:
        if interrupted.pop() if interrupted else False:
            return [KeyboardInterrupt(), datum(messages[0].sequence, b"stale"), *answered(messages)]
        return [datum(messages[0].sequence, b"fresh"), *answered(messages)]

    channel, _ = opened(script)
    with pytest.raises(KeyboardInterrupt):
        channel.request(15)
    assert channel.request(15) == [netlink.attribute(1, b"fresh")]


def test_a_refusal_is_an_answer_and_keeps_the_socket(opened: Opened) -> None:
    channel, sockets = opened(lambda messages: answered(messages, errno.EEXIST))
    with pytest.raises(KernelError) as caught:
        channel.request(9)
    assert caught.value.errno == errno.EEXIST
    assert len(sockets) == 1
    assert not sockets[0].closed
    assert sockets[0].answers == []


def test_a_request_that_the_kernel_does_not_answer_was_interrupted(opened: Opened) -> None:
    channel, (sock,) = opened(acknowledged)
    with pytest.raises(KernelError) as caught:
        channel.request(10)
    assert caught.value.errno == errno.EINTR
    assert not sock.closed


@pytest.mark.parametrize("ask", [lambda c: c.request(15), lambda c: c.dump(4), lambda c: c.batch([(6, BODY)])])
def test_without_the_capability_everything_is_not_permitted(opened: Opened, ask: Callable[[Channel], object]) -> None:
    channel, _ = opened(lambda messages: answered(messages, errno.EPERM))
    with pytest.raises(NotPermitted, match="CAP_NET_ADMIN"):
        ask(channel)


def test_a_dump_counts_the_datagrams_that_held_something(opened: Opened) -> None:
    def script(messages: list[Message]) -> Answers:
        s = messages[0].sequence
        return [datum(s) + datum(s), datum(s), done(s)]

    channel, _ = opened(script)
    dump = channel.dump(8)
    assert (len(dump.bodies), dump.datagrams) == (3, 2)
    assert channel.dump(8).datagrams == 2


@pytest.mark.parametrize(
    ("script", "datagrams"),
    [
        (lambda messages: [done(messages[0].sequence)], 0),
        (lambda messages: [datum(messages[0].sequence) + done(messages[0].sequence)], 1),
    ],
)
def test_a_dump_may_end_in_its_first_datagram(opened: Opened, script: Script, datagrams: int) -> None:
    channel, _ = opened(script)
    assert channel.dump(8).datagrams == datagrams


def test_a_kernel_without_the_family_has_no_ipvs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without(ScriptedSocket):
        def send(self, data: bytes) -> int:
            self.answers += answered(list(netlink.messages(data)), errno.ENOENT)
            return len(data)

    monkeypatch.setattr(channel_module, "_netlink_socket", lambda: Without(acknowledged))
    with pytest.raises(NoIpvs, match="modprobe ip_vs"):
        Channel("IPVS", 1)


def test_a_lookup_that_got_out_of_step_leaves_nothing_behind(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    channel, sockets = opened(lambda messages: [])
    with pytest.raises(OutOfStep):
        channel.request(15)
    lookup = ScriptedSocket.send
    monkeypatch.setattr(ScriptedSocket, "send", lambda sock, data: len(data))
    with pytest.raises(OutOfStep):
        channel.request(15)
    monkeypatch.setattr(ScriptedSocket, "send", lookup)
    sockets.clear()
    with pytest.raises(OutOfStep):  # its script still answers nothing, but the question was put to the right family
        channel.request(15)
    assert sockets[0].sent[0][0].kind == FAMILY


def test_sequence_numbers_go_round_without_zero(opened: Opened) -> None:
    channel, (sock,) = opened(acknowledged)
    channel._sequence = 0xFFFFFFFF - 1
    channel.batch([(6, BODY)] * 3)
    assert [m.sequence for m in sock.sent[0]] == [1, 2, 3, 4]
