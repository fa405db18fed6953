"""Addresses and endpoints as text, shared by agents and directors. Knows nothing of services.

An agent imports this and not model.py: it has neither services nor destinations.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Union

Address = Union[IPv4Address, IPv6Address]


def parse_address(text: str) -> Address:
    """Raises ValueError, also for a scope behind a `%`: that is any text at all, and IPVS knows none."""
    if "%" in text:
        raise ValueError(f"{text!r}: an address with a scope")
    return ip_address(text)


def parse_endpoint(text: str) -> tuple[Address, int]:
    """`10.0.0.1:80` or `[2001:db8::1]:80` -> (address, port). Raises ValueError with what was expected."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not (port.isascii() and port.isdecimal()) or int(port) > 65535 or (":" in host and not bracketed):
        raise ValueError(f"{text!r}: expected ADDRESS:PORT, for IPv6 [ADDRESS]:PORT, port 0..65535")
    return parse_address(host.strip("[]") if bracketed else host), int(port)


def format_endpoint(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
