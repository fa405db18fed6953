"""The plan of clients with open connections, as data, and the outcome of each of their streams.

Pure. A record is 16 bytes: kind, stream, number. The kind and the number of earlier bytes determine the next byte, so
every byte that comes back is checked. A stream is one connection or one UDP flow.

Kinds of streams:
    talk      a numbered record again and again, which the server echoes
    idle      one record at the beginning, and one when it is woken
    mute      connected, and nothing said until it is woken
    download  the server sends a known pseudo-random stream, in portions, and closes
    udp       numbered datagrams, each answered with the server's name
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

FILE = "client.streams"
RECORD = struct.Struct(">4sIQ")
ECHO, DOWNLOAD, WHO = b"echo", b"down", b"who?"
BLOCK_BYTES = 65521  # a prime, so that a shift by whole records, segments or portions is noticed
PORTION_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Target:
    """One way to the real servers. `sources` are the client's addresses for it, used in turn."""

    name: str
    address: str
    port: int
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """`connections` in all are spread over the targets in turn. `idle` and `mute` of them are of these kinds; the rest
    talk. `rate` is records a second of all talking streams together, `wake_rate` that of idle ones when woken. Each
    download has `download_rate` bytes a second for `download_seconds`. `udp_rate` datagrams a second go over
    `udp_flows` flows."""

    targets: tuple[Target, ...]
    connections: int
    seed: int
    idle: float = 0.0
    mute: float = 0.0
    rate: float = 600.0
    wake_rate: float = 600.0
    window: int = 200
    downloads: int = 0
    download_rate: int = 50_000
    download_seconds: float = 20.0
    udp: Target | None = None
    udp_flows: int = 0
    udp_rate: float = 50.0
    patience_seconds: float = 8.0

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @staticmethod
    def decode(text: str) -> Plan:
        fields = json.loads(text)
        udp = fields["udp"] and _target(fields["udp"])
        return Plan(**{**fields, "targets": tuple(_target(each) for each in fields["targets"]), "udp": udp})


def _target(fields: dict[str, object]) -> Target:
    return Target(**{**fields, "sources": tuple(fields["sources"])})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Opening:
    """A stream to be opened, in this order."""

    number: int
    kind: str
    target: Target
    source: str


def openings(plan: Plan) -> Iterator[Opening]:
    """All TCP streams of a plan. Kinds are mixed by the seed; targets and sources come in turn."""
    idle, mute = round(plan.connections * plan.idle), round(plan.connections * plan.mute)
    kinds = ["idle"] * idle + ["mute"] * mute + ["talk"] * (plan.connections - idle - mute)
    random.Random(plan.seed).shuffle(kinds)
    for number, kind in enumerate([*kinds, *["download"] * plan.downloads]):
        turn, index = divmod(number, len(plan.targets))
        target = plan.targets[index]
        yield Opening(number, kind, target, target.sources[turn % len(target.sources)])


def record(kind: bytes, stream: int, number: int) -> bytes:
    return RECORD.pack(kind, stream, number)


def expected(stream: int, offset: int, length: int) -> bytes:
    """The bytes of a stream's echo from `offset` on."""
    first, last = offset // RECORD.size, (offset + length - 1) // RECORD.size
    whole = b"".join(RECORD.pack(ECHO, stream, number) for number in range(first, last + 1))
    begin = offset - first * RECORD.size
    return whole[begin : begin + length]


@lru_cache(maxsize=64)
def block(seed: int) -> bytes:
    """The block that a download repeats, twice in a row, so that any portion can be cut out in one piece."""
    return random.Random(f"download-{seed}").randbytes(BLOCK_BYTES) * 2


def portion(seed: int, offset: int, length: int) -> bytes:
    """`length` bytes, at most a block, of the download from `offset` on."""
    begin = offset % BLOCK_BYTES
    return block(seed)[begin : begin + length]


class Stream(NamedTuple):
    """The outcome of one stream. `error` is empty if it survived. `gap_seconds` is the longest time from the sending of
    a record to its echo; for a download, between two portions. `sent` and `received` are bytes (udp: datagrams); no
    record sent before the stream's last moment may be missing. `servers` (udp) is the number of real servers that
    answered."""

    number: int
    kind: str
    target: str
    sent: int
    received: int
    gap_seconds: float
    error: str = ""
    failed_at: float = 0.0
    servers: int = 0

    @property
    def survived(self) -> bool:
        return not self.error


def write(path: Path, streams: list[Stream]) -> None:
    path.write_text("".join(f"{json.dumps(each)}\n" for each in streams), encoding="utf-8")


def read(path: Path) -> list[Stream]:
    if not path.exists():
        return []
    return [Stream(*json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
