"""Faults of a director: death, a cut cable, deafness, isolation from the other; and how each is undone.

Death is prepared: sockets, requests and process ids exist beforehand, so that the links go down and all processes die
within a few milliseconds. Links go first: a process whose parent dies may shut down in an orderly way (keepalived's
children do, and delete the services), which a dead machine does not. Children die before their parents for the same
reason. Cables are pulled at the switch's end, so that the director keeps its addresses.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import time
from pathlib import Path

from feedback.lab import network
from feedback.lab.network import NAMESPACES
from feedback.lab.pair.topology import DIRECTORS, HEARTBEATS, Node, Pair, heartbeat_interface

SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
IFF_UP = 1
REQUEST = struct.Struct("16sH22x")
PRIORITY = 50


class Link:
    """One interface in one namespace, which can be set down and up without starting a process."""

    def __init__(self, namespace: str, name: str) -> None:
        with network.entered(namespace):
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        answer = fcntl.ioctl(self.socket, SIOCGIFFLAGS, REQUEST.pack(name.encode(), 0))
        flags = REQUEST.unpack(answer)[1]
        self.off = REQUEST.pack(name.encode(), flags & ~IFF_UP)
        self.on = REQUEST.pack(name.encode(), flags | IFF_UP)

    def cut(self) -> None:
        fcntl.ioctl(self.socket, SIOCSIFFLAGS, self.off)

    def heal(self) -> None:
        fcntl.ioctl(self.socket, SIOCSIFFLAGS, self.on)

    def close(self) -> None:
        """Close the socket. The interface stays as it is."""
        self.socket.close()


def service_links(pair: Pair, director: Node) -> list[Link]:
    return [Link(pair.switch, director.name), Link(pair.switch, f"{director.name}-back")]


def heartbeat_links(pair: Pair, director: Node = DIRECTORS[0]) -> list[Link]:
    namespace = pair.namespace(director.name)
    return [Link(namespace, heartbeat_interface(i)) for i in range(len(HEARTBEATS))]


class Death:
    """The death of one director, with all its processes and cables: prepared beforehand, and carried out once."""

    def __init__(self, pair: Pair, director: Node) -> None:
        self.links = [*service_links(pair, director), *heartbeat_links(pair, director)]
        self.victims = processes_in(pair.namespace(director.name))

    def strike(self) -> tuple[float, float]:
        """Returns the moment at which the first cable was pulled, and how many seconds all of it took."""
        _prioritise(PRIORITY)
        try:
            died = time.monotonic()
            for link in self.links:
                link.cut()
            for pid in self.victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return died, time.monotonic() - died
        finally:
            _prioritise(0)
            for link in self.links:
                link.close()


def _prioritise(priority: int) -> None:
    with contextlib.suppress(PermissionError):
        policy = os.SCHED_FIFO if priority else os.SCHED_OTHER
        os.sched_setscheduler(0, policy, os.sched_param(priority))


def processes_in(namespace: str) -> list[int]:
    """All processes of a network namespace, the youngest first."""
    wanted = (NAMESPACES / namespace).stat().st_ino
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (path / "ns" / "net").stat().st_ino == wanted:
                found.append(int(path.name))
    return sorted(found, reverse=True)


def deafen(pair: Pair, deaf: Node, to: Node) -> None:
    """From now on `deaf` hears nothing from `to` on the service networks; `to` still hears `deaf`. The switch drops the
    frames: a frame that the director itself dropped would still reach a packet tap there."""
    for port, mac in ((deaf.name, to.mac), (f"{deaf.name}-back", to.back_mac)):
        network.run_tc(pair.switch, f"qdisc add dev {port} clsact")
        rule = f"protocol all prio 1 flower src_mac {mac.hex(':')} action drop"
        network.run_tc(pair.switch, f"filter add dev {port} egress {rule}")


def undeafen(pair: Pair, deaf: Node) -> None:
    for port in (deaf.name, f"{deaf.name}-back"):
        network.run_tc(pair.switch, f"qdisc del dev {port} clsact")


def isolate(pair: Pair, on: bool) -> None:
    """The switches carry nothing between the directors; both still reach everybody else."""
    for director in DIRECTORS:
        for port in (director.name, f"{director.name}-back"):
            network.run_ip(pair.switch, "link", "set", port, "type", "bridge_slave", "isolated", "on" if on else "off")
