"""Errors of the kernel's IPVS: a small hierarchy; each text says what to do.

A refused edit of a batch is not here: it is data (`EditError` in types.py), because the edits after it are still done.
"""

from __future__ import annotations

from feedback.refusals import RefusalError


class IpvsError(Exception):
    """The root of everything that feedback.ipvs raises."""


class MalformedMessage(IpvsError, RefusalError):
    """Bytes that are not the message they should be: cut short, garbled, or a value that no IPVS knows."""


class Unencodable(IpvsError, ValueError):
    """A value that has no place in the message: a port of 70000, a negative threshold, an IPv6 netmask for IPv4."""


class NoIpvs(IpvsError):
    """The running kernel has no IPVS, or none that can be loaded from here."""

    def __init__(self, what: str = "the running kernel has no IPVS") -> None:
        super().__init__(f"{what}: load it with `modprobe ip_vs` (in a container: on the host)")


class NotPermitted(IpvsError):
    """The kernel refuses us. Generic netlink asks for the capability in the initial user namespace, even for reading,
    and looks at the caller as well as at the socket's opener."""

    def __init__(self, what: str = "the kernel refuses access to IPVS (EPERM)") -> None:
        super().__init__(
            f"{what}: it needs CAP_NET_ADMIN in the initial user namespace: run as root, or give the unit "
            "AmbientCapabilities=CAP_NET_ADMIN; an unprivileged container cannot have it"
        )


class NoNamespace(IpvsError):
    """The network namespace is not there, or cannot be entered."""


class Refused(IpvsError):
    """The kernel refused one command that stands alone (timeouts, daemons, zero). `errno` is its reason."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(text)
        self.errno = errno


class OutOfStep(IpvsError):
    """An answer was lost, late or not ours. The socket is opened anew at the next call; what was done is unknown."""

    def __init__(self, errno: int, text: str) -> None:
        super().__init__(text)
        self.errno = errno


class TornDump(IpvsError):
    """The table changed under every attempt to read it. Nothing may be concluded from it; read again later."""
