"""Between agents and masters: reports, replies, HAProxy's agent-check in both directions, words of applications."""

from __future__ import annotations

import contextlib
import math
import re

import msgpack
import msgspec

from feedback import wire
from feedback.agent.agentcheck import AgentCheck
from feedback.agent.load import Sample
from feedback.agent.signals import applications
from feedback.master.claims.advice import RATIO_MAX, Advice, AdviceError
from feedback.master.servers.fleet import Fleet
from feedback.refusals import RefusalError
from feedback.sessions import KEPT_SECONDS, Sessions
from feedback.wire import Application, Cpu, Memory, WireError
from tests.fuzz.mutation import MSGPACK_TOKENS, write_msgpack
from tests.fuzz.target import Target

ANSWER = re.compile(rb"(up (ready|drain) ([1-9]|[1-9]\d|100)%\n)?")


def report(data: bytes) -> None:
    found = wire.decode_report(data)
    assert math.isfinite(found.sampled_at) and math.isfinite(found.cpu.busy_seconds) and 0 < found.cpu.cores <= 65536
    assert wire.decode_report(wire.encode(found)) == found
    fleet = Fleet(2.0, 15.0)
    fleet.receive(msgspec.structs.replace(found, sequence=0, sampled_at=0.0), 1.0)
    fleet.receive(msgspec.structs.replace(found, sequence=1, sampled_at=1.0), 2.0)


def sessions(data: bytes) -> None:
    found = wire.decode_sessions(data)
    assert wire.of_sessions(data) and wire.decode_sessions(wire.encode(found)) == found
    kept = Sessions()
    with contextlib.suppress(ValueError):  # a value too long in bytes
        kept.take(found.sessions, 1e6)
    told = [word for words in kept.all(1e6) for word in words]
    assert len(told) == len(kept) and all(word.age_seconds <= KEPT_SECONDS for word in told)


def reply(data: bytes) -> None:
    found = wire.decode_reply(data)
    assert wire.decode_reply(wire.encode(found)) == found


def join(data: bytes) -> None:
    """One decoder for each side's word: neither takes the other's for its own, and both take their own back."""
    try:
        asked = wire.decode_join(data)
    except WireError:
        said = wire.decode_joined(data)
        assert wire.decode_joined(wire.encode(said)) == said
    else:
        assert wire.decode_join(wire.encode(asked)) == asked and len(asked.public_key) == 40


def question(data: bytes) -> None:
    check = AgentCheck(3.0)
    spoken = (Application(port=80, utilisation=0.5, drain=True), Application(port=81))
    for at in (1.0, 2.0):
        check.observe(Sample(at, 0, Cpu(2.0, at), Memory(100, 50), applications=spoken))
    assert ANSWER.fullmatch(check.answer(data[:64], 2.5))


def advice(data: bytes) -> None:
    state = Advice()
    state.observe(data, 1.0)
    assert 0 <= state.of(100) <= RATIO_MAX and 0 <= state.of(0) <= RATIO_MAX and state.heard
    assert "\n" not in state.bar()


def application(data: bytes) -> None:
    found = applications.decode(data)
    assert 0 <= found.port <= 65535
    if isinstance(found, wire.Session):
        assert found.session.isprintable() and len(found.session) <= 64
        return
    assert found.utilisation is None or 0 <= found.utilisation <= 1


TARGETS = (
    Target(name="report", take=report, refuses=(WireError,), tokens=MSGPACK_TOKENS, trees=msgpack.unpackb,
           write=write_msgpack),
    Target(name="sessions", take=sessions, refuses=(WireError,), tokens=MSGPACK_TOKENS, trees=msgpack.unpackb,
           write=write_msgpack),
    Target(name="reply", take=reply, refuses=(WireError,), tokens=MSGPACK_TOKENS, trees=msgpack.unpackb,
           write=write_msgpack),
    Target(name="join", take=join, refuses=(WireError,), tokens=MSGPACK_TOKENS, trees=msgpack.unpackb,
           write=write_msgpack),
    Target(name="agent-check-question", take=question, tokens=(b"99999", b"0" * 64, b"\xb2", b"-1", b"80\r\n")),
    Target(name="agent-check-line", take=advice, refuses=(AdviceError,), bytes_max=1024,
           tokens=(b"weight:", b"%", b"9" * 400, b"drain", b"maxconn:", b"#", b"\r", b"\n", b"\xb2%", b"-5%",
                   b"down,")),
    Target(name="application", take=application, refuses=(RefusalError,), tokens=(*MSGPACK_TOKENS, b"[" * 1500, b"{"),
           trees=msgpack.unpackb, write=write_msgpack, bytes_max=4096),
)  # fmt: skip
