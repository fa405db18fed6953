"""A service as it is read from somebody else's file, before it is ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import IPv4Address, ip_address
from typing import Any

import msgspec

from feedback.config import ConfigError, ServiceConfig
from feedback.model import Family, Protocol, ServiceKey

BLIND = ("rr", "lc", "dh")
STATUS_MAX = 32  # so many a check takes


class ImportFormatError(ValueError):
    """The text as a whole is not of this format: where, and what was wrong."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that was not carried over, or not as it was. `line` is 0 where it concerns the whole."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


@dataclass(frozen=True, slots=True)
class Imported:
    services: tuple[Draft, ...]
    remarks: tuple[Remark, ...]


@dataclass(slots=True)
class Draft:
    """A virtual service in the words of master.toml; `plain` leaves out what is our default."""

    key: ServiceKey
    line: int = 0
    scheduler: str = ""
    forward: str = "route"
    persistence_seconds: int = 0
    persistence_prefix: int | None = None
    flags: list[str] = field(default_factory=list)
    check: dict[str, Any] = field(default_factory=dict)
    destinations: list[dict[str, Any]] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        found: dict[str, Any] = {"virtual": str(self.key), "scheduler": self.scheduler, "forward": self.forward}
        if self.persistence_seconds:
            found["persistence_seconds"] = self.persistence_seconds
        if self.persistence_prefix is not None:
            found["persistence_prefix"] = self.persistence_prefix
        if self.flags:
            found["flags"] = sorted(set(self.flags))
        if self.check:
            found["check"] = self.check
        found["destination"] = [self._destination(d) for d in self.destinations]
        return found

    def _destination(self, d: dict[str, Any]) -> dict[str, Any]:
        same = {"port": self.key.port, "forward": self.forward}
        return {k: v for k, v in d.items() if v != same.get(k, 0) or k == "weight"}

    def remarks(self) -> list[Remark]:
        """What there is to say of it in any case."""
        found = []
        if self.scheduler in BLIND:
            text = (
                f"{self.key}: scheduler {self.scheduler} looks only whether a weight is zero: load would have no effect"
            )
            found.append(Remark(self.line, f"{text}; sed or wrr follows it"))
        if not self.destinations:
            found.append(Remark(self.line, f"{self.key}: has no destination"))
        return found


def kept(drafts: list[Draft], remarks: list[Remark]) -> Imported:
    """Those that our configuration takes; of the others, why it does not."""
    good: dict[ServiceKey, Draft] = {}
    for draft in drafts:
        why = _refused(draft)
        if draft.key in good:
            why = "is there twice"
        if why:
            remarks.append(Remark(draft.line, f"{draft.key}: left out: {why}"))
            continue
        good[draft.key] = draft
        remarks += draft.remarks()
    return Imported(tuple(good.values()), tuple(sorted(remarks, key=lambda r: r.line)))


def _refused(draft: Draft) -> str:
    from feedback.config import MasterConfig

    try:
        service = msgspec.convert(draft.plain(), ServiceConfig)
        MasterConfig(service=(service,)).check("")
    except (ConfigError, msgspec.ValidationError) as error:
        return str(error).removeprefix(": ").replace("service[0].", "")
    return ""


def at(protocol: str, address: str, port: int, line: int) -> ServiceKey:
    """Raises ImportFormatError."""
    try:
        return ServiceKey.at(Protocol(protocol), address, port)
    except ValueError as error:
        raise ImportFormatError(f"line {line}: {error}") from None


def marked(mark: str, six: bool, line: int) -> ServiceKey:
    """Raises ImportFormatError."""
    try:
        return ServiceKey.marked(int(mark), Family.IPV6 if six else Family.IPV4)
    except ValueError as error:
        raise ImportFormatError(f"line {line}: {error}") from None


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def prefix(mask: str) -> int | None:
    """A dotted mask or a prefix length as a prefix length; None where it is none."""
    if mask.isdecimal():
        return int(mask) if int(mask) <= 128 else None
    try:
        bits = format(int(IPv4Address(mask)), "032b")
    except ValueError:
        return None
    return None if "01" in bits else bits.count("1")


def statuses(ranges: list[tuple[int, int]]) -> list[int]:
    """The registered HTTP statuses in ranges, as many as a check takes."""
    found = [int(s) for s in HTTPStatus if any(low <= s <= high for low, high in ranges)]
    return sorted(set(found) | {low for low, high in ranges if low == high})[:STATUS_MAX]
