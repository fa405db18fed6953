"""A service as read from another tool's file, before it becomes ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from ipaddress import IPv4Address, ip_address
from typing import Any

import msgspec

from feedback.config import ConfigError, MasterConfig, ServiceConfig
from feedback.master.traits import TRAITS
from feedback.model import Family, Protocol, ServiceKey
from feedback.refusals import RefusalError, printable

BLIND = ("rr", "lc", "dh")
SCHEDULERS = frozenset(TRAITS)  # the kernel's
DESTINATIONS_MAX = 100_000  # of all services, with groups and ranges unfolded
STATUS_MAX = 32  # so many a check takes
CHECK_INTERVAL, CHECK_TIMEOUT = (0.2, 3600.0), (0.05, 60.0)  # seconds that a check takes


class ImportFormatError(RefusalError):
    """The text as a whole is not of this format: where, and what was wrong."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that was not carried over, or not as it was. `line` is 0 where it concerns the whole; `file` is ""
    for the file itself, and a name for one that it includes. A `note` is no loss: our table is what its owner makes."""

    line: int
    text: str
    file: str = ""
    note: bool = False

    def __str__(self) -> str:
        file = f"{self.file}: " if self.file else ""
        return printable(f"{file}line {self.line}: {self.text}" if self.line else self.text)


@dataclass(frozen=True, slots=True)
class Imported:
    services: tuple[Draft, ...]
    remarks: tuple[Remark, ...]

    @property
    def lossless(self) -> bool:
        return all(remark.note for remark in self.remarks)


@dataclass(slots=True)
class Draft:
    """A virtual service in the words of master.toml; `plain` leaves out what is our default."""

    key: ServiceKey
    line: int = 0
    scheduler: str = ""
    forward: str = "route"
    persistence_seconds: int = 0
    persistence_prefix: int | None = None
    pe: str | None = None
    flags: list[str] = field(default_factory=list)
    check: dict[str, Any] = field(default_factory=dict)
    on_failure: str = ""  # a destination may have its own
    destinations: list[dict[str, Any]] = field(default_factory=list)
    file: str = ""

    def remark(self, text: str, *, note: bool = False) -> Remark:
        return Remark(self.line, f"{self.key}: {text}", self.file, note)

    def plain(self) -> dict[str, Any]:
        found: dict[str, Any] = {"virtual": str(self.key), "scheduler": self.scheduler, "forward": self.forward}
        if self.persistence_seconds:
            found["persistence_seconds"] = self.persistence_seconds
        if self.persistence_prefix is not None:
            found["persistence_prefix"] = self.persistence_prefix
        if self.pe is not None:
            found["pe"] = self.pe
        if self.flags:
            found["flags"] = sorted(set(self.flags))
        if self.on_failure and self.check:
            found["on_failure"] = self.on_failure
        if self.check:
            found["check"] = self.check
        found["destination"] = [self._destination(d) for d in self.destinations]
        return found

    def _destination(self, d: dict[str, Any]) -> dict[str, Any]:
        same = {"port": self.key.port, "forward": self.forward, "on_failure": self.on_failure}
        found = {k: v for k, v in d.items() if v != same.get(k, 0) or k == "weight"}
        if not self.check:
            found.pop("on_failure", None)
        return found

    def remarks(self) -> list[Remark]:
        """What there is to say of it in any case."""
        found = []
        if self.scheduler in BLIND:
            text = f"scheduler {self.scheduler} only checks whether a weight is zero: load would have no effect"
            found.append(self.remark(f"{text}; sed or wrr follows it", note=True))
        if not self.destinations:
            found.append(self.remark("has no destination"))
        return found


def way_out(*, removed: bool) -> str:
    """`on_failure` for what leaves its owner's table when a check fails, or stays there with weight 0."""
    return "remove" if removed else "quiesce"


def kept(drafts: list[Draft], remarks: list[Remark]) -> Imported:
    """Those that our configuration takes. Of the others the part is left out that it does not take, and that is said:
    one wrong destination does not cost the service, one wrong service not the file."""
    good: dict[ServiceKey, Draft] = {}
    for draft in drafts:
        if draft.key in good:
            remarks.append(draft.remark("left out: is listed twice"))
        elif _mended(draft, remarks):
            good[draft.key] = draft
            remarks += draft.remarks()
    in_order = sorted(dict.fromkeys(remarks), key=lambda r: (r.file, r.line))
    return Imported(tuple(good.values()), tuple(in_order))


def _mended(draft: Draft, remarks: list[Remark]) -> bool:
    """Whether our configuration takes it, less what it does not take."""
    if not _refused(draft):
        return True
    whole = replace(draft, destinations=[], check={})
    if draft.pe is not None and (why := _refused(whole)) and not _refused(replace(whole, pe=None)):
        draft.pe = whole.pe = None
        remarks.append(draft.remark(f"its persistence engine is left out: {why}"))
    if draft.check and (why := _refused(replace(whole, check=draft.check))) and not _refused(whole):
        draft.check = {}
        remarks.append(draft.remark(f"its check is left out: {why}"))
    if not _refused(whole):
        draft.destinations = list(_taken(draft, whole, remarks))
    if why := _refused(draft):
        remarks.append(draft.remark(f"left out: {why}"))
    return not why


def _taken(draft: Draft, whole: Draft, remarks: list[Remark]) -> Iterator[dict[str, Any]]:
    """The destinations that our configuration takes in `whole`, each of them once."""
    seen = set()
    for destination in draft.destinations:
        key = destination["address"], destination["port"]
        if key in seen:
            remarks.append(draft.remark(f"{destination['address']}: left out: is listed twice"))
            continue
        seen.add(key)
        why = _refused(replace(whole, destinations=[destination]))
        unlimited = destination | {"upper": 0, "lower": 0}
        if why and not _refused(replace(whole, destinations=[unlimited])):
            remarks.append(draft.remark(f"{destination['address']}: its thresholds are left out: {why}"))
            destination, why = unlimited, ""
        if why:
            remarks.append(draft.remark(f"{destination['address']}: left out: {why}"))
        else:
            yield destination


def _refused(draft: Draft) -> str:
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


def mask_prefix(mask: str, family: Family) -> int | None:
    """A dotted mask, or for IPv6 a prefix length, as a prefix length; None where it is none."""
    if family is Family.IPV6:
        return int(mask) if mask.isascii() and mask.isdecimal() and 1 <= int(mask[:4]) <= 128 else None
    try:
        bits = format(int(IPv4Address(mask)), "032b")
    except ValueError:
        return None
    return None if "01" in bits else bits.count("1")


def statuses(ranges: list[tuple[int, int]], most: int = STATUS_MAX) -> list[int]:
    """The registered HTTP statuses in ranges, as many as a check takes."""
    found = [int(s) for s in HTTPStatus if any(low <= s <= high for low, high in ranges)]
    return sorted(set(found) | {low for low, high in ranges if low == high})[:most]
