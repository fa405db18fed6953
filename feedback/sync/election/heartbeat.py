"""The datagram by which a director says that it is alive: its fields, its bytes, and the proof of its freshness.

This module owns the layout, the keyed check over every byte, and the rules against replay. It knows no socket, no
clock, and not what a role means (election.py).

Layout: 4 bytes magic, 1 byte protocol version, then fields that every version must keep where they are (role, flags,
priority, term, boot id, sequence, echo), then 16 bytes of keyed BLAKE2b over everything else, then a MessagePack map
(name, replica, MACs) that a version may change. So a peer of another version can be told from a forger. It proves that
it is alive, and both sides still agree on who is active. Only the content of the map is not understood.

Freshness without clocks: a heartbeat echoes the boot id and the latest sequence that its sender heard from us, and we
know when we sent that one. A recording can echo neither a boot id that did not exist yet nor a sequence that was not
sent yet. Invariant: a datagram changes what is known of the peer only if it was made less than `fresh_seconds` ago, and
after every other one that was accepted. A heartbeat without such an echo is a hello: its only effect is that we echo
it."""

from __future__ import annotations

import hashlib
import hmac
import struct
from enum import StrEnum
from typing import Annotated, Any

import msgpack
import msgspec

from feedback.refusals import RefusalError
from feedback.wire import Name

PROTOCOL = 1
BYTES_MAX = 512
TERM_MAX = 2**63 - 1
MAGIC = b"LVSH"
GREETED_MAX = 8  # unproven boot ids that are echoed in turn: each one within a quarter of a second
RETIRED_MAX = 16  # boot ids of the peer's earlier starts; even older ones fail by their echo

_HEADER = struct.Struct(">4sBBBxHxxQQQQQ")  # magic, version, role, flags, priority, term, boot, sequence, echo
_CHECK_BYTES = 16
_BODY_AT = _HEADER.size + _CHECK_BYTES

Sequence = Annotated[int, msgspec.Meta(ge=0, le=TERM_MAX)]
Mac = Annotated[bytes, msgspec.Meta(min_length=6, max_length=6)]
Macs = Annotated[tuple[Mac, ...], msgspec.Meta(max_length=16)]


class Role(StrEnum):
    """What a director says of itself. UNDECIDED: it has just started, or doubts its role. It then claims nothing, but
    if it has the addresses it may soon continue as active."""

    UNDECIDED = "undecided"
    STANDBY = "standby"
    ACTIVE = "active"


class ReplicaState(StrEnum):
    NONE = "none"
    CATCHING_UP = "catching-up"
    BEHIND = "behind"
    COMPLETE = "complete"


class Replica(msgspec.Struct, frozen=True):
    """How much of the active director's connection table a standby holds: `done` of `total` while it catches up."""

    state: ReplicaState = ReplicaState.NONE
    done: Sequence = 0
    total: Sequence = 0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """`boot` is a random number for each start of the sender, and `sequence` counts its heartbeats since. The same
    heartbeat goes over every link. `term` is that of the sender's claim while it is active, else the highest it knows.
    `heard_boot` and `heard_sequence` echo the latest heartbeat it got (0: none). `installed`: the VIPs are on its
    interfaces, whose MAC addresses are `macs`. `yields` asks the peer to take over now; `forced`, even if the peer is
    not complete. `wishes` asks the peer to hand over. `reach`: the sender could serve, since its service interfaces are
    up and it reaches at least one of its reach targets (or has none). A heartbeat of another `version` gives no name,
    replica or MACs."""

    name: Name
    boot: int
    sequence: int
    role: Role
    term: int
    priority: int
    replica: Replica = Replica()
    installed: bool = False
    macs: tuple[bytes, ...] = ()
    heard_boot: int = 0
    heard_sequence: int = 0
    yields: bool = False
    forced: bool = False
    wishes: bool = False
    reach: bool = True
    healthy: bool = True
    version: int = PROTOCOL


