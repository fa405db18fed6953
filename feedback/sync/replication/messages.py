"""The messages between the two ends of a replication session, as MessagePack. Pure.

This module owns the messages and their bounds. It knows neither the transport, which orders and encrypts, nor what
follows from a message. Invariant: `decode` returns a message whose fields all have the right type and range, or raises
`MessageError`. A peer of another version can be told from noise, because messages of every version begin alike: with an
array whose first element is the kind. In `hello` and `welcome` the second element is the version.

msgspec's typed decoder decodes and converts in one pass. Two passes, over untyped values, would cost more than all else
that happens to a datagram.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec

from feedback.refusals import RefusalError
from feedback.sync.replication.records import DATAGRAM_BYTES_MAX

PROTOCOL = 1
MESSAGE_BYTES_MAX = 8 * 1024 * 1024  # for services and state of a large director; a datagram bounds its records
SMALL_BYTES_MAX = 4096  # for messages without records, services or state

Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Boot = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[ -~]+\Z")]
Text = Annotated[str, msgspec.Meta(max_length=500)]


class _Message(msgspec.Struct, frozen=True, array_like=True):
    pass


class Hello(_Message, tag="hello", frozen=True, array_like=True):
    """The standby begins a session and asks for everything. `boot` is its daemon's, `session` counts its sessions."""

    version: int
    boot: Boot
    session: Count
    tracks: bool = False  # whether its IPVS uses connection tracking (net.ipv4.vs.conntrack)


class Welcome(_Message, tag="welcome", frozen=True, array_like=True):
    """The active director accepts the session. `boot` is its daemon's."""

    version: int
    boot: Boot
    session: Count


class Refused(_Message, tag="refused", frozen=True, array_like=True):
    """The session is refused or ended, with the reason. `again`: another hello may succeed."""

    session: Count
    reason: Text
    again: bool = True


class Services(_Message, tag="services", frozen=True, array_like=True):
    """The whole table of services as rules text (mirror.py)."""

    session: Count
    data: Annotated[bytes, msgspec.Meta(max_length=MESSAGE_BYTES_MAX)]


class Changes(_Message, tag="changes", frozen=True, array_like=True):
    """What changed in the services since then, as rules text."""

    session: Count
    data: Annotated[bytes, msgspec.Meta(max_length=MESSAGE_BYTES_MAX)]


class State(_Message, tag="state", frozen=True, array_like=True):
    session: Count
    data: Annotated[bytes, msgspec.Meta(max_length=MESSAGE_BYTES_MAX)]


class Tracking(_Message, tag="tracking", frozen=True, array_like=True):
    """Connection tracking on the active director: whether it is used, and how helpers have shifted sequence numbers
    (feedback.sync.conntrack.adjustments)."""

    session: Count
    tracks: bool
    data: Annotated[bytes, msgspec.Meta(max_length=MESSAGE_BYTES_MAX)]


class TableBegin(_Message, tag="begin", frozen=True, array_like=True):
    """The whole connection table follows, mixed with the live stream; its size is given. Numbered like records."""

    session: Count
    sequence: Count
    total: Count


class Records(_Message, tag="records", frozen=True, array_like=True):
    """One sync datagram. Live and bulk datagrams, begin and end share one numbering: 1, 2, ... in each session."""

    session: Count
    sequence: Count
    bulk: bool
    datagram: Annotated[bytes, msgspec.Meta(max_length=DATAGRAM_BYTES_MAX)]


class TableEnd(_Message, tag="end", frozen=True, array_like=True):
    """The table has been sent, with the number of connections that it had in fact. Numbered like records. At most
    `lacking` more found no place in the ledger and are not in it; the last of these expires in `lacking_seconds`."""

    session: Count
    sequence: Count
    total: Count
    lacking: Count = 0
    lacking_seconds: Count = 0


class Alive(_Message, tag="alive", frozen=True, array_like=True):
    """There is nothing new. The last numbered message had this sequence."""

    session: Count
    sequence: Count


class Ack(_Message, tag="ack", frozen=True, array_like=True):
    """From the standby: its kernel has everything up to `sequence`, and how many connections that is in all. `dropped`
    is the number of datagrams that its kernel has lost in this session."""

    session: Count
    sequence: Count
    injected: Count
    dropped: Count


Message: TypeAlias = (
    Hello | Welcome | Refused | Services | Changes | State | Tracking | TableBegin | Records | TableEnd | Alive | Ack
)  # fmt: skip


class MessageError(RefusalError):
    """A message that is refused. `kind` names the counter for it: oversized, malformed or version."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode(data: bytes) -> Message:
    """Raises MessageError."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise MessageError("oversized", f"{len(data)} bytes, at most {MESSAGE_BYTES_MAX} are taken")
    try:
        message: Message = _decoder.decode(data)
    except msgspec.ValidationError as error:
        raise _refusal(data, str(error)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MessageError("malformed", f"not MessagePack: {error}") from None
    if len(data) > SMALL_BYTES_MAX and not isinstance(message, Records | Services | Changes | State | Tracking):
        raise MessageError("oversized", f"a {type(message).__name__} of {len(data)} bytes")
    if isinstance(message, Refused) and not message.reason.isprintable():
        raise MessageError("malformed", f"a reason that cannot be printed: {message.reason}")
    if isinstance(message, Hello | Welcome) and message.version != PROTOCOL:
        raise MessageError("version", _version_text(message.version))
    return message


def _refusal(data: bytes, text: str) -> MessageError:
    """Another version's greeting may have other fields: then the text names the version, not a wrong field."""
    if len(data) <= SMALL_BYTES_MAX:
        try:
            raw: Any = msgspec.msgpack.decode(data)
        except (
            msgspec.DecodeError,
            RecursionError,
            UnicodeDecodeError,
        ):  # behind the wrong type
            return MessageError("malformed", text)
        if isinstance(raw, list) and raw[:1] in (["hello"], ["welcome"]):
            version = raw[1] if len(raw) > 1 else None
            if isinstance(version, int) and version != PROTOCOL:
                return MessageError("version", _version_text(version))
    return MessageError("malformed", text)


def _version_text(version: int) -> str:
    return f"the peer replicates by protocol {version}, this side by {PROTOCOL}: upgrade the older director"
