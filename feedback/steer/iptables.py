"""Marks by iptables: a chain of our own in the table mangle, replaced at once for each family, read by iptables-save.

Owns the chain's name and the jump to it, which stands behind the jumps that existed when it was made. `iptables` may be
either of two programs: for the kernel's older tables (legacy) or for nf_tables. The older one needs CAP_NET_RAW too.
Sources: iptables-save(8), iptables-restore(8), iptables-extensions(8).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from itertools import pairwise

from feedback.config.match import Span, span_text
from feedback.model import Family, Protocol
from feedback.steer.errors import SteerError
from feedback.steer.firewall import WHOLE, WORDS, ForeignMark, Run
from feedback.steer.plan import Held, Rule

CHAIN = "feedback-steer"
JUMP = f"-A PREROUTING -j {CHAIN}"
EVERYTHING = {Family.IPV4: "0.0.0.0/0", Family.IPV6: "::/0"}
SHAPE = "-p -m multiport --dports -j MARK --set-xmark"  # of a rule of ours, without its values


class Iptables:
    """`program` is iptables or iptables-legacy."""

    def __init__(self, run: Run, program: str = "iptables") -> None:
        self.name = program
        self._run, self._suffix = run, program.removeprefix("iptables")

    def unusable(self, rules: Sequence[Rule]) -> str | None:
        for family in sorted({rule.family for rule in rules}):
            given = text([rule for rule in rules if rule.family is family], jumps=0)
            for what, options in (("save", ["-t", "mangle"]), ("restore", ["-w", "2", "--test", "--noflush"])):
                said = self._run([self._program(family, what), *options], given if what == "restore" else "")
                if said.status != 0:
                    return said.reason
        return None

    def read(self, families: frozenset[Family]) -> Held:
        each = [read(found, family) for family in sorted(families) if (found := self._saved(family)) is not None]
        there = [held for held, _jumps in each if held.there]
        rules = tuple(rule for held in there for rule in held.rules)
        return Held(rules, bool(there) and all(held.hooked for held in there), bool(there))

    def write(self, rules: Sequence[Rule], families: frozenset[Family]) -> None:
        for family in sorted(families):
            saved = self._saved(family)
            if saved is None:
                raise SteerError(f"there is no {self._program(family, 'save')} any more: apt install iptables")
            held, jumps = read(saved, family)
            own = [rule for rule in rules if rule.family is family]
            if own or held.there:
                self._restore(family, text(own, jumps) if own else removal(saved, jumps))

    def foreign(self) -> tuple[ForeignMark, ...]:
        found = list[ForeignMark]()
        for family in sorted(WORDS):
            said = self._run([self._program(family, "save")], "")  # of the existing tables: naming a table creates it
            if said.status == 0:
                found += foreign(said.out, self._program(family, ""))
        return tuple(found)

    def _saved(self, family: Family) -> str | None:
        """None where the program does not exist, and so nothing of ours."""
        said = self._run([self._program(family, "save"), "-t", "mangle"], "")
        if said.status is None:
            return None
        if said.status != 0:
            raise SteerError(said.reason)
        return said.out

    def _restore(self, family: Family, given: str) -> None:
        said = self._run([self._program(family, "restore"), "-w", "2", "--noflush"], given)
        if said.status != 0:
            raise SteerError(said.reason)

    def _program(self, family: Family, what: str) -> str:
        return f"{WORDS[family]}tables{self._suffix}{'-' if what else ''}{what}"


def text(rules: Sequence[Rule], jumps: int) -> str:
    """Input of `iptables-restore --noflush`: our chain anew, and one jump to it. `jumps` exist already."""
    jump = [JUMP] * (not jumps) + [f"-D{JUMP[2:]}"] * (jumps - 1)
    return _in_mangle([f":{CHAIN} - [0:0]", *map(_line, rules), *jump])


def removal(saved: str, jumps: int) -> str:
    """Input that removes the chain and the jumps that we made. Raises SteerError if others jump to it."""
    for line in saved.splitlines():
        if line != JUMP and line.endswith((f"-j {CHAIN}", f"-g {CHAIN}")):
            raise SteerError(f"{line}: is not ours and jumps to our chain: remove it, so that our chain can be removed")
    return _in_mangle([*[f"-D{JUMP[2:]}"] * jumps, f"-F {CHAIN}", f"-X {CHAIN}"])


def _in_mangle(lines: Sequence[str]) -> str:
    return "\n".join(["*mangle", *lines, "COMMIT"]) + "\n"


def _line(rule: Rule) -> str:
    ports = ",".join(span_text(span, ":") for span in rule.ports)
    spared = " -m addrtype ! --dst-type LOCAL" if rule.spares_local else ""
    return (
        f"-A {CHAIN} -d {rule.network} -p {rule.protocol} -m multiport --dports {ports}{spared} "
        f"-j MARK --set-xmark {rule.mark:#x}/0xffffffff"
    )


def read(saved: str, family: Family) -> tuple[Held, int]:
    """What iptables-save shows of ours, and how many jumps lead to it."""
    lines = saved.splitlines()
    there = any(line.startswith(f":{CHAIN} ") for line in lines)
    jumps = lines.count(JUMP)
    own = [line for line in lines if line.startswith(f"-A {CHAIN} ")]
    return Held(tuple(_rule(line, family) or line for line in own), jumps == 1, there), jumps


def _rule(line: str, family: Family) -> Rule | None:
    """A rule of ours, or None."""
    words = line.split(" ")[2:]
    network = ip_network(EVERYTHING[family])
    try:
        if words[0] == "-d":
            network, words = ip_network(words[1]), words[2:]
        spared = ["-m", "addrtype", "!", "--dst-type", "LOCAL"]
        if words[6:11] == spared:
            del words[6:11]
        elif network.prefixlen < network.max_prefixlen:
            return None
        p, protocol, m, multiport, dports, ports, j, target, set_mark, mark = words
        if " ".join([p, m, multiport, dports, j, target, set_mark]) != SHAPE:
            return None
        value, _, mask = mark.partition("/")
        spans = tuple(_span(part) for part in ports.split(","))
        return Rule(network, Protocol(protocol), spans, int(value, 16)) if int(mask, 16) == WHOLE else None
    except (ValueError, IndexError):
        return None


def _span(told: str) -> Span:
    first, _, last = told.partition(":")
    return int(first), int(last or first)


def foreign(saved: str, program: str) -> Iterator[ForeignMark]:
    """Rules of others that write marks."""
    for line in saved.splitlines():
        words = line.split()
        if not line.startswith("-A ") or line.startswith(f"-A {CHAIN} "):
            continue
        for word, mark in pairwise(words):
            if word == "--set-xmark":
                value, _, mask = mark.partition("/")
                yield ForeignMark(f"{program} {line}", _number(value), _number(mask or "0xffffffff") or 0)


def _number(told: str) -> int | None:
    try:
        return int(told, 0)
    except ValueError:
        return None
