"""keepalived.conf as services: virtual_server and its groups. VRRP and the rest stay keepalived's.

Source: keepalived.conf(5), and what keepalived 2.2.7 makes of a file (tests/importers/test_owners.py).
"""

from __future__ import annotations

from feedback.importers.draft import Imported
from feedback.importers.keepalived.blocks import tree
from feedback.importers.keepalived.lines import Include, Lines
from feedback.importers.keepalived.services import imported

__all__ = ["Include", "read"]


def read(text: str, *, include: Include | None = None, instance: str = "", name: str = "") -> Imported:
    """`include` gives the files that an `include` names, `instance` is keepalived's own (its option -i), `name` the
    file's. Raises ImportFormatError where it is no keepalived.conf, or more than a file should be."""
    lines = Lines(text, include, instance, name)
    nodes = tree(lines, lines.remarks)
    return imported(nodes, lines.remarks)
