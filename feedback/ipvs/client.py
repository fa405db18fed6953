"""The kernel's IPVS as one object: read the table, apply edits, timeouts, sync daemons.

`Kernel` is the seam: the daemons are written against it, tests and simulations put `FakeKernel` there. `Client` is the
real one: raw generic netlink, since the control loop writes a thousand weights several times a second.

**What a snapshot promises.** The kernel's dumps resume by index after each datagram (32 kB, about ninety destinations)
and never say that they were interrupted: a removal in between makes live entries vanish from the dump, an addition
doubles some. So:
- Destinations that came in one datagram were read under one lock, and are what the kernel had at that moment.
- If they took several, or none came (an empty service and a vanished one look alike), the dump is repeated until its
  destinations are those that the kernel lists at one moment (listed.py). It does so for IPv4 alone; else until two
  dumps in a row agree, entry by entry and in order, without a duplicate.
- The services are read before and after; if their configuration or order differ, everything is read again.
So each service's destinations are those of one moment, and the services existed throughout. Not promised: that two
services are of the *same* moment; and with IPv6 a writer that removes and re-adds in step with two dumps is not seen.
Weights, thresholds and counts may move between the datagrams: each entry has its own, and nothing is read again for it.
Cost in the common case (services under ninety destinations): one more dump of the services.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, TypeVar

from feedback.ipvs import control, decoding, encoding
from feedback.ipvs.channel import Channel, Dump, KernelError
from feedback.ipvs.errors import MalformedMessage, OutOfStep, Refused, TornDump, Unencodable
from feedback.ipvs.listed import Listed, Place
from feedback.ipvs.numbers import FAMILY_NAME, VERSION, Command
from feedback.ipvs.reasons import command_text, edit_text
from feedback.ipvs.shape import DestinationReader
from feedback.ipvs.types import EditError, Info, SyncDaemon, SyncRole, Timeouts
from feedback.model import DestinationEntry, Edit, ServiceEntry, ServiceKey, Snapshot

ATTEMPTS = 10  # of reading a table that changes under us

T = TypeVar("T")


class Kernel(Protocol):
    """IPVS in one network namespace. Every method raises an IpvsError if the kernel cannot be asked at all."""

    def info(self) -> Info: ...

    def snapshot(self) -> Snapshot:
        """The whole table. Raises TornDump if it changed under every attempt."""
        ...

    def services(self) -> tuple[ServiceEntry, ...]:
        """The services without their destinations. Raises TornDump."""
        ...

    def destinations(self, service: ServiceKey) -> tuple[DestinationEntry, ...]:
        """The destinations of one service, in the kernel's order; none if there is no such service. Raises TornDump."""
        ...

    def apply(self, edits: Sequence[Edit]) -> tuple[EditError, ...]:
        """Perform the edits in their order. Returns those that failed; the ones after a failure are still done."""
        ...

    def zero(self, service: ServiceKey | None = None) -> None:
        """Set the counters of a service and its destinations, or of all, to zero. Raises Refused."""
        ...

    def timeouts(self) -> Timeouts: ...

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """A 0 leaves the kernel's value. Raises Refused."""
        ...

    def daemons(self) -> tuple[SyncDaemon, ...]: ...

    def start_daemon(self, daemon: SyncDaemon) -> None:
        """Raises Refused: EEXIST if one of this role runs, ENODEV if there is no such interface."""
        ...

    def stop_daemon(self, role: SyncRole) -> None:
        """Raises Refused: ESRCH if none of this role runs."""
        ...

    def close(self) -> None: ...


