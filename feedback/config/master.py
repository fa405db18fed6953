"""master.toml as a whole: its sections, and the checks between them. Services are in service.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from feedback.config.exporter import Exporter
from feedback.config.failure import check_failure, check_stand_ins
from feedback.config.marking import check_matches
from feedback.config.probe import Check
from feedback.config.service import ServiceConfig, check_destinations, service_key, to_destination, to_service
from feedback.config.strict import ConfigError, File, Positive, Strict, check_endpoint, check_listen, check_word
from feedback.model import CHECK_MARKS, DestinationKey, ServiceKey

MASTER_PATH = Path("/etc/feedback/master.toml")

CheckName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

FIREWALLS = ("auto", "nftables", "iptables", "iptables-legacy")
KERNELS_TABLES = (253, 254, 255)  # default, main, local


class Guards(Strict, frozen=True):
    """The bounds that no law can cross; what each means is said where feedback/master/bounds/guard.py applies it."""

    floor: Share = 0.02  # no destination in service gets less than this part of an equal share
    ceiling: Annotated[float, msgspec.Meta(ge=1, le=1e6)] = 4.0  # and none more than so many times its static share
    dead_band: Share = 0.05  # relative change of a weight below which nothing is written
    change_per_second: Positive = 4.0  # a share at most multiplies or divides by this in a second
    slow_start_seconds: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0  # a returning server gets its share
    stale_seconds: Positive = 2.0  # a report older than this freezes what is known
    lost_seconds: Positive = 15.0  # and after this the policy below holds
    lost_policy: str = "hold"  # hold | static | quiesce
    panic: Share = 0.5  # when at least this part of the fleet falls silent at once, everything is held


class Http(Strict, frozen=True):
    """The master's pages, read-only: metrics, probes, status. Empty: none. `sync` is where the sync daemon of a pair is
    asked for what the page says of it."""

    listen: str = "127.0.0.1:7480"
    sync: Path = Path("/run/feedback/sync.sock")


class Steer(Strict, frozen=True):
    """How packets with a mark come to IPVS. `firewall` is the program that marks them; `table` the routing table in
    which every address is local, `priority` where the policy rules stand that lead to it: before the main one."""

    firewall: str = "auto"
    table: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)] = 7433
    priority: Annotated[int, msgspec.Meta(ge=1, le=32765)] = 7433


class MasterConfig(File, frozen=True):
    """A director's master. With ownership `table` it makes the services below and owns them; with `weights` it takes
    the services that the kernel has (those below, or all if none is named) and touches weights and thresholds only."""

    listen: tuple[str, ...] = ("tcp://0.0.0.0:7433",)
    key: Path = Path("/etc/feedback/master.key_secret")
    enrolled: Path = Path("/etc/feedback/agents")
    ownership: str = "table"
    remove_unlisted: bool = False  # services that this master made and that this file names no more
    control: Path = Path("/run/feedback/master.sock")
    state: Path = Path("/var/lib/feedback/master.json")
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=60)] = 0.2
    role: Path | None = None  # the sync daemon's role file; none: this director is always the active one
    netns: str | None = None
    law: str = "capacity"
    service: tuple[ServiceConfig, ...] = ()
    checks: dict[CheckName, Check] = msgspec.field(
        default_factory=dict, name="check"
    )  # [check.NAME], for services to name
    exporters: dict[CheckName, Exporter] = msgspec.field(default_factory=dict, name="exporter")  # likewise
    guards: Guards = Guards()
    http: Http = Http()
    steer: Steer = Steer()

    def check(self, source: str) -> None:
        check_word(self.ownership, {"table", "weights"}, f"{source}: ownership")
        for i, endpoint in enumerate(self.listen):
            check_endpoint(endpoint, f"{source}: listen[{i}]")
        if self.remove_unlisted and self.ownership != "table":
            raise ConfigError(f'{source}: remove_unlisted: is for ownership "table": nothing else is ours')
        if self.ownership == "table" and not self.service:
            raise ConfigError(f'{source}: service: ownership "table" needs at least one [[service]]')
        self._check_sections(source)
        services: set[ServiceKey] = set()
        for i, service in enumerate(self.service):
            where = f"{source}: service[{i}]"
            key = service_key(service, where)
            if key in services:
                raise ConfigError(f"{where}.virtual: {key} is listed twice")
            services.add(key)
            self._check_service(service, key, where)
        check_matches(self, services, source)

    def _check_sections(self, source: str) -> None:
        check_word(self.guards.lost_policy, {"hold", "static", "quiesce"}, f"{source}: guards.lost_policy")
        if self.guards.lost_seconds <= self.guards.stale_seconds:
            raise ConfigError(f"{source}: guards.lost_seconds: must be more than guards.stale_seconds")
        if self.http.listen:
            check_listen(self.http.listen, f"{source}: http.listen")
        check_word(self.steer.firewall, FIREWALLS, f"{source}: steer.firewall")
        if self.steer.table in KERNELS_TABLES:
            raise ConfigError(
                f"{source}: steer.table: {self.steer.table} is the kernel's own: every address would be local"
            )
        for name, shared in self.checks.items():
            shared.check(f"{source}: check.{name}")
        for name, page in self.exporters.items():
            page.check(f"{source}: exporter.{name}")

    def _check_service(self, service: ServiceConfig, key: ServiceKey, where: str) -> None:
        if key.fwmark in CHECK_MARKS:
            marks = f"{CHECK_MARKS.start:#x} to {CHECK_MARKS.stop - 1:#x}"
            raise ConfigError(f"{where}.virtual: {key}: the marks {marks} are for our own checks")
        to_service(service, where)
        self._check_check(service, where)
        self._check_exporter(service, where)
        check_destinations(service, where)
        check_stand_ins(service, where)
        check_failure(service, self.ownership, where)

    def _check_check(self, service: ServiceConfig, where: str) -> None:
        if isinstance(service.check, str):
            if service.check not in self.checks:
                have = f"have {', '.join(sorted(self.checks))}" if self.checks else "there is none"
                raise ConfigError(f"{where}.check: {service.check!r}: no such [check.NAME]: {have}")
        elif service.check is not None:
            service.check.check(f"{where}.check")
        check = self.check_of(service)
        portless = [d for d in service.destination if not (d.check_port or d.port)] or not service.destination
        if check is not None and not check.port and not service_key(service).port and portless:
            raise ConfigError(f"{where}.check: needs a port, since the service has none")
        if check is not None and check.through == "service":
            self._check_through(service, where)

    def _check_exporter(self, service: ServiceConfig, where: str) -> None:
        if isinstance(service.exporter, str):
            if service.exporter not in self.exporters:
                have = f"have {', '.join(sorted(self.exporters))}" if self.exporters else "there is none"
                raise ConfigError(f"{where}.exporter: {service.exporter!r}: no such [exporter.NAME]: {have}")
        elif service.exporter is not None:
            service.exporter.check(f"{where}.exporter")

    def check_ports(self, service: ServiceConfig) -> dict[DestinationKey, int]:
        """Destinations that their check asks at a port of its own."""
        return {to_destination(d, service).key: d.check_port for d in service.destination if d.check_port}

    def _check_through(self, service: ServiceConfig, where: str) -> None:
        key = service_key(service)
        if key.address is None:
            raise ConfigError(f'{where}.check: through = "service" needs a VIP: a firewall mark has none')
        if self.netns is not None:
            raise ConfigError(f'{where}.check: through = "service": with netns, checks go out in another namespace')

    def check_of(self, service: ServiceConfig) -> Check | None:
        """The check of a service, whether its own or named."""
        return self.checks[service.check] if isinstance(service.check, str) else service.check

    def exporter_of(self, service: ServiceConfig) -> Exporter | None:
        """Whether its own or named."""
        return self.exporters[service.exporter] if isinstance(service.exporter, str) else service.exporter
