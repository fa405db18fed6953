"""Which addresses this director should add or remove, and when it should announce them. Pure.

This module owns the addresses of the active director: the virtual addresses (VIPs) and, for masquerading, the real
servers' gateway. It knows no netlink and no role but `active`. Invariants: `plan` is absolute and idempotent, so its
result depends on what is wanted and what exists, never on what was done before. Addresses that we did not add are never
removed.

Whose an address is. With each address the kernel keeps a protocol number (IFA_PROTO, Linux 5.18 and later), which says
who added it. Ours is `PROTOCOL` (`ip address show proto 251`, in a recent iproute2). The number exists as long as the
address. So a daemon that was killed, upgraded or restarted finds its own addresses, and no file can be out of date. An
older kernel does not keep the number. There the shell keeps a file under /run, written before an address is added. A
reboot removes both the file and the addresses.

Prefixes. A VIP is /32 or /128. With its network's prefix the kernel would treat it as a *secondary* address, and delete
it with the primary one (promote_secondaries is 0 by default). A gateway may need its network's prefix if the director
has no other address there; `endangered` says what the kernel would delete along with it.
Sources: net/ipv4/devinet.c (__inet_del_ifa), include/uapi/linux/if_addr.h, RFC 5227 section 2.3 (announcements).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_interface

from feedback.sync.addresses.packets import Address

PROTOCOL = 251  # IFA_PROTO, free for user space from 4 on (/etc/iproute2/rt_addrprotos)

# A takeover's first announcement may be lost, in a switch that is still learning or in a full queue.
BURST_SECONDS = (0.0, 0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
PERIOD_SECONDS = 30.0


@dataclass(frozen=True, slots=True, order=True)
class VirtualAddress:
    """An address of the active director. Raises ValueError for one that no director can own."""

    interface: str
    address: Address
    prefix: int

    def __post_init__(self) -> None:
        address = self.address
        if address.is_multicast or address.is_unspecified or address.is_loopback:
            raise ValueError(
                f"{address} is not an address that a director can take over: name one of the service's network"
            )
        if not 0 <= self.prefix <= address.max_prefixlen:
            raise ValueError(f"{address}/{self.prefix}: the prefix is 0 to {address.max_prefixlen}")
        if not 0 < len(self.interface) < 16 or "/" in self.interface or any(c.isspace() for c in self.interface):
            raise ValueError(f"{self.interface!r} is not an interface name of 1 to 15 characters")

    @classmethod
    def parse(cls, text: str, interface: str) -> VirtualAddress:
        """Parse "10.0.0.100", "10.0.0.254/24" or "2001:db8::100". Without a prefix it is a single address."""
        parsed = ip_interface(text)
        return cls(interface, parsed.ip, parsed.network.prefixlen)

    @property
    def network(self) -> IPv4Interface | IPv6Interface:
        return ip_interface((self.address, self.prefix))

    def __str__(self) -> str:
        return f"{self.address}/{self.prefix} on {self.interface}"


@dataclass(frozen=True, slots=True)
class Present:
    """An address that the kernel has. `secondary`: it is deleted with the primary address of its network."""

    address: VirtualAddress
    ours: bool
    secondary: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    add: tuple[VirtualAddress, ...]
    remove: tuple[VirtualAddress, ...]


def plan(wanted: Collection[VirtualAddress], present: Collection[Present], active: bool) -> Plan:
    """What to add and remove. Addresses of ours that the configuration no longer wants are removed in either role."""
    there = {p.address for p in present}
    should = set(wanted) if active else set()
    ours = {p.address for p in present if p.ours}
    return Plan(add=tuple(sorted(should - there, key=_order)), remove=tuple(sorted(ours - should, key=_order)))


def _order(address: VirtualAddress) -> tuple[str, int, int, int]:
    """A sort key, since IPv4 and IPv6 addresses cannot be compared."""
    return address.interface, address.address.version, int(address.address), address.prefix


def foreign(wanted: Collection[VirtualAddress], present: Collection[Present]) -> tuple[Present, ...]:
    """Wanted addresses that somebody else has added to any interface here, with any prefix. The kernel answers for them
    in either role."""
    addresses = {w.address for w in wanted}
    return tuple(p for p in present if not p.ours and p.address.address in addresses)


def held(wanted: Collection[VirtualAddress], present: Collection[Present]) -> bool:
    """Whether all wanted addresses are here. If so, this director serves, whoever added them."""
    return {w.address for w in wanted} <= {p.address.address for p in present}


def endangered(remove: Collection[VirtualAddress], present: Collection[Present]) -> tuple[VirtualAddress, ...]:
    """Addresses that should stay, but that the kernel deletes along with the primary addresses in `remove`: IPv4's
    secondary addresses of the same network on the same interface."""
    going = {p.address for p in present if p.address in remove and not p.secondary}
    networks = {(a.interface, a.network.network) for a in going if isinstance(a.address, IPv4Address)}
    return tuple(
        p.address
        for p in present
        if p.secondary and p.address not in remove and (p.address.interface, p.address.network.network) in networks
    )


def next_announcement(since_takeover_seconds: float) -> float:
    """The time after the takeover at which the next announcement is due, strictly later than the given one. The first,
    at 0, belongs to the takeover itself."""
    for at in BURST_SECONDS:
        if at > since_takeover_seconds:
            return at
    last = BURST_SECONDS[-1]
    return last + PERIOD_SECONDS * ((since_takeover_seconds - last) // PERIOD_SECONDS + 1)


def foreign_advice(found: Present) -> str:
    return (
        f"{found.address} was not added by feedback, and this host answers for it in either role: "
        f"take it out of the network configuration (ip address delete {found.address.address}/{found.address.prefix} "
        f"dev {found.address.interface})"
    )
