"""Reports and replies as MessagePack, and the protocol's version.

An agent's figures are raw and cumulative: the master takes differences, so a lost report costs only resolution. Seconds
are of the agent's own CLOCK_MONOTONIC; the master maps them to its own clock. Everything that arrives is untrusted:
limited in size before it is unpacked, converted into types, checked for range, or refused with the path of what is
wrong.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Optional, TypeVar

import msgspec

from feedback.refusals import RefusalError

PROTOCOL = 1
REPORT_BYTES_MAX = 16 * 1024
NAMES_MAX = 32_768  # of agents and their boots, remembered for sound

SESSION_PATTERN = r"^[!-~]+\Z"

Seconds = Annotated[float, msgspec.Meta(ge=0, lt=1e12)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Ratio = Annotated[float, msgspec.Meta(ge=0, le=1)]
Place = Annotated[str, msgspec.Meta(min_length=2, max_length=45, pattern=r"^[0-9A-Fa-f:.]+\Z")]  # no scope: it is text
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")]
Boot = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[ -~]+\Z")]
Places = Annotated[tuple[Place, ...], msgspec.Meta(min_length=1, max_length=64)]
# A pattern costs a decoder more than all the rest of a report: these are looked at once (`named`).
Short = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Cpu(msgspec.Struct, frozen=True, gc=False):
    """CPU of what the agent watches: the host, or the cgroup that holds the real server.

    `cores` is what may be used: the host's, or the least of quota and cpuset. `busy_seconds` is cumulative time used of
    that (on a host with steal counted as busy: it is not available either). `own_seconds` is the part that the
    service's own cgroup used, where known, and `entitled` the fraction of `cores` that it gets even while its busy
    siblings want all they can have (their cpu.weight against its own, level by level). `resolution_seconds` is the
    grain of the counters (a tick where the kernel accounts by ticks), which bounds what a short window can tell.
    """

    cores: Annotated[float, msgspec.Meta(gt=0, le=65536)]
    busy_seconds: Seconds
    resolution_seconds: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.0
    own_seconds: Optional[Seconds] = None
    entitled: Optional[Ratio] = None
    steal_seconds: Optional[Seconds] = None
    throttled_seconds: Optional[Seconds] = None
    runnable: Optional[Annotated[float, msgspec.Meta(ge=0, le=1e6)]] = None


class Memory(msgspec.Struct, frozen=True, gc=False):
    """Bytes: `total` is the host's or the cgroup's limit, `available` what can still be had without swapping."""

    total: Count
    available: Count
    swap_in_pages: Optional[Count] = None
    oom_kills: Optional[Count] = None


class Pressure(msgspec.Struct, frozen=True, gc=False):
    """PSI `total` counters in seconds, cumulative. None of this exists on kernels without PSI."""

    cpu_some: Seconds
    memory_some: Seconds
    memory_full: Seconds
    io_some: Seconds
    io_full: Seconds


class Connections(msgspec.Struct, frozen=True, gc=False):
    """TCP of the agent's network namespace (/proc/net/snmp, /proc/net/netstat): `opened` is PassiveOpens, cumulative;
    `established` is CurrEstab, a level; `overflows` is ListenOverflows and `resets` OutRsts, both cumulative."""

    opened: Count
    established: Count
    overflows: Count = 0
    resets: Count = 0


class Listener(msgspec.Struct, frozen=True, gc=False):
    """One listening TCP port: connections waiting for accept(), the queue's limit (0: the kernel does not tell), and
    connections established (absent: counting them would cost a walk over every connection of the host)."""

    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    backlog: Count
    backlog_limit: Count
    established: Optional[Count] = None


class Application(msgspec.Struct, frozen=True, gc=False):
    """What an application says of itself by datagram. `port` tells for which service (0: all); `completions` are all
    answers since it started, `errors` those among them that were failures of its own."""

    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    utilisation: Optional[Ratio] = None
    in_flight: Optional[Count] = None
    latency_seconds: Optional[Seconds] = None
    completions: Optional[Count] = None  # cumulative
    errors: Optional[Count] = None  # cumulative
    drain: bool = False


class Report(msgspec.Struct, frozen=True, gc=False):
    """One sample of one real server. `addresses` are the RIPs it speaks for; `boot` changes whenever the counters
    start anew (reboot or restart of the agent); `sequence` counts reports since then; `sampled_at` is the agent's
    monotonic time of the sample, in seconds; `interval_seconds` is when to expect the next one. Names are those of
    `Names`: a decoder of this type alone does not see to that, `named` does."""

    version: int
    agent: Short
    boot: Short
    sequence: Count
    sampled_at: Seconds
    interval_seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)]
    addresses: Annotated[tuple[Short, ...], msgspec.Meta(min_length=1, max_length=64)]
    cpu: Cpu
    memory: Memory
    pressure: Optional[Pressure] = None
    connections: Optional[Connections] = None
    listeners: Annotated[tuple[Listener, ...], msgspec.Meta(max_length=64)] = ()
    applications: Annotated[tuple[Application, ...], msgspec.Meta(max_length=64)] = ()


class Names(msgspec.Struct, frozen=True):
    """What a report says in words."""

    agent: Name
    boot: Boot
    addresses: Places


@lru_cache(NAMES_MAX)
def _sound(agent: str, boot: str, addresses: tuple[str, ...]) -> str:
    """What is wrong with them, or ''."""
    try:
        msgspec.convert({"agent": agent, "boot": boot, "addresses": addresses}, Names)
    except msgspec.ValidationError as error:
        return str(error)
    return ""


def named(report: Report) -> str:
    """What is wrong with its names, or ''."""
    return _sound(report.agent, report.boot, report.addresses)


class Session(msgspec.Struct, frozen=True, array_like=True):
    """What another server needs in order to go on with one session of an application: its last word, whose meaning is
    the application's alone. `port` is the service's on this server, `age_seconds` how long ago the application said
    it."""

    port: Annotated[int, msgspec.Meta(ge=0, le=65535)]
    session: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=SESSION_PATTERN)]
    value: Annotated[str, msgspec.Meta(max_length=256)]
    age_seconds: Seconds = 0.0


class Sessions(msgspec.Struct, frozen=True, array_like=True):
    """Words on sessions: of `agent` to the masters, and from a master to the agent of whom stands in for `agent`. With
    none it says that its sender is there and wants to hear. An array, where every other message is a map."""

    version: int
    agent: Name
    sessions: Annotated[tuple[Session, ...], msgspec.Meta(max_length=1024)] = ()


class Reply(msgspec.Struct, frozen=True):
    """The master's word to an agent: after its first report, and when it refuses one."""

    version: int
    accepted: bool
    reason: str = ""


