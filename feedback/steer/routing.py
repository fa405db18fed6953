"""Policy rules and routes by rtnetlink. Shell, with pyroute2.

Owns the form of our rules and routes in the kernel. Ours carry a protocol number, which the kernel keeps with each. An
equal one without it belongs to somebody else and works just as well. The kernel filters dumps: a director that speaks
BGP may have a million routes. Sources: net/core/fib_rules.c, net/ipv4/fib_frontend.c.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable
from typing import Any

import msgspec
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from feedback.config.strict import Network
from feedback.model import Family
from feedback.steer.errors import SteerError
from feedback.steer.plan import PROTOCOL, Lookup

NUMBERS = {Family.IPV4: 2, Family.IPV6: 10}  # AF_INET, AF_INET6
WHOLE = 0xFFFF_FFFF
# A table that never had anything; a family that this kernel does not have.
NOTHING = (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
LOOPBACK = 1  # lo is the first interface of every namespace
LOCAL, BLACKHOLE = 2, 6  # RTN_LOCAL, RTN_BLACKHOLE
TO_TABLE = 1  # FR_ACT_TO_TBL
HOST = 254  # RT_SCOPE_HOST


class Place(msgspec.Struct, frozen=True):
    """Where our policy rules stand, and the table to which they lead."""

    table: int
    priority: int


class PolicyRule(msgspec.Struct, frozen=True):
    """A policy rule as the kernel has it. `plain`: only the mark chooses packets."""

    family: Family
    priority: int
    mark: int
    mask: int
    table: int
    protocol: int
    plain: bool


class Route(msgspec.Struct, frozen=True):
    """A route as the kernel has it."""

    network: Network
    table: int
    protocol: int
    kind: int


class Routing:
    """One rtnetlink socket in the namespace of the thread that opens it, for that thread alone: in another thread
    pyroute2 would open a second socket, in that thread's namespace. Use as a context manager. Raises SteerError."""

    def __init__(self) -> None:
        self._netlink = IPRoute(strict_check=True)

    def __enter__(self) -> Routing:
        return self

    def __exit__(self, *_: object) -> None:
        self._netlink.close()

    # --- marks -------------------------------------------------------------------------------------------------------

    def policy(self) -> list[PolicyRule]:
        """Every policy rule of the namespace."""
        return [_policy(family, told) for family in NUMBERS for told in self._ask("get_rules", family=NUMBERS[family])]

    def add_lookup(self, lookup: Lookup, place: Place) -> None:
        self._do("rule", "add", **_lookup(lookup, place))

    def remove_lookup(self, lookup: Lookup, place: Place) -> None:
        self._do("rule", "del", **_lookup(lookup, place))

    def defaults(self, table: int) -> list[Route]:
        """Routes of a table that make every address local, whoever made them."""
        found = self.routes(table=table, type=LOCAL)
        return [route for route in found if route.network.prefixlen == 0]

    def add_default(self, family: Family, table: int) -> None:
        self._do("route", "add", **_default(family, table))

    def remove_default(self, family: Family, table: int) -> None:
        self._do("route", "del", **_default(family, table))

    # --- announced ranges --------------------------------------------------------------------------------------------

    def add_blackhole(self, network: Network, table: int, protocol: int) -> None:
        self._do("route", "add", **_blackhole(network, table, protocol))

    def remove_blackhole(self, network: Network, table: int, protocol: int) -> None:
        self._do("route", "del", **_blackhole(network, table, protocol))

    # --- what is there -----------------------------------------------------------------------------------------------

    def routes(self, **chosen: int) -> list[Route]:
        """The routes of a table, a type and a protocol number; the kernel filters them."""
        found = []
        for family, number in NUMBERS.items():
            for told in self._ask("get_routes", family=number, **chosen):
                if told["family"] != number:  # a kernel without IPv6 returns those of the other family
                    continue
                route = _route(family, told)
                has = {"table": route.table, "type": route.kind, "proto": route.protocol}
                if all(has[key] == value for key, value in chosen.items()):  # older kernels filter less
                    found.append(route)
        return found

    def _ask(self, what: str, **words: int) -> list[Any]:
        try:
            return list(getattr(self._netlink, what)(**words))
        except NetlinkError as error:
            if error.code in NOTHING:
                return []
            raise SteerError(f"the kernel's rules and routes cannot be read: {_words(error)}") from None
        except OSError as error:
            raise SteerError(f"the kernel's rules and routes cannot be read: {_words(error)}") from None

    def _do(self, what: str, command: str, **words: Any) -> None:
        """Make one edit. A thing that already exists, or is already gone, counts as done."""
        call: Callable[..., object] = getattr(self._netlink, what)
        done = {"add": {errno.EEXIST}, "del": {errno.ENOENT, errno.ESRCH}}[command]
        try:
            call(command, **words)
        except (NetlinkError, OSError) as error:
            code = error.code if isinstance(error, NetlinkError) else error.errno
            if code not in done:
                raise SteerError(f"{what} {command} in table {words['table']} is refused: {_words(error)}") from None


def _words(error: NetlinkError | OSError) -> str:
    if isinstance(error, NetlinkError):
        text = error.args[1] if len(error.args) > 1 else error.code
        return f"{text}: CAP_NET_ADMIN is needed" if error.code == errno.EPERM else str(text)
    return error.strerror or str(error)


def _lookup(lookup: Lookup, place: Place) -> dict[str, Any]:
    return {
        "family": NUMBERS[lookup.family],
        "fwmark": lookup.mark,
        "fwmask": WHOLE,
        "table": place.table,
        "priority": place.priority,
        "protocol": PROTOCOL,
    }


def _default(family: Family, table: int) -> dict[str, Any]:
    every = "0.0.0.0/0" if family is Family.IPV4 else "::/0"
    return {
        "family": NUMBERS[family],
        "dst": every,
        "type": LOCAL,
        "scope": HOST if family is Family.IPV4 else 0,
        "oif": LOOPBACK,
        "table": table,
        "proto": PROTOCOL,
    }


def _blackhole(network: Network, table: int, protocol: int) -> dict[str, Any]:
    family = Family.of(network.network_address)
    return {"family": NUMBERS[family], "dst": str(network), "type": BLACKHOLE, "table": table, "proto": protocol}


def _policy(family: Family, told: Any) -> PolicyRule:
    attributes = dict(told["attrs"])
    chosen = ("FRA_SRC", "FRA_DST", "FRA_IIFNAME", "FRA_OIFNAME", "FRA_IP_PROTO", "FRA_SPORT_RANGE", "FRA_DPORT_RANGE")
    plain = not any(name in attributes for name in (*chosen, "FRA_UID_RANGE", "FRA_TUN_ID")) and not told["tos"]
    mark = attributes.get("FRA_FWMARK", 0)
    return PolicyRule(
        family,
        attributes.get("FRA_PRIORITY", 0),
        mark,
        attributes.get("FRA_FWMASK", WHOLE if mark else 0),
        attributes.get("FRA_TABLE", told["table"]) if told["action"] == TO_TABLE else 0,
        attributes.get("FRA_PROTOCOL", 0),
        plain and not told["flags"] & 0x2,  # FIB_RULE_INVERT
    )


def _route(family: Family, told: Any) -> Route:
    attributes = dict(told["attrs"])
    every = "0.0.0.0" if family is Family.IPV4 else "::"
    network = ipaddress.ip_network(f"{attributes.get('RTA_DST', every)}/{told['dst_len']}", strict=False)
    return Route(network, attributes.get("RTA_TABLE", told["table"]), told["proto"], told["type"])
