"""Advice: an existing agent's word on its server over HAProxy's agent-check. Pure: lines in, a state out.

Owns the grammar and what stays from one line to the next: HAProxy keeps a percentage, `drain` and `down` until the
agent reverts them, and agents in the field rely on it. An agent that cannot be reached changes nothing; its age tells.

Source: HAProxy's configuration.txt under agent-check, and src/tcpcheck.c: words are separated by spaces, tabs or
commas, case does not count, the last of each kind wins, and a line without its end is no line.
"""

from __future__ import annotations

from math import inf

from feedback.refusals import RefusalError

LINE_BYTES_MAX = 1024
RATIO_MAX = 2.56  # HAProxy's weights end at 256, of a usual 100

ADMINISTRATIVE = {"ready": "", "drain": "drain", "maint": "maint"}
OPERATIONAL = {"up": "", "down": "down", "fail": "fail", "stopped": "stopped"}


class AdviceError(RefusalError):
    """A line that says nothing: what was wrong with it."""


class Advice:
    """The state of one server's agent. `ratio` is the part of the usual weight that it wants, `bar` the words that keep
    it out of service, '' if none; `heard_at` is when it was last understood."""

    __slots__ = ("_administrative", "_operational", "_weight", "heard_at", "ratio")

    def __init__(self) -> None:
        self.ratio = 1.0
        self.heard_at = -inf
        self._weight: int | None = None
        self._administrative = self._operational = ""

    def observe(self, line: bytes, now: float) -> None:
        """Take a line with its end. Raises AdviceError where no word of it is known; nothing has changed then."""
        words = _words(line)
        known = [word for word in words if self._take(word)]
        if not known:
            raise AdviceError(f"nothing understood in {line[:60]!r}")
        self.heard_at = now

    @property
    def heard(self) -> bool:
        return self.heard_at > -inf

    def bar(self) -> str:
        words = [self._operational, self._administrative, "0 %" if self.heard and self.ratio == 0 else ""]
        said = " ".join(w for w in words if w)
        return f"its agent says {said}" if said else ""

    def of(self, base_weight: int) -> float:
        """The part of a base weight: an absolute weight is one of the same scale."""
        if self._weight is None:
            return self.ratio
        return min(RATIO_MAX, self._weight / base_weight) if base_weight else 1.0

    def _take(self, word: str) -> bool:
        if word in ADMINISTRATIVE:
            self._administrative = ADMINISTRATIVE[word]
        elif word in OPERATIONAL:
            self._operational = OPERATIONAL[word]
        else:
            return self._take_weight(word)
        return True

    def _take_weight(self, word: str) -> bool:
        number = word.removeprefix("weight:")
        relative = number.endswith("%")
        digits = number.removesuffix("%")
        if not (digits.isascii() and digits.isdecimal()) or len(digits) > 6 or (not relative and number == word):
            return word.startswith("maxconn:")  # known, and no business of ours: a threshold is learned
        self._weight = None if relative else min(256, int(digits))
        self.ratio = min(RATIO_MAX, int(digits) / 100) if relative else float(self._weight != 0)
        return True


def _words(line: bytes) -> list[str]:
    """Raises AdviceError for a line without its end."""
    ends = [line.find(end) for end in (b"\r", b"\n") if end in line]
    if not ends:
        raise AdviceError("a line without its end")
    text = line[: min(ends)].decode("ascii", "replace").lower().partition("#")[0]
    return text.replace(",", " ").split()
