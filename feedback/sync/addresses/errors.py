"""Faults of a director's network, each described in one line with a remedy."""

from __future__ import annotations

import errno


class NetworkError(Exception):
    """The network of this host cannot be used as configured. The text says what to do."""


class NoInterface(NetworkError):  # noqa: N818 - the name says what happened
    def __init__(self, name: str) -> None:
        super().__init__(f"there is no interface {name} here: `ip -brief link` lists them; correct the configuration")


class NotEthernet(NetworkError):  # noqa: N818 - the name says what happened
    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} is no Ethernet interface, and addresses are announced by ARP and neighbour discovery: "
            "name the interface at which the clients' or the real servers' network is"
        )


class NotPermitted(NetworkError):  # noqa: N818 - the name says what happened
    def __init__(self, what: str, capability: str) -> None:
        super().__init__(
            f"{what} is refused: it needs {capability}: run as root, or give the unit "
            "AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW"
        )


def reason_of(error: Exception, interface: str = "") -> str:
    if isinstance(error, OSError):
        if error.errno == errno.ENETDOWN:
            return f"{interface or 'the interface'} is down"
        return error.strerror or str(error)
    return str(error)
