"""A connection's helper and its changes to sequence numbers: from the kernel's attributes to bytes, and back. Pure.

FTP's PORT and 227 carry an address as text. When a longer or shorter address replaces it, every later byte of that
direction has different sequence numbers at the two ends, and the tracking entry holds the difference. Without it, an
entry breaks the connection at its next packet. Without its helper, an entry lets no further data connection through a
firewall. Invariant: `decode` returns adjustments whose fields are all valid, or raises AdjustmentError.
Source: net/netfilter/nf_conntrack_seqadj.c; CTA_SEQ_ADJ_* in include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, TypeAlias

import msgspec

from feedback.refusals import RefusalError

ADJUSTMENTS_MAX = 20_000  # connections with an adjustment, at some 80 bytes each: so they fit into one message

Word = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
Port = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
Packed = Annotated[bytes, msgspec.Meta(min_length=4, max_length=16)]
Helper = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{0,15}\Z")]  # NF_CT_HELPER_NAME_LEN
Key: TypeAlias = bytes  # protocol, ports of client and service, their addresses, as in a sync record


class AdjustmentError(RefusalError):
    """The bytes are no adjustments. The text says why."""


class Shift(msgspec.Struct, frozen=True, array_like=True):
    """One direction: bytes before the sequence number `position` are shifted by `before`, later ones by `after`.
    Offsets are signed 32-bit numbers, modulo 2**32, as the kernel gives them."""

    position: Word
    before: Word
    after: Word


class Adjustment(msgspec.Struct, frozen=True, array_like=True):
    """One connection: the shifts of what the client sends and of what it receives, and the helper that a rule
    assigned."""

    protocol: Annotated[int, msgspec.Meta(ge=0, le=255)]
    client: Packed
    client_port: Port
    virtual: Packed
    virtual_port: Port
    sent: Shift | None
    received: Shift | None
    helper: Helper = ""

    @property
    def key(self) -> Key:
        ports = self.client_port.to_bytes(2, "big") + self.virtual_port.to_bytes(2, "big")
        return bytes((self.protocol,)) + ports + self.client + self.virtual


_decoder = msgspec.msgpack.Decoder(Annotated[list[Adjustment], msgspec.Meta(max_length=ADJUSTMENTS_MAX)])
_encoder = msgspec.msgpack.Encoder()


def encode(adjustments: Iterable[Adjustment]) -> bytes:
    """Sorted, so that equal sets give equal bytes. At most the first ADJUSTMENTS_MAX are included."""
    return _encoder.encode(sorted(adjustments, key=lambda each: each.key)[:ADJUSTMENTS_MAX])


def decode(data: bytes) -> Mapping[Key, Adjustment]:
    """Raises AdjustmentError."""
    try:
        found = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise AdjustmentError(f"adjustments of sequence numbers: {error}") from None
    for each in found:
        if len(each.client) != len(each.virtual) or len(each.client) not in (4, 16):
            raise AdjustmentError(f"addresses of {len(each.client)} and {len(each.virtual)} bytes")
    return {each.key: each for each in found}
