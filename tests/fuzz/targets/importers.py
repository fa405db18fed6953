"""Files of other tools, which people bring along: any bytes give services that the master takes, or one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from feedback.config import MasterConfig, parse
from feedback.importers import Imported, ImportFormatError, as_toml, keepalived, ldirectord, rules
from tests.fuzz.target import Target


def _importer(read: Callable[[str], Imported]) -> Callable[[bytes], None]:
    def take(data: bytes) -> None:
        found = read(data.decode("utf-8", "surrogateescape"))
        if found.services:
            parse(as_toml(found.services, "fuzz"), MasterConfig)
        for remark in found.remarks:
            assert str(remark).isprintable()

    return take


BLOCKS = (b"{", b"}", b"\n", b'"', b"#", b"!", b"\\\n", b"$A", b"$A=", b"@x ", b"~SEQ(i, 1, 9) ", b"~LST({a,b},{1,2}) ")
BLOCKS += (
    b"virtual_server ",
    b"real_server ",
    b"fwmark 7",
    b"group G",
    b"-",
    b"/8",
    b"::",
    b"99999999999999999999",
    b"\xff",
)
LINES = (
    b"\n\t",
    b"\n",
    b"virtual=",
    b"virtual6=",
    b"real=",
    b"->",
    b":",
    b"masq",
    b"gate",
    b'"',
    b"#",
    b"=",
    b" 5 sec",
    b"\xff",
)
RULES = (
    b"-A ",
    b"-a ",
    b"-t ",
    b"-f ",
    b"-r ",
    b"-w ",
    b"-p",
    b"-M ",
    b":http",
    b"\n",
    b"[::]",
    b"0",
    b"9" * 30,
    b"\xff",
)
COMMON: dict[str, Any] = {"refuses": (ImportFormatError,), "cpu_seconds": 2.0}
TARGETS = (
    Target(name="keepalived-conf", take=_importer(keepalived.read), tokens=BLOCKS, **COMMON),
    Target(name="ldirectord-cf", take=_importer(ldirectord.read), tokens=LINES, **COMMON),
    Target(name="ipvsadm-save", take=_importer(rules.read), tokens=RULES, **COMMON),
)
