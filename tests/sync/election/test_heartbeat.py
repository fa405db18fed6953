"""The heartbeat's bytes, and what proves that one is fresh."""

from __future__ import annotations

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.sync.election.heartbeat import (
    BYTES_MAX,
    PROTOCOL,
    TERM_MAX,
    Heartbeat,
    HeartbeatError,
    Replica,
    ReplicaState,
    Role,
    Verdict,
    Window,
    decode,
    derive_key,
    encode,
)

KEY = derive_key(b"s" * 32)

numbers = st.integers(0, TERM_MAX)
boots = st.integers(1, 2**64 - 1)
heartbeats = st.builds(
    Heartbeat,
    name=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"),
    boot=boots,
    sequence=numbers,
    role=st.sampled_from(Role),
    term=numbers,
    priority=st.integers(0, 65535),
    replica=st.builds(Replica, st.sampled_from(ReplicaState), numbers, numbers),
    installed=st.booleans(),
    macs=st.lists(st.binary(min_size=6, max_size=6), max_size=16).map(tuple),
    heard_boot=st.integers(0, 2**64 - 1),
    heard_sequence=numbers,
    yields=st.booleans(),
    forced=st.booleans(),
    wishes=st.booleans(),
    reach=st.booleans(),
    healthy=st.booleans(),
)
PLAIN = Heartbeat(name="d1", boot=7, sequence=3, role=Role.ACTIVE, term=5, priority=100, macs=(b"abcdef",))


@given(heartbeats)
def test_what_is_sent_arrives(heartbeat: Heartbeat) -> None:
    data = encode(heartbeat, KEY)
    assert len(data) <= BYTES_MAX
    assert decode(data, KEY) == heartbeat


