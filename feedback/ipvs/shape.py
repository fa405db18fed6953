"""Reading many destinations quickly: the kernel writes them all in one layout, so the layout is found once. Pure.

A shape is the position of each attribute. A message has that shape if it has the same length and the same attribute
headers at the same places, which is one comparison under a mask. Then one unpack reads all values. Any other message
goes to the general decoder (decoding.py), which also finds the next shape. Invariant: the result is the general
decoder's, always; tests/ipvs/test_shape.py holds it to that.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeAlias

from feedback.ipvs import numbers as n
from feedback.ipvs.decoding import decode_destination, destination_mark, read_address
from feedback.model import Counters, Destination, DestinationEntry, DestinationKey, Family, Forward, TunnelType

_ADDRESS, _BYTES2, _U8, _U16, _U32, _U64 = "16s", "2s", "B", "H", "I", "Q"
_SIZES = {_ADDRESS: 16, _BYTES2: 2, _U8: 1, _U16: 2, _U32: 4, _U64: 8}

# The attributes in the order in which `DestinationReader.read` takes their values; a counter is (STATS64, its number).
_WANTED: dict[tuple[int, ...], str] = {
    (n.DEST_ADDR,): _ADDRESS,
    (n.DEST_PORT,): _BYTES2,
    (n.DEST_AF,): _U16,
    (n.DEST_WEIGHT,): _U32,
    (n.DEST_FWD,): _U32,
    (n.DEST_UPPER,): _U32,
    (n.DEST_LOWER,): _U32,
    (n.DEST_TUN_TYPE,): _U8,
    (n.DEST_TUN_PORT,): _BYTES2,
    (n.DEST_TUN_FLAGS,): _U16,
    (n.DEST_ACTIVE,): _U32,
    (n.DEST_INACTIVE,): _U32,
    (n.DEST_PERSISTENT,): _U32,
} | {(n.DEST_STATS64, number): _U64 for number in range(1, 11)}

Mark: TypeAlias = tuple[bytes | None, bytes | None, bytes | None]

_MARKS = (n.DEST_ADDR, n.DEST_PORT, n.DEST_AF)
_HEADER = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF
_FORWARDS = tuple(Forward)
_TUNNELS = tuple(TunnelType)


class _Shape:
    """Where everything stands in messages like one sample. Raises KeyError if the sample lacks something."""

    def __init__(self, sample: bytes) -> None:
        places, headers = _walk(sample)
        fields = sorted((places[path][0], code, path) for path, code in _WANTED.items())
        if any(places[path][1] != _SIZES[code] for _, code, path in fields):
            raise KeyError("an attribute of another size")
        layout, at = "=", 0
        for offset, code, _ in fields:
            layout += f"{offset - at}x{code}"
            at = offset + _SIZES[code]
        self._struct = struct.Struct(layout + f"{len(sample) - at}x")
        order = {path: index for index, (_, _, path) in enumerate(fields)}
        self._reorder: Callable[[tuple[Any, ...]], tuple[Any, ...]] = itemgetter(*(order[path] for path in _WANTED))
        self.size = len(sample)
        self.mask = _mask(((offset, 4) for offset in headers), self.size)
        self.headers = int.from_bytes(sample, "little") & self.mask
        self._marks = tuple(slice(at, at + size) for at, size in (places[(kind,)] for kind in _MARKS))

    def fits(self, bits: int, size: int) -> bool:
        return size == self.size and bits & self.mask == self.headers

    def values(self, body: bytes) -> tuple[Any, ...]:
        return self._reorder(self._struct.unpack(body))

    def mark(self, body: bytes) -> Mark:
        address, port, family = self._marks
        return body[address], body[port], body[family]


class DestinationReader:
    """Decodes destinations, and remembers the shape of the last one that was not of the shape before."""

    def __init__(self) -> None:
        self._shape: _Shape | None = None

    def read(self, body: bytes, service: Family) -> DestinationEntry:
        """As `decode_destination`. Raises MalformedMessage."""
        shape = self._shape
        if shape is None or not shape.fits(int.from_bytes(body, "little"), len(body)):
            return self._learn(body, service)
        (address, port, af, weight, forward, upper, lower, kind, tunnel_port, tunnel_flags, active, inactive,
         persistent, *counts) = shape.values(body)  # fmt: skip
        family = n.FAMILY_OF.get(af)
        forward &= 7
        if family is None or forward >= len(_FORWARDS) or kind >= len(_TUNNELS):
            return decode_destination(body, service)
        return DestinationEntry(
            Destination(
                _key(address, port, family),
                weight,
                _FORWARDS[forward],
                upper,
                lower,
                _TUNNELS[kind],
                int.from_bytes(tunnel_port, "big"),
                tunnel_flags,
            ),
            active,
            inactive,
            persistent,
            Counters(*counts),
        )

    def mark(self, body: bytes) -> Mark:
        """As `destination_mark`. Raises MalformedMessage."""
        shape = self._shape
        if shape is None or not shape.fits(int.from_bytes(body, "little"), len(body)):
            return destination_mark(body)
        return shape.mark(body)

    def _learn(self, body: bytes, service: Family) -> DestinationEntry:
        entry = decode_destination(body, service)
        try:
            self._shape = _Shape(body)
        except KeyError:  # an old kernel without 64-bit counters: the general way it is
            self._shape = None
        return entry


@lru_cache(maxsize=65536)
def _key(address: bytes, port: bytes, family: Family) -> DestinationKey:
    """The same key for the same bytes: it has its hash already, and dictionaries find it by identity."""
    return DestinationKey(read_address(address, family), int.from_bytes(port, "big"))


def _walk(sample: bytes) -> tuple[dict[tuple[int, ...], tuple[int, int]], list[int]]:
    """(offset, length) of each payload by its path inside the destination, and the offsets of all headers. The sample
    has been decoded before, so its lengths are sound."""
    places: dict[tuple[int, ...], tuple[int, int]] = {}
    headers: list[int] = []

    def level(start: int, end: int, path: tuple[int, ...]) -> None:
        while end - start >= 4:
            length, kind = _HEADER.unpack_from(sample, start)
            inner = (*path, kind & _TYPE_MASK)
            headers.append(start)
            places[inner] = start + 4, length - 4
            if inner in {(n.CMD_DEST,), (n.CMD_DEST, n.DEST_STATS64)}:
                level(start + 4, start + length, inner)
            start += (length + 3) & ~3

    level(0, len(sample), ())
    return {path[1:]: place for path, place in places.items() if path[0] == n.CMD_DEST}, headers


def _mask(places: Iterable[tuple[int, int]], size: int) -> int:
    mask = bytearray(size)
    for offset, length in places:
        mask[offset : offset + length] = b"\xff" * length
    return int.from_bytes(mask, "little")
