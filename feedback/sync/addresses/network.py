"""The shell of the addresses: adds, removes and announces them, asks who has them, and hears others.

This module owns all sockets for this: one rtnetlink socket, and for each service interface a packet socket for ARP and
one for IPv6. All are opened beforehand in the namespace and held open, because a takeover has no time to open anything.
It decides nothing: plan.py and the election do. Invariant: failures are returned with their reasons, address by
address, and everything else is done all the same.

What wakes the process: each packet socket belongs to one protocol, so it gets no frame of the service's IPv4 traffic. A
filter in the kernel drops everything but statements about our addresses and targets. Hand the object itself to the loop
(`add_reader(network, ...)`): `fileno()` is an epoll descriptor that holds all sockets, and it stays the same when a
socket is opened again because its interface was replaced.

Reach is kept simple. A target on a link of ours is asked by ARP or neighbour solicitation, which it answers whatever
its firewall says. Any other target gets an ICMP echo request from a raw socket, without retransmission.

Capabilities: CAP_NET_ADMIN and CAP_NET_RAW (and CAP_SYS_ADMIN for a namespace other than our own). The first two are
tried at the start, since a takeover is too late to find out that one is missing.
Sources: man 7 packet, rtnetlink, netdevice; net/packet/af_packet.c, net/core/rtnetlink.c.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from feedback.ipvs.namespace import within
from feedback.sync.addresses import packets, rtnetlink
from feedback.sync.addresses.errors import NetworkError, NoInterface, NotEthernet, NotPermitted, reason_of
from feedback.sync.addresses.kernel_addresses import KernelAddresses, Ownership
from feedback.sync.addresses.packets import Address, Answer, Claim, Echo
from feedback.sync.addresses.plan import PROTOCOL, Present, VirtualAddress, endangered
from feedback.sync.addresses.ports import (
    Port,
    announcements,
    datagrams,
    identifier,
    is_router,
    packet_sockets,
    questions,
    raw_icmp,
)

USABLE_SECONDS = 0.05
YIELDS = 50

_SIOCGIFNAME, _SIOCGIFFLAGS, _SIOCGIFHWADDR, _SIOCGIFINDEX = 0x8910, 0x8913, 0x8927, 0x8933
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_ARPHRD_ETHER = 1
_IFREQ_BYTES = 40


@dataclass(frozen=True, slots=True)
class Refusal:
    """What could not be done with one address, and why."""

    address: VirtualAddress | Address
    reason: str


class Network:
    """The addresses of one director in one namespace (None is our own). Not for two threads at once.

    `targets` are the addresses that `reach` will be asked about. `memory` is a file under /run that records which
    addresses are ours; it is used only with kernels before 5.18. Raises NetworkError, and NoNamespace or NotPermitted
    of feedback.ipvs."""

    def __init__(
        self,
        wanted: Collection[VirtualAddress],
        targets: Collection[Address] = (),
        netns: str | None = None,
        memory: Path | None = None,
    ) -> None:
        self.wanted = tuple(wanted)
        self._netns = netns
        # From an address as frames have it, without the interface of a link-local target, to the one given.
        self._heeded = {_bare(a): a for a in (*(w.address for w in wanted), *targets)}
        self._memory = Ownership(memory)
        self._ports: dict[str, Port] = {}
        self._echoes: dict[int, socket.socket] = {}
        self._sequence = 0
        self._epoll = select.epoll()
        self._sources: dict[int, socket.socket] = {}
        self._control: socket.socket | None = None
        self._kernel: KernelAddresses | None = None
        try:
            self._open(targets)
        except BaseException:
            self.close()
            raise

    def _open(self, targets: Collection[Address]) -> None:
        self._control = within(self._netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._kernel = KernelAddresses(self._netns)
        if self._kernel.do([(rtnetlink.RTM_DELADDR, 0, rtnetlink.nobody())]).get(0) == errno.EPERM:
            raise NotPermitted("changing addresses", "CAP_NET_ADMIN")
        self.installed()
        for interface in sorted({w.interface for w in self.wanted}):
            self._port(interface)
        for target in targets:  # opens the sockets that it needs
            with contextlib.suppress(NetworkError, OSError):
                self._way(target)

    def close(self) -> None:
        """Close the sockets. The addresses stay."""
        for port in self._ports.values():
            port.close()
        for sock in (*self._echoes.values(), self._control, self._kernel):
            if sock is not None:
                sock.close()
        self._epoll.close()

    # --- addresses ---------------------------------------------------------------------------------------------------

    def installed(self) -> tuple[Present, ...]:
        """All addresses of the namespace."""
        return tuple(present for present, _ in self._present())

    def add(self, addresses: Collection[VirtualAddress]) -> tuple[Refusal, ...]:
        """Add the addresses. One that already exists is not refused, and its owner does not change. When this returns,
        all that were not refused answer."""
        assert self._kernel is not None
        refusals, indexed = self._indexed(addresses)
        if not self._kernel.keeps_protocol:
            self._memory.add(address for address, _ in indexed)
        flags = rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL
        work = [(rtnetlink.RTM_NEWADDR, flags, rtnetlink.address_body(a, i)) for a, i in indexed]
        try:
            codes = self._kernel.do(work)
        except NetworkError as error:
            return refusals + tuple(Refusal(address, str(error)) for address, _ in indexed)
        refusals += _refusals(indexed, codes, allowed={errno.EEXIST})
        failed = {refusal.address for refusal in refusals}
        return refusals + self._await(address for address, _ in indexed if address not in failed)

    def _await(self, added: Iterable[VirtualAddress]) -> tuple[Refusal, ...]:
        """Wait until IPv6 addresses are usable. The kernel adds their route and multicast group in a work queue, even
        without duplicate address detection. If a client heard the announcement earlier, its first packet would be
        forwarded or dropped, and the client would wait for its retransmission. So yield the processor to the queue's
        thread."""
        assert self._kernel is not None
        refusals = []
        end = time.monotonic() + USABLE_SECONDS
        asked = 0
        for address in added:
            while address.address.version == 6 and not self._kernel.is_local(address.address):
                if time.monotonic() > end:
                    refusals.append(Refusal(address, "it is added, but the kernel does not use it yet"))
                    break
                asked += 1
                if asked < YIELDS:  # a sleep may take a whole tick
                    os.sched_yield()
                else:  # if we have a higher scheduling class than the queue's thread, yielding is not enough
                    time.sleep(0.0005)
        return tuple(refusals)

    def remove(self, addresses: Collection[VirtualAddress]) -> tuple[Refusal, ...]:
        """Remove the addresses. One that does not exist is not refused. Others that the kernel deletes along with it
        are restored in the same batch."""
        assert self._kernel is not None
        _, indexed = self._indexed(addresses)  # without an interface there is no address
        work = [(rtnetlink.RTM_DELADDR, 0, rtnetlink.address_body(a, i)) for a, i in indexed]
        try:
            if any(a.prefix < a.address.max_prefixlen for a in addresses):
                work += self._mending(addresses)
            codes = self._kernel.do(work)
        except NetworkError as error:
            return tuple(Refusal(address, str(error)) for address in addresses)
        if not self._kernel.keeps_protocol:
            self._memory.discard(addresses)
        return _refusals(indexed, codes, allowed={errno.EADDRNOTAVAIL, errno.ENODEV})

    def _mending(self, going: Collection[VirtualAddress]) -> list[tuple[int, int, bytes]]:
        present = self._present()
        staying = set(endangered(going, [p for p, _ in present]))
        create = rtnetlink.NLM_F_CREATE
        return [(rtnetlink.RTM_NEWADDR, create, entry.body) for p, entry in present if p.address in staying]

    def _present(self) -> list[tuple[Present, rtnetlink.Entry]]:
        assert self._kernel is not None
        found = []
        names: dict[int, str | None] = {}
        for entry in self._kernel.addresses():
            if entry.index not in names:
                names[entry.index] = self._name(entry.index)
            name = names[entry.index]
            if name is None:
                continue
            try:
                address = VirtualAddress(name, entry.address, entry.prefix)
            except ValueError:
                continue  # no configuration can want it
            ours = entry.protocol == PROTOCOL or (not self._kernel.keeps_protocol and address in self._memory)
            found.append((Present(address, ours, entry.secondary), entry))
        return found

    def _indexed(
        self, addresses: Collection[VirtualAddress]
    ) -> tuple[tuple[Refusal, ...], list[tuple[VirtualAddress, int]]]:
        refusals, indexed = [], []
        for address in addresses:
            try:
                indexed.append((address, self._index(address.interface)))
            except NetworkError as error:
                refusals.append(Refusal(address, str(error)))
        return tuple(refusals), indexed

    # --- interfaces --------------------------------------------------------------------------------------------------

    def macs(self) -> dict[str, str]:
        """The current MAC addresses of the service interfaces that exist."""
        found = {}
        for interface in sorted({w.interface for w in self.wanted}):
            with contextlib.suppress(NetworkError):
                found[interface] = self._mac(interface)
        return found

    def link_up(self, interface: str) -> bool:
        """Whether it exists, is up, and has a carrier."""
        try:
            flags: int = struct.unpack_from("=H", self._ioctl(_SIOCGIFFLAGS, interface), 16)[0]
        except NetworkError:
            return False
        return flags & (_IFF_UP | _IFF_RUNNING) == _IFF_UP | _IFF_RUNNING

    def _index(self, interface: str) -> int:
        index: int = struct.unpack_from("=i", self._ioctl(_SIOCGIFINDEX, interface), 16)[0]
        return index

    def _mac(self, interface: str) -> str:
        answer = self._ioctl(_SIOCGIFHWADDR, interface)
        if struct.unpack_from("=H", answer, 16)[0] != _ARPHRD_ETHER:
            raise NotEthernet(interface)
        return packets.mac_text(answer[18:24])

    def _name(self, index: int) -> str | None:
        request = struct.pack("=16si20x", b"", index)
        try:
            return fcntl.ioctl(self._control_socket, _SIOCGIFNAME, request)[:16].split(b"\0")[0].decode()
        except OSError:
            return None  # it is gone meanwhile

    def _ioctl(self, what: int, interface: str) -> bytes:
        try:
            return fcntl.ioctl(self._control_socket, what, struct.pack(f"={_IFREQ_BYTES}s", interface.encode()))
        except OSError:
            raise NoInterface(interface) from None

    @property
    def _control_socket(self) -> socket.socket:
        assert self._control is not None
        return self._control

    # --- saying and asking -------------------------------------------------------------------------------------------

    def announce(self, addresses: Collection[VirtualAddress]) -> tuple[Refusal, ...]:
        """Tell everybody on the link that the addresses are here now, by both forms of gratuitous ARP or an unsolicited
        neighbour advertisement. To be repeated, since nobody confirms it."""
        return self._send(addresses, announcements)

    def look(self, addresses: Collection[VirtualAddress]) -> tuple[Refusal, ...]:
        """Ask who has the addresses; answers come by `read`. An address that is refused was not asked for, so silence
        about it proves nothing."""
        return self._send(addresses, questions)

    def reach(self, targets: Collection[Address]) -> tuple[Refusal, ...]:
        """Ask the targets whether they are there; answers come by `read`, as Answer (on a link) or Echo."""
        refusals = []
        for target in targets:
            try:
                self._way(target)()
            except (NetworkError, OSError) as error:
                refusals.append(Refusal(target, reason_of(error)))
        return tuple(refusals)

    def _send(
        self, addresses: Collection[VirtualAddress], make: Callable[[Port, str, VirtualAddress], Sequence[bytes]]
    ) -> tuple[Refusal, ...]:
        refusals = []
        macs: dict[str, str] = {}
        for address in addresses:
            interface = address.interface
            try:
                if interface not in macs:
                    macs[interface] = self._mac(interface)
                frames = make(self._port(interface), macs[interface], address)
                self._port(interface).send(address.address, frames)
            except (NetworkError, OSError) as error:
                refusals.append(Refusal(address, reason_of(error, interface)))
        return tuple(refusals)

    def _way(self, target: Address) -> Callable[[], None]:
        """The function that asks the target. Raises NetworkError, OSError."""
        assert self._kernel is not None
        if _bare(target) not in self._heeded:
            raise NetworkError(f"{target} was not named as a target at the start: its answer would not be heard")
        if scope := getattr(target, "scope_id", None):
            return self._question(scope, target, None)
        if target.is_link_local:
            raise NetworkError(f"{target} is on every link: name the interface too, as in {target}%eth0")
        route = self._kernel.route(target)
        name = self._name(route.index)
        if route.local or name is None:
            raise NetworkError(f"{target} is an address of this host, which proves nothing: name one beyond a link")
        if not route.gateway:
            with contextlib.suppress(NotEthernet):
                return self._question(name, target, route.source)
        sock = self._echo_socket(target)
        return lambda: self._echo(sock, target)

    def _question(self, interface: str, target: Address, source: Address | None) -> Callable[[], None]:
        mac, port = self._mac(interface), self._port(interface)
        if isinstance(target, IPv6Address):
            frame = packets.neighbour_solicitation(mac, port.link_local, target)
        else:
            frame = packets.arp_request(mac, source if isinstance(source, IPv4Address) else IPv4Address(0), target)
        return lambda: port.send(target, [frame])

    def _echo(self, sock: socket.socket, target: Address) -> None:
        self._sequence = (self._sequence + 1) & 0xFFFF
        sock.sendto(packets.echo_request(target, identifier(), self._sequence), (str(target), 0))

    # --- hearing -----------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """A descriptor that is readable when there is something for `read`."""
        return self._epoll.fileno()

    def read(self) -> list[Answer | Claim | Echo]:
        """What others have said about our wanted addresses and targets since the last call. Does not wait."""
        heard: list[Answer | Claim | Echo] = []
        own: set[str] | None = None
        for descriptor, _ in self._epoll.poll(0):
            sock = self._sources.get(descriptor)
            if sock is None:
                continue
            for data, sender in datagrams(sock):
                if sock.family != socket.AF_PACKET:
                    heard.append(Echo(ip_address(sender[0].split("%")[0])))
                    continue
                said = packets.parse_frame(data)
                own = set(self.macs().values()) if own is None else own
                # Our own announcement comes back where a switch or a bond reflects it.
                if isinstance(said, Answer | Claim) and said.address in self._heeded and said.mac not in own:
                    heard.append(replace(said, address=self._heeded[said.address]))
        return heard

    # --- sockets -----------------------------------------------------------------------------------------------------

    def _port(self, interface: str) -> Port:
        """The open sockets of an interface. They are opened again if another interface has the name now."""
        index = self._index(interface)
        port = self._ports.get(interface)
        if port is not None and port.index == index:
            if port.link_local.is_unspecified:  # a link that had just come up, or was down
                port.link_local = self._link_local(index)
            return port
        self._mac(interface)  # raises if it is no Ethernet interface
        if port is not None:
            self._forget(port)
        return self._open_port(interface, index)

    def _open_port(self, interface: str, index: int) -> Port:
        ipv4 = [a for a in self._heeded if isinstance(a, IPv4Address)]
        ipv6 = [a for a in self._heeded if isinstance(a, IPv6Address)]
        programs = {
            packets.ETH_P_ARP: packets.arp_filter(ipv4),
            packets.ETH_P_IPV6: packets.advertisement_filter(ipv6),
        }
        sockets, router = within(self._netns, lambda: (packet_sockets(interface, programs), is_router(interface)))
        port = Port(index, sockets, self._link_local(index), router)
        self._ports[interface] = port
        for sock in sockets.values():
            self._listen(sock)
        return port

    def _forget(self, port: Port) -> None:
        for sock in port.sockets.values():
            with contextlib.suppress(OSError):
                self._epoll.unregister(sock)
            self._sources.pop(sock.fileno(), None)
        port.close()

    def _link_local(self, index: int) -> IPv6Address:
        assert self._kernel is not None
        for entry in self._kernel.addresses():
            if entry.index == index and isinstance(entry.address, IPv6Address) and entry.address.is_link_local:
                return entry.address
        return packets.UNSPECIFIED[1]

    def _echo_socket(self, target: Address) -> socket.socket:
        if target.version not in self._echoes:
            ipv6 = isinstance(target, IPv6Address)
            sock = within(self._netns, lambda: raw_icmp(ipv6))
            self._echoes[target.version] = sock
            self._listen(sock)
        return self._echoes[target.version]

    def _listen(self, sock: socket.socket) -> None:
        self._sources[sock.fileno()] = sock
        self._epoll.register(sock, select.EPOLLIN)


def _bare(address: Address) -> Address:
    return ip_address(address.packed)


def _refusals(
    indexed: Sequence[tuple[VirtualAddress, int]], codes: dict[int, int], allowed: Collection[int]
) -> tuple[Refusal, ...]:
    return tuple(
        Refusal(indexed[n][0], f"the kernel says {os.strerror(code)}")
        for n, code in codes.items()
        if n < len(indexed) and code not in allowed
    )
