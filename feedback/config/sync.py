"""sync.toml: a director's place in the pair: peer, links, addresses, and how connections are replicated."""

from __future__ import annotations

from ipaddress import ip_interface
from pathlib import Path
from typing import Annotated

import msgspec

from feedback.config.strict import ConfigError, File, Positive, Strict, check_address, check_network, check_word
from feedback.model import Address, parse_endpoint
from feedback.wire import Name

SYNC_PATH = Path("/etc/feedback/sync.toml")

ENGINES = ("heartbeat", "keepalived")
UNSUITABLE = {  # tables for [[route]]
    253: "is the kernel's default table",
    255: "is the kernel's table of local addresses",
    7433: "is the master's table, where packets with a mark would be dropped",
}
MODES = ("relay", "multicast", "off")
TRACKING = ("auto", "off")


class LinkConfig(Strict, frozen=True):
    """A way between the directors. At `local` this one listens, UDP for heartbeats and TCP for the relay; at `peer`
    the other does."""

    local: str
    peer: str


class AddressConfig(Strict, frozen=True):
    """An address that goes with the active role: a VIP (`10.0.0.100/32`), or with masquerading the gateway of the real
    servers with their network's prefix (`10.1.0.254/24`)."""

    address: str
    interface: Annotated[str, msgspec.Meta(min_length=1, max_length=15)]


class RouteConfig(Strict, frozen=True):
    """A range that goes with the active role: a blackhole route in a table in which no packet is looked up, for a
    routing daemon to announce."""

    to: Annotated[str, msgspec.Meta(max_length=64)]
    table: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)] = 74


class Timing(Strict, frozen=True):
    """The election's times; what each means is said in feedback/sync/election/election.py."""

    interval_seconds: Annotated[float, msgspec.Meta(ge=0.01, le=10)] = 0.03
    missed: Annotated[int, msgspec.Meta(ge=2, le=100)] = 3
    looks: Annotated[int, msgspec.Meta(ge=1, le=100)] = 2
    look_seconds: Annotated[float, msgspec.Meta(ge=0.01, le=10)] = 0.025
    start_seconds: Positive = 3.0


class ReplicationConfig(Strict, frozen=True):
    """`relay`: the kernel's records over the links, encrypted. `multicast`: the kernels among themselves on
    `interface`, unencrypted, open to anybody who can send there. `off`: none."""

    mode: str = "relay"
    interface: Annotated[str, msgspec.Meta(min_length=1, max_length=15)] = "lo"
    mirror: bool | None = None  # services, weights and thresholds too; absent: unless keepalived makes them on both
    connections_max: Annotated[int, msgspec.Meta(ge=1, le=20_000_000)] = 2_000_000  # in the ledger, some 200 bytes each


class ConntrackConfig(Strict, frozen=True):
    """`auto`: where net.ipv4.vs.conntrack is 1, the entries of masqueraded connections are written into the kernel's
    tracking table at a takeover. `off`: never. Needs `mode = "relay"` in [replication]."""

    mode: str = "auto"


class KeepalivedConfig(Strict, frozen=True):
    """`fifo` is keepalived's `notify_fifo`; `instance` the VRRP instance or group that decides."""

    fifo: Path = Path("/run/feedback/keepalived.fifo")
    instance: str = "VI_1"


class SyncConfig(File, frozen=True):
    """One director of a pair. `secret` is the same file on both. With `failback` the director of the higher
    `priority` takes the role back once it is complete."""

    name: Name
    peer: Name
    link: Annotated[tuple[LinkConfig, ...], msgspec.Meta(min_length=1, max_length=8)]
    address: Annotated[tuple[AddressConfig, ...], msgspec.Meta(max_length=256)] = ()
    route: Annotated[tuple[RouteConfig, ...], msgspec.Meta(max_length=256)] = ()
    secret: Path = Path("/etc/feedback/pair.key")
    priority: Annotated[int, msgspec.Meta(ge=0, le=255)] = 100
    failback: bool = False
    failback_seconds: Positive = 60.0
    reach: Annotated[tuple[str, ...], msgspec.Meta(max_length=16)] = ()
    engine: str = "heartbeat"
    control: Path = Path("/run/feedback/sync.sock")
    role: Path = Path("/run/feedback/role.json")
    state: Path = Path("/var/lib/feedback/sync.json")
    master_state: Path | None = Path("/var/lib/feedback/master.json")
    timing: Timing = Timing()
    replication: ReplicationConfig = ReplicationConfig()
    conntrack: ConntrackConfig = ConntrackConfig()
    keepalived: KeepalivedConfig = KeepalivedConfig()

    @property
    def mirrors(self) -> bool:
        return self.engine == "heartbeat" if self.replication.mirror is None else self.replication.mirror

    def check(self, source: str) -> None:
        check_word(self.engine, ENGINES, f"{source}: engine")
        check_word(self.replication.mode, MODES, f"{source}: replication.mode")
        check_word(self.conntrack.mode, TRACKING, f"{source}: conntrack.mode")
        if self.name == self.peer:
            raise ConfigError(f"{source}: peer: {self.peer!r} is this director's own name")
        for i, link in enumerate(self.link):
            local, peer = (_endpoint(getattr(link, end), f"{source}: link[{i}].{end}") for end in ("local", "peer"))
            if local[0].version != peer[0].version:
                raise ConfigError(f"{source}: link[{i}]: local and peer are of different families")
            if local == peer:
                raise ConfigError(f"{source}: link[{i}].peer: {link.peer} is this director's own end: name the other's")
        if len({link.local for link in self.link}) < len(self.link):
            raise ConfigError(f"{source}: link: two links have the same local endpoint")
        seen = set()
        for i, entry in enumerate(self.address):
            where = f"{source}: address[{i}].address"
            try:
                made = ip_interface(entry.address)
            except ValueError:
                raise ConfigError(f"{where}: {entry.address!r}: expected ADDRESS/PREFIX, like 10.0.0.100/32") from None
            if made.ip in seen:
                raise ConfigError(f"{where}: {made.ip} is listed twice")
            seen.add(made.ip)
        if self.engine == "heartbeat" and not self.address:
            raise ConfigError(f"{source}: address: none: name the VIPs that move with the active role")
        if self.engine == "keepalived" and self.address:
            raise ConfigError(
                f'{source}: address: with engine "keepalived" keepalived moves the addresses: remove these'
            )
        _check_routes(self.route, source)
        for i, text in enumerate(self.reach):
            check_address(text, f"{source}: reach[{i}]")


def _check_routes(routes: tuple[RouteConfig, ...], source: str) -> None:
    seen = set()
    for i, route in enumerate(routes):
        network = check_network(route.to, f"{source}: route[{i}].to")
        if network.prefixlen == 0:
            raise ConfigError(f"{source}: route[{i}].to: {network}: name the range, not everything")
        if route.table in UNSUITABLE:
            raise ConfigError(f"{source}: route[{i}].table: {route.table}: {UNSUITABLE[route.table]}")
        if (network, route.table) in seen:
            raise ConfigError(f"{source}: route[{i}].to: {network} is there twice")
        seen.add((network, route.table))


def _endpoint(text: str, where: str) -> tuple[Address, int]:
    try:
        address, port = parse_endpoint(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    if port == 0:
        raise ConfigError(f"{where}: {text!r}: expected a port in 1..65535")
    return address, port