@given(heartbeats, st.data())
def test_any_changed_bit_is_refused(heartbeat: Heartbeat, data: st.DataObject) -> None:
    sent = bytearray(encode(heartbeat, KEY))
    bit = data.draw(st.integers(0, 8 * len(sent) - 1))
    sent[bit // 8] ^= 1 << bit % 8
    with pytest.raises(HeartbeatError) as caught:
        decode(bytes(sent), KEY)
    assert caught.value.kind == ("malformed" if bit < 32 else "forged")


@given(st.binary(max_size=700), st.booleans())
def test_arbitrary_bytes_are_refused_and_raise_nothing_else(data: bytes, dressed: bool) -> None:
    with pytest.raises(HeartbeatError):
        decode(b"LVSH" + data if dressed else data, KEY)


@given(st.binary(max_size=300))
def test_an_arbitrary_body_with_a_right_check_is_malformed(body: bytes) -> None:
    with pytest.raises(HeartbeatError) as caught:
        decode(resealed(body), KEY)
    assert caught.value.kind == "malformed"


def resealed(body: bytes, key: bytes = KEY, **fields: object) -> bytes:
    """A datagram with this body, made by one who knows the secret."""
    from feedback.sync.election import heartbeat as module

    data = encode(msgspec.structs.replace(PLAIN, **fields), key)
    header = data[: module._HEADER.size]
    return header + module._check(header, body, key) + body


GOOD_BODY = {"name": "d1", "replica": ["none", 0, 0], "macs": []}
BAD_BODIES: list[dict[str, object]] = [
    {"name": ""},
    {"name": "x" * 65},
    {"name": "a b"},
    {"name": 1},
    {"replica": None},
    {"replica": ["none", 0]},
    {"replica": ["whole", 0, 0]},
    {"replica": ["none", -1, 0]},
    {"replica": ["none", 0, 2**63]},
    {"macs": [b"short"]},
    {"macs": [b"abcdef"] * 17},
    {"macs": 7},
]


def test_the_body_of_the_table_is_good_before_it_is_spoilt() -> None:
    assert decode(resealed(msgpack.packb(GOOD_BODY)), KEY).name == "d1"


@pytest.mark.parametrize("spoilt", BAD_BODIES)
def test_a_body_that_does_not_fit_is_malformed(spoilt: dict[str, object]) -> None:
    with pytest.raises(HeartbeatError) as caught:
        decode(resealed(msgpack.packb(GOOD_BODY | spoilt)), KEY)
    assert caught.value.kind == "malformed"


def test_what_is_too_long_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(HeartbeatError) as caught:
        decode(encode(PLAIN, KEY) + b"x" * BYTES_MAX, KEY)
    assert caught.value.kind == "oversized"


def test_another_pairs_secret_is_a_forgery() -> None:
    with pytest.raises(HeartbeatError) as caught:
        decode(encode(PLAIN, derive_key(b"t" * 32)), KEY)
    assert caught.value.kind == "forged"


def test_a_heartbeat_that_no_peer_would_take_is_not_made() -> None:
    with pytest.raises(ValueError, match="at most 512"):
        encode(msgspec.structs.replace(PLAIN, macs=(b"abcdef",) * 60), KEY)


@pytest.mark.parametrize("fields", [{"boot": 0}, {"term": 2**63}, {"sequence": 2**63}, {"heard_sequence": 2**64 - 1}])
def test_numbers_out_of_range_are_malformed(fields: dict[str, object]) -> None:
    with pytest.raises(HeartbeatError) as caught:
        decode(encode(msgspec.structs.replace(PLAIN, **fields), KEY), KEY)
    assert caught.value.kind == "malformed"


@given(st.binary(max_size=300))
def test_another_version_is_told_apart_from_a_forgery_and_keeps_what_all_versions_share(body: bytes) -> None:
    heard = decode(resealed(body, version=PROTOCOL + 1), KEY)
    assert (heard.version, heard.name, heard.macs) == (PROTOCOL + 1, "unknown", ())
    shared = ("boot", "sequence", "role", "term", "priority", "installed", "heard_boot", "heard_sequence")
    assert all(getattr(heard, field) == getattr(PLAIN, field) for field in shared)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        derive_key(b"short")


# Freshness


def window() -> Window:
    """Of boot 1, which has sent sequence 1 at 0.0, 2 at 0.1, ... 10 at 0.9."""
    made = Window(boot=1, fresh_seconds=0.5, silence_seconds=0.09)
    for sequence in range(1, 11):
        made.send(sequence, (sequence - 1) / 10)
    return made


def beat(sequence: int, boot: int = 2, echo: tuple[int, int] = (1, 10)) -> Heartbeat:
    return msgspec.structs.replace(PLAIN, boot=boot, sequence=sequence, heard_boot=echo[0], heard_sequence=echo[1])


FRESH, DUPLICATE, HELLO, REPLAYED = Verdict.FRESH, Verdict.DUPLICATE, Verdict.HELLO, Verdict.REPLAYED
OLD_BOOT, REFLECTED = Verdict.OLD_BOOT, Verdict.REFLECTED

# (heartbeat, link, now) in their order, and the verdicts
HEARD: dict[str, tuple[list[tuple[Heartbeat, str, float]], list[Verdict]]] = {
    "in order": ([(beat(1), "a", 1.0), (beat(2), "a", 1.0)], [FRESH, FRESH]),
    "over two links": ([(beat(1), "a", 1.0), (beat(1), "b", 1.0)], [FRESH, DUPLICATE]),
    "one link lags": ([(beat(2), "a", 1.0), (beat(1), "b", 1.0), (beat(2), "b", 1.0)], [FRESH, DUPLICATE, DUPLICATE]),
    "twice over one link": ([(beat(1), "a", 1.0), (beat(1), "a", 1.0)], [FRESH, REPLAYED]),
    "reordered": ([(beat(2), "a", 1.0), (beat(1), "a", 1.0)], [FRESH, REPLAYED]),
    "no echo": ([(beat(1, echo=(0, 0)), "a", 1.0)], [HELLO]),
    "echo of another life of ours": ([(beat(1, echo=(9, 10)), "a", 1.0)], [HELLO]),
    "echo of what we sent long ago": ([(beat(1, echo=(1, 3)), "a", 1.0)], [HELLO]),
    "echo of what we have not sent": ([(beat(1, echo=(1, 11)), "a", 1.0)], [HELLO]),
    "held back": ([(beat(1), "a", 1.0), (beat(2), "a", 1.6)], [FRESH, HELLO]),
    "our own": ([(beat(1, boot=1), "a", 1.0)], [REFLECTED]),
    "the peer restarts": ([(beat(9), "a", 1.0), (beat(1, boot=3), "a", 1.0)], [FRESH, FRESH]),
    "an older life": ([(beat(9), "a", 1.0), (beat(1, 3), "a", 1.0), (beat(10), "a", 1.0)], [FRESH, FRESH, OLD_BOOT]),
    "a recorded hello beside a live peer": (
        [(beat(9), "a", 1.0), (beat(99, boot=3, echo=(0, 0)), "a", 1.0), (beat(10), "a", 1.0)],
        [FRESH, HELLO, FRESH],
    ),
    "a recorded hello after the peer fell silent": (
        [(beat(9), "a", 1.0), (beat(99, 3, (0, 0)), "a", 1.2), (beat(9), "a", 1.2), (beat(10), "a", 1.2)],
        [FRESH, HELLO, REPLAYED, FRESH],
    ),
}


@pytest.mark.parametrize("case", HEARD)
def test_only_what_is_new_and_proven_counts(case: str) -> None:
    here = window()
    arrivals, verdicts = HEARD[case]
    assert [here.receive(*arrival) for arrival in arrivals] == verdicts


def test_a_hello_is_echoed_so_that_the_peer_can_prove_itself_but_not_in_place_of_a_live_one() -> None:
    here = window()
    here.receive(beat(5, echo=(0, 0)), "a", 1.0)
    assert (here.echo_boot, here.echo_sequence) == (2, 5)
    here.receive(beat(6), "a", 1.0)
    here.receive(beat(1, boot=3, echo=(0, 0)), "a", 1.05)
    assert (here.echo_boot, here.echo_sequence) == (2, 6)
    here.receive(beat(1, boot=3, echo=(0, 0)), "a", 1.2)
    assert (here.echo_boot, here.echo_sequence) == (3, 1)


@pytest.mark.parametrize("recorded", [(), (7,), (7, 8, 9), tuple(range(7, 13))])
def test_recordings_played_after_every_hello_keep_no_two_restarted_directors_apart(recorded: tuple[int, ...]) -> None:
    """In both directions, of as many earlier lives as somebody has; with one of each, two directors never met."""
    ends = {boot: Window(boot=boot, fresh_seconds=0.25, silence_seconds=0.1) for boot in (1, 2)}
    proved: set[int] = set()
    for turn in range(20):
        now = 1.0 + 0.03 * turn
        for boot, other in ((1, 2), (2, 1)):
            ends[boot].send(turn + 1, now)
            said = beat(turn + 1, boot=boot, echo=ends[boot].echo())
            if ends[other].receive(said, "a", now) is FRESH:
                proved.add(boot)
            for life in recorded:
                ends[other].receive(beat(1000, boot=100 * boot + life, echo=(0, 0)), "a", now)
    assert proved == {1, 2}


def test_nothing_unproven_shows_that_a_link_works() -> None:
    here = window()
    here.receive(beat(1), "a", 1.0)
    here.receive(beat(2, echo=(1, 2)), "a", 1.3)
    assert here.heard_at == 1.0
    assert [(h.link, h.at) for h in here.links] == [("a", 1.0)]


def test_after_a_stall_only_what_answers_a_new_heartbeat_counts() -> None:
    here = window()
    assert here.receive(beat(1), "a", 1.0) is FRESH
    here.forget()
    assert here.receive(beat(2), "a", 1.0) is HELLO
    here.send(11, 1.0)
    assert here.receive(beat(3, echo=(1, 11)), "a", 1.02) is FRESH


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(2, 4), st.integers(0, 12), st.booleans()), max_size=40))
def test_no_recording_is_believed_twice(plays: list[tuple[int, int, int, bool]]) -> None:
    here = window()
    believed = []
    for sequence, boot, echo, other_link in plays:
        heartbeat = beat(sequence, boot, (1, echo))
        if here.receive(heartbeat, "b" if other_link else "a", 1.0) is FRESH:
            believed.append((boot, sequence))
    assert len(believed) == len(set(believed))
    for boot in {b for b, _ in believed}:
        own = [s for b, s in believed if b == boot]
        assert own == sorted(own)
