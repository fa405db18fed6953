"""A line of ipvsadm's rules as options: which exist, under which names, which take a value. Pure.

Knows no meaning: that is text.py. Long names, `--name=value` and quoting are understood; short options are not joined
(`-At`), as neither `ipvsadm -S` nor people's files do. Source: ipvsadm 1.31.
"""

from __future__ import annotations

import shlex

from feedback.ipvs.errors import IpvsError
from feedback.refusals import RefusalError

_VALUE, _SWITCH, _MAYBE = "value", "switch", "number or nothing"

_LONG = {
    "--add-service": "-A",
    "--edit-service": "-E",
    "--delete-service": "-D",
    "--add-server": "-a",
    "--edit-server": "-e",
    "--delete-server": "-d",
    "--clear": "-C",
    "--tcp-service": "-t",
    "--udp-service": "-u",
    "--fwmark-service": "-f",
    "--ipv6": "-6",
    "--scheduler": "-s",
    "--persistent": "-p",
    "--netmask": "-M",
    "--real-server": "-r",
    "--gatewaying": "-g",
    "--ipip": "-i",
    "--masquerading": "-m",
    "--weight": "-w",
    "--u-threshold": "-x",
    "--l-threshold": "-y",
    "--ops": "-o",
    "--sched-flags": "-b",
}
SERVICE_WORDS = {"-t": _VALUE, "-u": _VALUE, "--sctp-service": _VALUE, "-f": _VALUE, "-6": _SWITCH}
_KINDS = SERVICE_WORDS | {
    **dict.fromkeys(("-A", "-E", "-D", "-a", "-e", "-d", "-C", "-g", "-i", "-m", "-o"), _SWITCH),
    **dict.fromkeys(("-s", "-M", "--pe", "-b", "-r", "-w", "-x", "-y", "--tun-type", "--tun-port"), _VALUE),
    **dict.fromkeys(("--tun-nocsum", "--tun-csum", "--tun-remcsum"), _SWITCH),
    "-p": _MAYBE,
}


class RulesError(IpvsError, RefusalError):
    """A line that is not a rule: which line, what was wrong and what was expected."""


def split(line: str) -> dict[str, str]:
    """The words of a line by option; a switch has an empty value. Raises RulesError."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise RulesError(str(error)) from None
    found: dict[str, str] = {}
    position = 1 if words and words[0] == "ipvsadm" else 0
    while position < len(words):
        name, equals, value = words[position].partition("=")
        name = _LONG.get(name, name)
        kind = _KINDS.get(name)
        position += 1
        if kind is None or (equals and kind is _SWITCH):
            raise RulesError(f"{words[position - 1]!r} is not a known option")
        following = words[position] if position < len(words) else None
        if not equals and kind is not _SWITCH and following is not None and (kind is _VALUE or following.isdecimal()):
            value = following
            position += 1
        if kind is _VALUE and not value:
            raise RulesError(f"{name} needs a value")
        if name in found:
            raise RulesError(f"{name} is listed twice")
        found[name] = value
    return found