class Join(msgspec.Struct, frozen=True):
    """What the one-time key of a token may say, and nothing else: enroll this public key in my place."""

    version: int
    public_key: Annotated[str, msgspec.Meta(min_length=40, max_length=40)]


class Joined(msgspec.Struct, frozen=True):
    """The master's answer: who that key is now, and for which RIPs it may speak; or why not. Root writes the name and
    the RIPs into a file (ops/joining.py): they are nothing but that. `settings` are those of the agent's role: TOML,
    which is read as strictly as any configuration before something is made of it (ops/roles.py)."""

    version: int
    accepted: bool
    reason: str = ""
    agent: Annotated[str, msgspec.Meta(max_length=64, pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?\Z")] = ""
    addresses: Annotated[tuple[Place, ...], msgspec.Meta(max_length=64)] = ()
    role: Annotated[str, msgspec.Meta(max_length=64, pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?\Z")] = ""
    settings: Annotated[str, msgspec.Meta(max_length=8192)] = ""


class WireError(RefusalError):
    """A message that does not fit. `kind` is the counter it goes into: oversized, malformed or version."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


_ENCODER = msgspec.msgpack.Encoder()


def encode(message: Report | Sessions | Reply | Join | Joined) -> bytes:
    return _ENCODER.encode(message)


T = TypeVar("T", Report, Sessions, Reply, Join, Joined)
R = TypeVar("R", Reply, Joined)


# From the bytes straight to the type: no message is made twice.
_DECODERS: dict[type, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in (Report, Sessions, Reply, Join, Joined)
}


class _Versioned(msgspec.Struct):
    version: int


class _VersionedArray(msgspec.Struct, array_like=True):
    version: int


_VERSION = msgspec.msgpack.Decoder(_Versioned)
_VERSION_ARRAY = msgspec.msgpack.Decoder(_VersionedArray)


def _decode(data: bytes, kind: type[T]) -> T:
    if len(data) > REPORT_BYTES_MAX:
        raise WireError("oversized", f"{len(data)} bytes, at most {REPORT_BYTES_MAX} are taken")
    try:
        found: T = _DECODERS[kind].decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise _refused(data, error) from None
    if found.version != PROTOCOL:
        raise _of_version(found.version)
    return found


def _with_reason(found: R) -> R:
    if not found.reason.isprintable():
        raise WireError("malformed", f"a reason that cannot be printed: {found.reason}")
    return found


def _refused(data: bytes, error: Exception) -> WireError:
    """Why it does not fit: another protocol's message does not for that reason."""
    try:
        version = (_VERSION_ARRAY if of_sessions(data) else _VERSION).decode(data).version
    except msgspec.ValidationError:
        return WireError("malformed", "nothing with a version")
    except (msgspec.MsgspecError, ValueError, RecursionError) as broken:
        return WireError("malformed", f"not MessagePack: {broken}")
    return WireError("malformed", str(error)) if version == PROTOCOL else _of_version(version)


def _of_version(version: int) -> WireError:
    return WireError("version", f"speaks protocol {version}, this side {PROTOCOL}: upgrade the older one")


def decode_report(data: bytes, before: Report | None = None) -> Report:
    """`before` is one of the same sender that was decoded here: names that are the same are not looked at again. Raises
    WireError."""
    found = _decode(data, Report)
    if before is not None and (
        found.boot == before.boot and found.addresses == before.addresses and found.agent == before.agent
    ):
        return found
    wrong = _sound(found.agent, found.boot, found.addresses)
    if wrong:
        raise WireError("malformed", wrong)
    return found


def of_sessions(data: bytes) -> bool:
    """Whether a message is of sessions: the only one that begins as an array."""
    return bool(data) and (0x90 <= data[0] <= 0x9F or 0xDC <= data[0] <= 0xDD)


def decode_sessions(data: bytes) -> Sessions:
    """Raises WireError."""
    return _decode(data, Sessions)


def decode_reply(data: bytes) -> Reply:
    """Raises WireError."""
    return _with_reason(_decode(data, Reply))


def decode_join(data: bytes) -> Join:
    """Raises WireError."""
    return _decode(data, Join)


def decode_joined(data: bytes) -> Joined:
    """Raises WireError."""
    return _with_reason(_decode(data, Joined))
