"""The doctor's types: facts and findings. No judgement here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from ipaddress import IPv4Interface
from typing import TYPE_CHECKING, Any

import msgspec

from feedback.doctor.rulesets import Rule
from feedback.ipvs.sysctl import Value
from feedback.ipvs.table import TableSize
from feedback.ipvs.types import Timeouts
from feedback.model import Address, Snapshot

if TYPE_CHECKING:  # rtnetlink's library is for who collects
    from feedback.config import Match
    from feedback.steer.firewall import ForeignMark
    from feedback.steer.routing import PolicyRule, Route


class Level(StrEnum):
    ERROR = "error"  # it costs clients something, or will at the next fault
    WARNING = "warning"  # it works, and something will surprise you
    ADVICE = "advice"  # it could be better


class Finding(msgspec.Struct, frozen=True):
    """`mend` is a command, or a line of configuration and the command that makes it count."""

    level: Level
    area: str
    what: str
    mend: str


class Configuration(msgspec.Struct, frozen=True):
    """One file that is there, as its daemon's own check judges it."""

    path: str
    good: bool
    text: str


class Interface(msgspec.Struct, frozen=True):
    """`ignore` and `announce` are arp_ignore and arp_announce as they count for it: the larger of `all` and its own."""

    name: str
    addresses: tuple[IPv4Interface, ...]
    ignore: int
    announce: int


class Steered(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service has a match. `problem`: why it could not be looked at. `lacking` is what is missing of ours, in
    words. `policy` are the rules of others, `strangers` their routes in our `table`, `local` all routes of type local
    in other tables. `moving` are the addresses that go with the active role, where the director is `paired`.
    `valid_marks` and `proxies` name interfaces, or `all`, where src_valid_mark and proxy_arp are on."""

    marks: Mapping[int, Sequence[Match]]
    table: int
    priority: int
    problem: str = ""
    lacking: tuple[str, ...] = ()
    foreign_marks: tuple[ForeignMark, ...] = ()
    policy: tuple[PolicyRule, ...] = ()
    strangers: tuple[Route, ...] = ()
    local: tuple[Route, ...] = ()
    moving: frozenset[Address] = frozenset()
    paired: bool = False
    valid_marks: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """`snapshot` is None where the kernel cannot be asked, and `ipvs_problem` says why. `status` is the master's, None
    where it does not answer or decides nothing; `sync` is the sync daemon's own findings. `owned` are the services that
    master.toml makes; `enrolled` the RIPs that agents may speak for. `vs` are the settings under net.ipv4.vs, `host`
    others by their full name. `clock_synchronised` is None where it cannot be told. `rules` are the firewall's, as far
    as they can be read, `modules` those that are loaded; `tracking` is the sync daemon's word on the connection
    tracking, None where none answers, and `ledger` how many connections it holds."""

    configurations: tuple[Configuration, ...] = ()
    directs: bool = True  # this machine is a director, or is to become one
    ipvs_problem: str = ""
    snapshot: Snapshot | None = None
    timeouts: Timeouts = Timeouts()
    vs: Mapping[str, Value] = {}
    table: TableSize = TableSize()
    host: Mapping[str, Value] = {}
    unreadable: tuple[str, ...] = ()  # secrets that do not belong to the daemons' user
    owned: frozenset[str] = frozenset()
    removes: bool = False  # master.toml has a server removed that fails
    adopts: bool = False  # somebody else owns the services
    enrolled: frozenset[str] = frozenset()
    status: dict[str, Any] | None = None
    master_problem: str = ""
    sync: tuple[Finding, ...] = ()
    sync_problem: str = ""
    clock_synchronised: bool | None = None
    interfaces: tuple[Interface, ...] = ()
    rules: tuple[Rule, ...] = ()
    modules: frozenset[str] = frozenset()
    tracking: dict[str, Any] | None = None
    ledger: int = 0
    conntrackd: bool = False
    steered: Steered | None = None
    now: float = 0.0
