"""`FakeKernel`: IPVS's semantics without a kernel, behind the same `Kernel` protocol, for tests and simulation.

The same contract test runs against it and against the real kernel (tests/ipvs/test_contract.py), so its behaviour is
the kernel's: errno for errno, order of destinations, full replacement by a SET, thresholds of old and of new kernels,
the trash out of which a destination comes back with its connections.

Beyond the protocol it has connections: `open` lets the service's scheduler choose, `close_connection` makes a TCP
connection inactive, `expire` forgets it. With `now` given it models time, moved by `advance`: counters are shown as
they were at the last 2 s tick, closed TCP connections expire after the FIN timeout, UDP flows after theirs. Without
`now` counters are live and connections stay until they are expired by hand.

Not modelled: persistence, one-packet scheduling, bytes and packets, drops, the sync daemons' work, the hash order of
services (here: of their adding), hashing schedulers (`open` raises NotImplementedError), the exact second at which the
trash is emptied (here: 120 s after the removal, if no connection is left).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

import msgspec

from feedback.ipvs.control import encode_daemon, encode_timeouts
from feedback.ipvs.encoding import encode_edit
from feedback.ipvs.errors import Refused, Unencodable
from feedback.ipvs.fake_table import COUNTERS_SECONDS, FakeDestination, FakeService, Overload
from feedback.ipvs.reasons import command_text, edit_text
from feedback.ipvs.schedulers import MODELLED
from feedback.ipvs.types import EditError, Info, SyncDaemon, SyncRole, Timeouts
from feedback.model import (
    THRESHOLD_MAX,
    AddDestination,
    Address,
    AddService,
    Destination,
    DestinationEntry,
    DestinationKey,
    Edit,
    Family,
    Forward,
    RemoveDestination,
    RemoveService,
    Service,
    ServiceEntry,
    ServiceFlags,
    ServiceKey,
    SetDestination,
    SetService,
    Snapshot,
    TunnelType,
)

SCHEDULERS = MODELLED | {"sh", "dh", "mh", "lblc", "lblcr"}
TRASH_SECONDS = 120.0
MTU_PAYLOAD = 1500 - 28


@dataclass(eq=False)
class FakeConnection:
    """A connection of a `FakeKernel`. `expires` is None while it is not known to end."""

    service: ServiceKey
    destination: DestinationKey
    target: FakeDestination
    active: bool
    expires: float | None = None


class FakeKernel:
    """See the module. `interfaces` are those on which a sync daemon may be started."""

    def __init__(
        self,
        *,
        overload: Overload = Overload.UNTIL_6_1_176,
        now: float | None = None,
        interfaces: Iterable[str] = ("lo",),
    ) -> None:
        self._overload = overload
        self._now = now
        self._interfaces = frozenset(interfaces)
        self._table: dict[ServiceKey, FakeService] = {}
        self._trash: dict[tuple[ServiceKey, DestinationKey], tuple[FakeDestination, float]] = {}
        self._connections: dict[FakeConnection, None] = {}  # in the order of their opening
        self._timeouts = Timeouts(900, 120, 300)
        self._daemons: dict[SyncRole, SyncDaemon] = {}

    # --- the Kernel protocol -----------------------------------------------------------------------------------------

    def close(self) -> None:
        pass

    def info(self) -> Info:
        return Info((1, 2, 1), 4096)

    def snapshot(self) -> Snapshot:
        self._tick()
        return Snapshot(tuple(service.entry(filled=True) for service in self._table.values()))

    def services(self) -> tuple[ServiceEntry, ...]:
        self._tick()
        return tuple(service.entry(filled=False) for service in self._table.values())

    def destinations(self, service: ServiceKey) -> tuple[DestinationEntry, ...]:
        self._tick()
        found = self._table.get(service)
        return found.entry(filled=True).destinations if found else ()

    def apply(self, edits: Sequence[Edit]) -> tuple[EditError, ...]:
        failures: list[EditError] = []
        for edit in edits:
            try:
                encode_edit(edit)  # what has no place in a message is refused as the client refuses it
            except Unencodable as error:
                failures.append(EditError(edit, errno.EINVAL, edit_text(edit, errno.EINVAL, str(error))))
                continue
            if code := self._perform(edit):
                failures.append(EditError(edit, code, edit_text(edit, code)))
        return tuple(failures)

    def zero(self, service: ServiceKey | None = None) -> None:
        if service is not None and service not in self._table:
            raise Refused(errno.ESRCH, command_text(f"zero the counters of {service}", errno.ESRCH))
        for found in self._table.values() if service is None else [self._table[service]]:
            found.zero()

    def timeouts(self) -> Timeouts:
        return self._timeouts

    def set_timeouts(self, timeouts: Timeouts) -> None:
        encode_timeouts(timeouts)
        if max(msgspec.structs.astuple(timeouts)) > (2**31 - 1) // 250:  # kept in jiffies, in an int
            raise Refused(errno.EINVAL, command_text(f"set {timeouts}", errno.EINVAL))
        given = {name: value for name, value in msgspec.structs.asdict(timeouts).items() if value}
        self._timeouts = msgspec.structs.replace(self._timeouts, **given)

    def daemons(self) -> tuple[SyncDaemon, ...]:
        return tuple(self._daemons[role] for role in SyncRole if role in self._daemons)

    def start_daemon(self, daemon: SyncDaemon) -> None:
        encode_daemon(daemon)
        if code := self._daemon_refusal(daemon):
            what = f"start the {daemon.role.name.lower()} sync daemon on {daemon.interface}"
            raise Refused(code, command_text(what, code))
        self._daemons[daemon.role] = msgspec.structs.replace(
            daemon,
            maxlen=daemon.maxlen or MTU_PAYLOAD,
            group=daemon.group or IPv4Address("224.0.0.81"),
            port=daemon.port or 8848,
            ttl=daemon.ttl or 1,
        )

    def stop_daemon(self, role: SyncRole) -> None:
        if self._daemons.pop(role, None) is None:
            raise Refused(errno.ESRCH, command_text(f"stop the {role.name.lower()} sync daemon", errno.ESRCH))

    # --- connections and time ----------------------------------------------------------------------------------------

    def open(self, service: ServiceKey) -> FakeConnection | None:
        """A new connection to the service: where the scheduler sends it, or None if it is refused. Raises KeyError."""
        found = self._table[service]
        target = found.choose()
        if target is None:
            return None
        found.opened += 1
        target.bind(active=found.counts_active)
        connection = FakeConnection(service, target.config.key, target, found.counts_active)
        if not found.counts_active and self._now is not None:
            connection.expires = self._now + self._timeouts.udp_seconds
        self._connections[connection] = None
        return connection

    def close_connection(self, connection: FakeConnection) -> None:
        """The client and the server are done: a TCP connection becomes inactive, and expires after the FIN timeout."""
        if not connection.active:
            return
        connection.active = False
        connection.target.active -= 1
        connection.target.inactive += 1
        if self._now is not None:
            connection.expires = self._now + self._timeouts.tcp_fin_seconds

    def expire(self, connection: FakeConnection) -> None:
        """The kernel forgets the connection: only now may the destination open again. Raises KeyError if it has."""
        del self._connections[connection]
        connection.target.unbind(active=connection.active)

    def advance(self, now: float) -> None:
        """Move time on: connections that are due expire, counters are refreshed at each 2 s tick."""
        if self._now is None:
            raise ValueError("this FakeKernel was made without a time")
        ticked = now // COUNTERS_SECONDS > self._now // COUNTERS_SECONDS
        self._now = now
        for connection in [c for c in self._connections if c.expires is not None and c.expires <= now]:
            self.expire(connection)
        if ticked:
            for service in self._table.values():
                service.refresh()
        for key, (gone, since) in list(self._trash.items()):
            if gone.total == 0 and now - since >= TRASH_SECONDS:
                del self._trash[key]

    def _tick(self) -> None:
        if self._now is None:
            for service in self._table.values():
                service.refresh()

    # --- edits: each returns an errno, or 0 --------------------------------------------------------------------------

    def _perform(self, edit: Edit) -> int:
        match edit:
            case AddService() | SetService():
                return self._put_service(edit.service, new=isinstance(edit, AddService))
            case RemoveService():
                return self._remove_service(edit.service)
            case AddDestination() | SetDestination() | RemoveDestination():
                service = self._table.get(edit.service)
                if service is None:
                    return errno.ESRCH
                if isinstance(edit, RemoveDestination):
                    return self._remove_destination(service, edit.destination)
                return self._put_destination(service, edit.destination, new=isinstance(edit, AddDestination))

    def _put_service(self, wanted: Service, *, new: bool) -> int:
        found = self._table.get(wanted.key)
        if new and found is not None:
            return errno.EEXIST
        if not new and found is None:
            return errno.ESRCH
        if wanted.scheduler not in SCHEDULERS or wanted.pe_name not in {None, "", "sip"}:
            return errno.ENOENT
        if wanted.key.family is Family.IPV6 and wanted.netmask == 0:
            return errno.EINVAL
        whole = 32 if wanted.key.family is Family.IPV4 else 128
        kept = msgspec.structs.replace(
            wanted,
            flags=wanted.flags | ServiceFlags.HASHED,
            netmask=None if wanted.netmask == whole else wanted.netmask,
            pe_name=wanted.pe_name or None,
        )
        if found is None:
            self._table[wanted.key] = FakeService(kept)
        else:
            found.set(kept)
        return 0

    def _remove_service(self, key: ServiceKey) -> int:
        service = self._table.pop(key, None)
        if service is None:
            return errno.ESRCH
        for destination in service.destinations:
            self._trash[key, destination.config.key] = destination, self._now or 0.0
        return 0

    def _put_destination(self, service: FakeService, wanted: Destination, *, new: bool) -> int:
        key = service.config.key
        if code := self._destination_refusal(key, wanted):
            return code
        found = service.find(wanted.key)
        if new and found is not None:
            return errno.EEXIST
        if not new and found is None:
            return errno.ENOENT
        if found is not None:
            found.set(wanted)
            service.told()
            return 0
        revived, _ = self._trash.pop((key, wanted.key), (FakeDestination(wanted, self._overload), 0.0))
        revived.set(wanted)
        service.add(revived)
        return 0

    def _remove_destination(self, service: FakeService, key: DestinationKey) -> int:
        found = service.find(key)
        if found is None:
            return errno.ENOENT
        service.remove(found)
        self._trash[service.config.key, key] = found, self._now or 0.0
        return 0

    def _destination_refusal(self, service: ServiceKey, wanted: Destination) -> int:
        mixed = Family.of(wanted.key.address) is not service.family
        if mixed and (self._daemons or wanted.forward is not Forward.TUNNEL):
            return errno.EINVAL
        if wanted.weight < 0 or wanted.lower > wanted.upper:
            return errno.ERANGE
        if wanted.tunnel_type is TunnelType.GUE and wanted.tunnel_port == 0:
            return errno.EINVAL
        if self._overload is Overload.SINCE_6_1_192 and wanted.upper > THRESHOLD_MAX:
            return errno.EINVAL
        return 0 if _unicast(wanted.key.address) else errno.EINVAL

    def _daemon_refusal(self, daemon: SyncDaemon) -> int:
        if any(
            Family.of(d.config.key.address) is not s.config.key.family
            for s in self._table.values()
            for d in s.destinations
        ):
            return errno.EINVAL
        if daemon.role in self._daemons:
            return errno.EEXIST
        return 0 if daemon.interface in self._interfaces else errno.ENODEV


def _unicast(address: Address) -> bool:
    if address.is_multicast or address.is_unspecified:
        return False
    if isinstance(address, IPv4Address):
        return address != IPv4Address("255.255.255.255")
    return not address.is_link_local
