"""Words and numbers of keepalived.conf, as keepalived 2.2.7 reads them (lib/parser.c), its faults included.

A number followed by other text is read up to that text, with a warning in its log; so `5s` is 5, and `abc` is 0. A time
followed by other text is scaled before it is read: `6s` is six microseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

WHITE = " \t\f\n\r\v"
_WORD = re.compile(r'"([^"]*)"|([^ \t\f\n\r\v"]+)|(")')
_NUMBER = re.compile(r"[ \t\f\n\r\v]*(-?)\+?([0-9]*)(.*)", re.DOTALL)
_TIMER = re.compile(r"([0-9]*)(?:\.([0-9]*))?(.*)", re.DOTALL)
DIGITS_MAX = 20  # more than any range here: Python would go on for thousands
MICROSECONDS = 1_000_000
ESCAPES = {"a": "\a", "b": "\b", "E": "\x1b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def words(text: str) -> list[str]:
    """Split at blanks; a quoted word has no quotes any more. What follows a quote without its other half is lost."""
    found: list[str] = []
    for quoted, plain, unmatched in _WORD.findall(text):
        if unmatched:
            break
        found.append(plain or quoted)
    return found


def shell_words(text: str) -> list[str] | None:
    """Split as a script's command is: with quotes of both kinds inside of words, and backslashes. None where one of
    them is not ended."""
    found: list[str] = []
    word: list[str] | None = None
    quote, position = "", 0
    while position < len(text):
        sign = text[position]
        if sign == "\\":
            if position + 1 == len(text):
                return None
            plain, position = _escaped(text, position + 1)
            word = [*(word or ()), plain]
            continue
        if sign == quote or (not quote and sign in "\"'"):
            quote = "" if quote else sign
            word = word or []
        elif sign in WHITE and not quote:
            found += ["".join(word)] if word is not None else []
            word = None
        else:
            word = [*(word or ()), sign]
        position += 1
    if quote:
        return None
    return found + (["".join(word)] if word is not None else [])


def _escaped(text: str, at: int) -> tuple[str, int]:
    """The character that the escape at `at` (behind its backslash) stands for, and where it ends."""
    if found := re.compile(r"x([0-9A-Fa-f]+)").match(text, at):
        return chr(int(found[1][-2:], 16)), found.end()
    if found := re.compile(r"[0-7]{1,3}").match(text, at):
        return chr(int(found[0], 8) & 0xFF), found.end()
    if text[at] == "c" and at + 1 < len(text):
        return chr(ord(text[at + 1]) & 0x1F), at + 2
    return ESCAPES.get(text[at], text[at]), at + 1


@dataclass(frozen=True, slots=True)
class Number:
    """`value` is None where keepalived ignores the line; `exact` is False where something stood around the number."""

    value: int | None
    exact: bool = True


def number(text: str, least: int, most: int, *, strict: bool = False) -> Number:
    """`strict`: where keepalived ignores a number with something behind it, instead of warning."""
    found = _NUMBER.fullmatch(text)
    assert found is not None
    sign, digits, rest = found[1], found[2][:DIGITS_MAX], found[3]
    value = int(digits or "0")
    exact = bool(digits) and not rest
    if sign or not least <= value <= most or (strict and not exact):
        return Number(None, exact=False)
    return Number(value, exact)


@dataclass(frozen=True, slots=True)
class Timer:
    seconds: float | None
    exact: bool = True


def timer(text: str, *, zero: bool = False, most_seconds: float = 2**64 / MICROSECONDS) -> Timer:
    """A time in seconds, with up to six decimals. `zero`: whether that is one."""
    found = _TIMER.fullmatch(text)
    assert found is not None
    whole, part, rest = found[1][:DIGITS_MAX], (found[2] or "")[:6], found[3]
    if text.startswith("-") or not (whole or part or rest):
        return Timer(None, exact=False)
    # The zeros that make microseconds of it are put behind whatever is there.
    microseconds = int((whole + (part if rest else part.ljust(6, "0"))) or "0")
    if not (microseconds or zero) or microseconds > most_seconds * MICROSECONDS:
        return Timer(None, exact=False)
    return Timer(microseconds / MICROSECONDS, exact=not rest)


def switched(text: str) -> bool | None:
    """None where it is neither."""
    return {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}.get(text)
