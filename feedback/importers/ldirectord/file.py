"""ldirectord.cf as virtual servers with their directives, each value as ldirectord 4.12.0 reads it.

A virtual server is a line that begins with `virtual`, and the lines behind it that begin with four blanks or a tab. A
blank line ends it. In these lines everything after a `#` is ignored; elsewhere only a line that begins with `#` is a
comment. ldirectord searches a value for what it needs and ignores the rest: of `600 sec` it takes 600. A line that it
refuses keeps it from starting at all; here only that line is lost, with a remark.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from feedback.importers.draft import ImportFormatError, Remark
from feedback.refusals import RefusalError

NOT_STARTED = "ldirectord does not start with it"
SECRET = {"login", "passwd", "secret"}  # remarks go to terminals and logs

CHECK_TYPES = {"connect", "negotiate", "ping", "off", "on", "external", "external-perl"}
CHECKED_SERVICES = {"dns", "ftp", "http", "https", "http_proxy", "imap", "imaps", "ldap", "ldaps", "nntp", "mysql"}
CHECKED_SERVICES |= {"none", "oracle", "pop", "pops", "radius", "pgsql", "sip", "smtp", "submission", "simpletcp"}
LINE_MAX = 4096  # longer ones are no configuration, and patterns would take their time over them

_VIRTUAL = re.compile(r"virtual(6?)\s*=\s*(.*)", re.ASCII)
_INSIDE = re.compile(r" {4,}(.+)")
_PAIR = re.compile(r"([A-Za-z0-9-]+)\s*=\s*(.*)", re.ASCII)
Parse = Callable[[str], str]


class RefusedError(RefusalError):
    """A value that ldirectord does not take: what it expects."""


@dataclass(frozen=True, slots=True)
class Word:
    line: int
    value: str


@dataclass(slots=True)
class Virtual:
    line: int
    where: str
    six: bool
    words: dict[str, Word] = field(default_factory=dict)
    reals: list[Word] = field(default_factory=list)


@dataclass(slots=True)
class File:
    words: dict[str, Word] = field(default_factory=dict)
    virtuals: list[Virtual] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)

    def said(self, line: int, name: str, value: str, why: str, *, note: bool = False) -> None:
        """A `note` says what ldirectord does, where we do the same."""
        shown = "..." if name in SECRET else value
        self.remarks.append(Remark(line, f"{name}={shown}: {why}", note=note))


def read_file(text: str) -> File:
    """Raises ImportFormatError where it is no ldirectord.cf."""
    file = File()
    inside: Virtual | None = None
    for number, raw in enumerate(text.split("\n"), 1):
        raw = raw.removesuffix("\r")
        if len(raw) > LINE_MAX:
            file.remarks.append(Remark(number, f"left out: a line of {len(raw)} characters"))
            continue
        if inside is not None:
            if re.match(r"\s*#", raw):
                continue
            if found := _INSIDE.fullmatch(raw.partition("#")[0].replace("\t", "    ")):
                _word(file, inside, number, found[1])
                continue
            inside = None
        if not raw.strip() or re.match(r"\s*#", raw):
            continue
        if found := _VIRTUAL.match(raw):
            inside = Virtual(number, found[2], bool(found[1]))
            file.virtuals.append(inside)
        else:
            _global(file, number, raw)
    if not file.virtuals:
        raise ImportFormatError("it has no virtual=: is it an ldirectord.cf?")
    return file


def _word(file: File, virtual: Virtual, number: int, text: str) -> None:
    found = _PAIR.match(text)
    name, value = (found[1], found[2]) if found else ("", text)
    if name in ("real", "real6"):
        if (name == "real6") != virtual.six:
            file.said(number, name, value, f"left out: a virtual6 has real6, a virtual has real; {NOT_STARTED}")
        else:
            virtual.reals.append(Word(number, value))
        return
    _take(file, virtual.words, VIRTUAL_WORDS, number, name, value)


def _global(file: File, number: int, text: str) -> None:
    found = _PAIR.match(text)
    if found is None and text.split() == ["supervised"]:
        file.words["supervised"] = Word(number, "yes")
        return
    if found is None and not file.virtuals and not file.words and not file.remarks:
        raise ImportFormatError(f"line {number}: expected NAME=VALUE, as in ldirectord.cf")
    name, value = (found[1], found[2]) if found else ("", text.strip())
    _take(file, file.words, GLOBAL_WORDS, number, name, value)


def _take(file: File, words: dict[str, Word], known: dict[str, Parse], number: int, name: str, value: str) -> None:
    if name not in known:
        said = f"{name}=" if name else ""
        shown = "..." if name in SECRET else value
        file.remarks.append(Remark(number, f"{said}{shown}: left out: it is unknown here; {NOT_STARTED}"))
        return
    try:
        words[name] = Word(number, known[name](value))
    except RefusedError as error:
        file.said(number, name, value, f"left out: expected {error}; {NOT_STARTED}")


# --- values -----------------------------------------------------------------------------------------------------------


def _any(value: str) -> str:
    return value


def _some(value: str) -> str:
    if not value:
        raise RefusedError("a value")
    return value


def _positive(value: str) -> str:
    found = re.search(r"[0-9]+", value)
    if found is None or not int(found[0][:20]):
        raise RefusedError("a number above 0")
    return found[0][:20]


def _number(value: str) -> str:
    if (found := re.search(r"[0-9]+", value)) is None:
        raise RefusedError("a number")
    return found[0][:20]


def _port(value: str) -> str:
    if not 0 < int(_number(value)) < 65536:
        raise RefusedError("a port, 1 to 65535")
    return _number(value)


def _yes_or_no(value: str) -> str:
    if value not in ("yes", "no"):
        raise RefusedError("yes or no, and nothing behind it")
    return value


def _quoted(value: str) -> str:
    """The text from the first quote to the last one in the line."""
    found = re.match(r'"(.*)"', value)
    if found is None or not found[1]:
        raise RefusedError("text in double quotes")
    return found[1]


def _maybe_quoted(value: str) -> str:
    found = re.match(r'"(.*)"', value)
    return _some(found[1] if found else value)


def _one_of(words: set[str], *, fold: bool = False) -> Parse:
    def parse(value: str) -> str:
        found = re.search(r"[\w-]+" if "-" in "".join(words) else r"\w+", value, re.ASCII)
        word = (found[0].upper() if fold else found[0]) if found else ""
        if word not in words:
            raise RefusedError(f"one of {', '.join(sorted(words))}")
        return word

    return parse


def _check_type(value: str) -> str:
    """A number anywhere in it counts first."""
    if found := re.search(r"[0-9]+", value):
        return found[0][:20]
    return _one_of(CHECK_TYPES)(value)


def _scheduler(value: str) -> str:
    if (found := re.search(r"[a-z]+", value)) is None:
        raise RefusedError("lowercase letters")
    return found[0]


def _first_word(value: str) -> str:
    if (found := re.search(r"\S+", value)) is None:
        raise RefusedError("a word")
    return found[0]


def _host(value: str) -> str:
    found = re.search(r'"?([^"]*)"?', value)
    return found[1] if found else ""


_MAIL: dict[str, Parse] = {"emailalert": _some, "emailalertfreq": _number, "emailalertstatus": _any, "smtp": _some}
_TIMES: dict[str, Parse] = dict.fromkeys(("checktimeout", "negotiatetimeout", "checkinterval", "checkcount"), _positive)
_TIMES |= {"failurecount": _positive}
VIRTUAL_WORDS: dict[str, Parse] = {
    **_MAIL,
    **_TIMES,
    **dict.fromkeys(("receive", "login", "passwd", "database", "secret", "load"), _quoted),
    **dict.fromkeys(("ops", "quiescent", "cleanstop"), _yes_or_no),
    **dict.fromkeys(("servicename", "comment", "fallback", "fallback6"), _any),
    **dict.fromkeys(("checkcommand", "fallbackcommand", "monitorfile"), _maybe_quoted),
    "request": lambda value: "/" + _quoted(value).removeprefix("/"),
    "checktype": _check_type,
    "checkport": _port,
    "scheduler": _scheduler,
    "persistent": _number,
    "schedflags": _first_word,
    "netmask": _any,
    "protocol": _one_of({"tcp", "udp", "fwm"}),
    "service": _one_of(CHECKED_SERVICES),
    "httpmethod": _one_of({"GET", "HEAD"}, fold=True),
    "virtualhost": _host,
}
GLOBAL_WORDS: dict[str, Parse] = {
    **_MAIL,
    **_TIMES,
    **dict.fromkeys(("autoreload", "fork", "supervised", "quiescent", "readdquiescent", "cleanstop"), _yes_or_no),
    **dict.fromkeys(("fallback", "fallback6", "execute"), _any),
    **dict.fromkeys(("callback", "logfile"), _quoted),
    **dict.fromkeys(("fallbackcommand", "emailalertfrom", "maintenancedir"), _some),
}
