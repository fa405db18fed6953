"""A connection's helper and what it changed in sequence numbers: from the kernel's attributes to bytes, and back. Pure.

FTP's PORT and 227 carry an address as text. Where it is replaced by a longer or shorter one, every later byte of that
direction has another number at each end, and the tracking entry knows by how much. An entry without it breaks the
connection at its next packet. An entry without its helper lets no further data connection through a firewall.
Invariant: `decode` gives adjustments whose every field fits, or raises AdjustmentError.
Source: net/netfilter/nf_conntrack_seqadj.c; CTA_SEQ_ADJ_* in include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, TypeAlias

import msgspec

from feedback.refusals import RefusalError

ADJUSTMENTS_MAX = 20_000  # connections with one: some 80 bytes each, so that they fit into a message

Word = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]
Port = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
Packed = Annotated[bytes, msgspec.Meta(min_length=4, max_length=16)]
Helper = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{0,15}\Z")]  # NF_CT_HELPER_NAME_LEN
Key: TypeAlias = bytes  # protocol, ports of client and service, their addresses: as in a record of the sync protocol


class AdjustmentError(RefusalError):
    """Bytes that are no adjustments: why."""


class Shift(msgspec.Struct, frozen=True, array_like=True):
    """Of one direction: before the sequence number `position` bytes are shifted by `before`, from it on by `after`.
    Offsets are signed numbers of 32 bits, as the kernel gives them: modulo 2**32."""

    position: Word
    before: Word
    after: Word


class Adjustment(msgspec.Struct, frozen=True, array_like=True):
    """Of one connection, both ways: what clients send, and what they are sent; and the helper that a rule gave it."""

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
    """Sorted, so that the same are the same bytes; of more than ADJUSTMENTS_MAX those are left out that are last."""
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
