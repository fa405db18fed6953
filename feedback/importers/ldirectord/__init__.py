"""ldirectord.cf as services: virtual and real servers, and what is checked.

Source: ldirectord(8), and what ldirectord 4.12.0 makes of a file (tests/importers/test_owners.py).
"""

from __future__ import annotations

from collections.abc import Callable

from feedback.importers.draft import Imported
from feedback.importers.ldirectord.file import read_file
from feedback.importers.ldirectord.services import PORTS, imported

__all__ = ["read"]


def read(text: str, *, port_of: Callable[[str, str], int | None] | None = None) -> Imported:
    """`port_of` gives the port of a service's name and protocol ("": any), as getservbyname(3) does. Raises
    ImportFormatError where it is no ldirectord.cf."""
    return imported(read_file(text), port_of or (lambda name, _protocol: PORTS.get(name)))