class Client:
    """The kernel's IPVS in `netns` (a name under /run/netns, or a path; None is our own namespace).

    Raises NoIpvs, NotPermitted or NoNamespace. May be shared by threads; calls wait for one another.
    """

    def __init__(self, netns: str | None = None) -> None:
        self._lock = threading.Lock()
        self._channel = Channel(FAMILY_NAME, VERSION, netns)
        self._list = Listed(netns)
        self._reader = DestinationReader()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._channel.close()
            self._list.close()

    def info(self) -> Info:
        return control.decode_info(self._read(Command.GET_INFO))

    # --- the table ---------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        before = self._services()
        for _ in range(ATTEMPTS):
            filled = tuple(
                ServiceEntry(entry.service, self.destinations(entry.service.key), entry.counters) for entry in before
            )
            after = self._services()
            if _same_services(before, after):
                return Snapshot(filled)
            before = after
        raise TornDump(
            f"the services changed during each of {ATTEMPTS} readings: another program is rewriting the table"
        )

    def services(self) -> tuple[ServiceEntry, ...]:
        before = self._services()
        for _ in range(ATTEMPTS):
            after = self._services()
            if _same_services(before, after):
                return after
            before = after
        raise TornDump(
            f"the services changed during each of {ATTEMPTS} readings: another program is rewriting the table"
        )

    def destinations(self, service: ServiceKey) -> tuple[DestinationEntry, ...]:
        dump = self._dump_destinations(service)
        if dump.datagrams != 1:
            dump = self._settled(service, dump)
        return tuple(self._reader.read(body, service.family) for body in dump.bodies)

    def _settled(self, service: ServiceKey, dump: Dump) -> Dump:
        marks = [self._reader.mark(body) for body in dump.bodies]
        for _ in range(ATTEMPTS):
            listed = self._listed(service)
            if listed is not None and listed == [((address or b"")[:4], port) for address, port, _ in marks]:
                return dump
            dump = self._dump_destinations(service)
            again = [self._reader.mark(body) for body in dump.bodies]
            if listed is None and again == marks and len(set(again)) == len(again):
                return dump
            marks = again
        raise TornDump(f"{service}: its destinations changed during each of {ATTEMPTS} readings")

    def _services(self) -> tuple[ServiceEntry, ...]:
        return tuple(decoding.decode_service(body) for body in self._dump(Command.GET_SERVICE).bodies)

    def _dump_destinations(self, service: ServiceKey) -> Dump:
        return self._dump(Command.GET_DEST, encoding.encode_service_key(service))

    def _listed(self, service: ServiceKey) -> list[Place] | None:
        with self._lock:
            return self._list.destinations(service)

    # --- edits -------------------------------------------------------------------------------------------------------

    def apply(self, edits: Sequence[Edit]) -> tuple[EditError, ...]:
        requests: list[tuple[int, bytes]] = []
        failed: dict[int, EditError] = {}
        positions: list[int] = []
        for position, edit in enumerate(edits):
            try:
                requests.append(encoding.encode_edit(edit))
                positions.append(position)
            except Unencodable as error:
                failed[position] = EditError(edit, errno.EINVAL, edit_text(edit, errno.EINVAL, str(error)))
        for index, code in self._batch(requests).items():
            edit = edits[positions[index]]
            failed[positions[index]] = EditError(edit, code, edit_text(edit, code))
        return tuple(failed[position] for position in sorted(failed))

    def _batch(self, requests: list[tuple[int, bytes]]) -> dict[int, int]:
        if not requests:
            return {}
        with self._lock:
            failed = self._channel.batch(requests)
            # A family that is gone answers ENOENT too, as an unknown destination does.
            gone = len(failed) == len(requests) and set(failed.values()) == {errno.ENOENT}
            if gone and self._channel.reopened():
                failed = self._channel.batch(requests)
        return failed

    def zero(self, service: ServiceKey | None = None) -> None:
        body = b"" if service is None else encoding.encode_service_key(service)
        self._command(Command.ZERO, body, f"zero the counters of {service or 'all services'}")

    # --- timeouts and sync daemons -----------------------------------------------------------------------------------

    def timeouts(self) -> Timeouts:
        return control.decode_timeouts(self._read(Command.GET_CONFIG))

    def set_timeouts(self, timeouts: Timeouts) -> None:
        self._command(Command.SET_CONFIG, control.encode_timeouts(timeouts), f"set {timeouts}")

    def daemons(self) -> tuple[SyncDaemon, ...]:
        return tuple(control.decode_daemon(body) for body in self._dump(Command.GET_DAEMON).bodies)

    def start_daemon(self, daemon: SyncDaemon) -> None:
        what = f"start the {daemon.role.name.lower()} sync daemon on {daemon.interface}"
        self._command(Command.NEW_DAEMON, control.encode_daemon(daemon), what)

    def stop_daemon(self, role: SyncRole) -> None:
        what = f"stop the {role.name.lower()} sync daemon"
        try:
            self._command(Command.DEL_DAEMON, control.encode_daemon_role(role), what)
        except Refused as error:
            # A thread that is stopped before it ever ran makes kthread_stop() say EINTR; it is stopped all the same.
            if error.errno != errno.EINTR or any(daemon.role is role for daemon in self.daemons()):
                raise

    # --- asking ------------------------------------------------------------------------------------------------------

    def _command(self, command: Command, body: bytes, what: str) -> None:
        with self._lock:
            try:
                self._channel.request(command, body)
            except KernelError as error:
                code = error.errno or errno.EIO
                raise Refused(code, command_text(what, code)) from None

    def _read(self, command: Command) -> bytes:
        answers = self._again(lambda: self._channel.request(command))
        if not answers:
            raise MalformedMessage(f"the kernel's answer to {command.name} is empty")
        return answers[0]

    def _dump(self, command: Command, body: bytes = b"") -> Dump:
        return self._again(lambda: self._channel.dump(command, body))

    def _again(self, ask: Callable[[], T]) -> T:
        """Reading is harmless: after a lost answer, or a module loaded anew, ask once more.

        Raises Refused, OutOfStep.
        """
        with self._lock:
            try:
                return ask()
            except OutOfStep:
                pass  # the channel opens a fresh socket
            except KernelError as error:
                if error.errno != errno.ENOENT or not self._channel.reopened():
                    raise Refused(error.errno or errno.EIO, command_text("read the table", error.errno or 0)) from None
            return ask()


def _same_services(before: Sequence[ServiceEntry], after: Sequence[ServiceEntry]) -> bool:
    """The same configurations in the same order, each once. Counters move all the time."""
    keys = {entry.service.key for entry in after}
    return len(keys) == len(after) and [e.service for e in before] == [e.service for e in after]