class HeartbeatError(RefusalError):
    """A datagram that is refused. `kind` names the counter for it: oversized, malformed or forged."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class _Body(msgspec.Struct, frozen=True):
    name: Name
    replica: Replica
    macs: Macs


_ROLES = (Role.UNDECIDED, Role.STANDBY, Role.ACTIVE)
_FLAGS = ("installed", "yields", "forced", "wishes", "reach", "healthy")


def derive_key(secret: bytes) -> bytes:
    """The heartbeat key of one pair, made from the secret (at least 16 bytes) that both directors hold."""
    if len(secret) < 16:
        raise ValueError(f"the pair's secret has {len(secret)} bytes: at least 16 are needed")
    return hashlib.blake2b(secret, digest_size=32, person=b"lvsf-heartbeat").digest()


def encode(heartbeat: Heartbeat, key: bytes) -> bytes:
    """Raises ValueError for a heartbeat that no peer would take."""
    flags = sum(1 << bit for bit, name in enumerate(_FLAGS) if getattr(heartbeat, name))
    header = _HEADER.pack(
        MAGIC,
        heartbeat.version,
        _ROLES.index(heartbeat.role),
        flags,
        heartbeat.priority,
        heartbeat.term,
        heartbeat.boot,
        heartbeat.sequence,
        heartbeat.heard_boot,
        heartbeat.heard_sequence,
    )
    replica = (heartbeat.replica.state.value, heartbeat.replica.done, heartbeat.replica.total)
    body: bytes = msgpack.packb({"name": heartbeat.name, "replica": replica, "macs": heartbeat.macs})
    if _BODY_AT + len(body) > BYTES_MAX:
        raise ValueError(f"a heartbeat of {_BODY_AT + len(body)} bytes: at most {BYTES_MAX} are taken")
    return header + _check(header, body, key) + body


def decode(data: bytes, key: bytes) -> Heartbeat:
    """The heartbeat in a datagram with a valid check, whatever its version. Raises HeartbeatError."""
    if len(data) > BYTES_MAX:
        raise HeartbeatError("oversized", f"{len(data)} bytes, at most {BYTES_MAX} are taken")
    if len(data) < _BODY_AT or data[:4] != MAGIC:
        raise HeartbeatError("malformed", "not a heartbeat")
    header, check, body = data[: _HEADER.size], data[_HEADER.size : _BODY_AT], data[_BODY_AT:]
    if not hmac.compare_digest(check, _check(header, body, key)):
        raise HeartbeatError("forged", "made without the pair's secret, or changed on its way")
    _, version, role, flags, priority, term, boot, sequence, heard_boot, heard_sequence = _HEADER.unpack(header)
    same = version == PROTOCOL
    if not boot or max(term, sequence, heard_sequence) > TERM_MAX or (same and role >= len(_ROLES)):
        raise HeartbeatError("malformed", "a field is out of its range")
    content = _body(body) if same else _Body("unknown", Replica(), ())
    return Heartbeat(
        name=content.name,
        boot=boot,
        sequence=sequence,
        role=_ROLES[role] if role < len(_ROLES) else Role.UNDECIDED,
        term=term,
        priority=priority,
        replica=content.replica,
        macs=content.macs,
        heard_boot=heard_boot,
        heard_sequence=heard_sequence,
        version=version,
        **{name: bool(flags & 1 << bit) for bit, name in enumerate(_FLAGS)},
    )


def _check(header: bytes, body: bytes, key: bytes) -> bytes:
    return hashlib.blake2b(header + body, key=key, digest_size=_CHECK_BYTES).digest()


def _body(data: bytes) -> _Body:
    try:
        raw: Any = msgpack.unpackb(data, strict_map_key=True)
        state, done, total = raw["replica"]
        raw["replica"] = {"state": state, "done": done, "total": total}
        return msgspec.convert(raw, _Body)
    except Exception as error:  # msgpack's own, ValueError, RecursionError; a wrong shape: KeyError, TypeError
        raise HeartbeatError("malformed", str(error)) from None


class Verdict(StrEnum):
    """What a heartbeat proves. Only FRESH ones count. DUPLICATE is normal with several links, and shows that this link
    works. The others are counted under these names."""

    FRESH = "fresh"
    DUPLICATE = "duplicate"
    HELLO = "hello"
    REPLAYED = "replayed"
    OLD_BOOT = "old-boot"
    REFLECTED = "reflected"


class Heard(msgspec.Struct, frozen=True):
    """One link: the last sequence that came over it, and when it last brought a proven heartbeat."""

    link: str
    sequence: int
    at: float


class Window(msgspec.Struct):
    """What we sent recently, and what we heard from one peer. Every value is immutable, so a shallow copy is
    independent."""

    boot: int
    fresh_seconds: float
    silence_seconds: float
    sent: tuple[tuple[int, float], ...] = ()
    peer_boot: int = 0  # that of the last proven heartbeat
    peer_sequence: int = 0
    heard_at: float = float("-inf")
    echo_boot: int = 0  # what the next heartbeat echoes
    echo_sequence: int = 0
    others: tuple[tuple[int, int], ...] = ()  # unproven boots that wait for their turn, each with its last sequence
    links: tuple[Heard, ...] = ()
    retired: tuple[int, ...] = ()

    def send(self, sequence: int, now: float) -> None:
        recent = tuple((s, at) for s, at in self.sent if now - at <= self.fresh_seconds)
        self.sent = (*recent, (sequence, now))

    def echo(self) -> tuple[int, int]:
        """Boot id and sequence for a heartbeat to echo. Several boots that have proved nothing are echoed in turn.
        Otherwise a recording that is played after each hello would keep the peer from ever proving itself."""
        echoed = self.echo_boot, self.echo_sequence
        if self.others:
            (self.echo_boot, self.echo_sequence), *rest = self.others
            self.others = (*rest, echoed)
        return echoed

    def forget(self) -> None:
        """Believe nothing sent before now: echoes of what we sent prove nothing any more, and the peer counts as not
        heard."""
        self.sent, self.heard_at = (), float("-inf")

    def receive(self, heartbeat: Heartbeat, link: str, now: float) -> Verdict:
        if heartbeat.boot == self.boot:
            return Verdict.REFLECTED
        if heartbeat.boot in self.retired:
            return Verdict.OLD_BOOT
        proven = self._proves(heartbeat, now)
        if heartbeat.boot != self.peer_boot:
            return self._adopt(heartbeat, link, now) if proven else self._greet(heartbeat, now)
        heard = next((h for h in self.links if h.link == link), Heard(link, -1, float("-inf")))
        if heartbeat.sequence <= heard.sequence:
            return Verdict.REPLAYED
        self._note(Heard(link, heartbeat.sequence, now if proven else heard.at))
        if not proven:
            return self._greet(heartbeat, now)
        self._echo(heartbeat)
        if heartbeat.sequence <= self.peer_sequence:
            return Verdict.DUPLICATE
        self.peer_sequence, self.heard_at = heartbeat.sequence, now
        return Verdict.FRESH

    def _proves(self, heartbeat: Heartbeat, now: float) -> bool:
        if heartbeat.heard_boot != self.boot:
            return False
        return any(s == heartbeat.heard_sequence and now - at <= self.fresh_seconds for s, at in self.sent)

    def _adopt(self, heartbeat: Heartbeat, link: str, now: float) -> Verdict:
        """The peer has started again. Its earlier boot is over for good."""
        if self.peer_boot:
            self.retired = (*self.retired, self.peer_boot)[-RETIRED_MAX:]
        self.links = tuple(Heard(h.link, -1, h.at) for h in self.links)
        self.peer_boot, self.peer_sequence, self.heard_at = heartbeat.boot, heartbeat.sequence, now
        self._note(Heard(link, heartbeat.sequence, now))
        self._echo(heartbeat)
        return Verdict.FRESH

    def _greet(self, heartbeat: Heartbeat, now: float) -> Verdict:
        """Echo a boot that has proved nothing yet, but never instead of a peer that is proven and heard."""
        if now - self.heard_at <= self.silence_seconds:
            if heartbeat.boot == self.peer_boot:
                self._echo(heartbeat)
            return Verdict.HELLO
        boot, sequence = heartbeat.boot, heartbeat.sequence
        known = dict(self.others).get(boot, self.echo_sequence if boot == self.echo_boot else -1)
        if sequence < known:
            return Verdict.REPLAYED
        if boot == self.echo_boot:
            self.echo_sequence = sequence
        elif known >= 0:
            self.others = tuple((b, sequence if b == boot else s) for b, s in self.others)
        else:  # a new boot is first in turn
            waits = ((self.echo_boot, self.echo_sequence), *self.others) if self.echo_boot else self.others
            self.echo_boot, self.echo_sequence, self.others = boot, sequence, waits[: GREETED_MAX - 1]
        return Verdict.HELLO

    def _echo(self, heartbeat: Heartbeat) -> None:
        """Echo the proven peer's heartbeat; nobody else is answered."""
        if heartbeat.boot != self.echo_boot or heartbeat.sequence > self.echo_sequence:
            self.echo_boot, self.echo_sequence = heartbeat.boot, heartbeat.sequence
        self.others = ()

    def _note(self, heard: Heard) -> None:
        self.links = (*(h for h in self.links if h.link != heard.link), heard)
