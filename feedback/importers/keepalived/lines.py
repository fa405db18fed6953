"""keepalived.conf as lines, after comments, conditions, definitions, sequences and includes.

Knows the form, not the meaning of words. Each line that comes out is one brace, or has none outside of quotes. What
2.2.7 does (lib/parser.c) is done here: a `#` or `!` outside of quotes begins a comment wherever it stands;
`$NAME=VALUE` at the start of a line defines, over several lines where they end in `\\`; `$NAME` and `${NAME}` are
replaced in the text, before it is split; `@ID` keeps a line for the instance of that name, `@^ID` for all others;
`~SEQ` and `~LST` repeat the rest of their line. It ends for every file: files, lines and their expansions are bounded.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from feedback.importers.draft import ImportFormatError, Remark

LINES_MAX = 200_000  # after includes and repetitions
LINE_MAX = 1023  # keepalived's own: it reads the rest of a longer one as the next line
ROUNDS_MAX = 64  # of substitution in one line; keepalived's only bound is the line's length
REPEATS_MAX = 1024
INCLUDES_MAX = 16  # deep
BYTES_MAX = 16 * 1024 * 1024  # of all files together

# Given the pattern of an `include` and the file that has it, the files that match, each with its text. What cannot be
# read raises OSError.
Include = Callable[[str, str], Sequence[tuple[str, str]]]

BLANKS = " \t"
_DEFINITION = re.compile(r"\$([A-Za-z_]\w*)=[ \t]*(.*)", re.ASCII | re.DOTALL)
_USE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*)(?=[ \t,)]|\Z))", re.ASCII)
_INCLUDE = re.compile(r"include[rmwba]?\s+(.*)", re.DOTALL)
_SEQUENCE = re.compile(r"~SEQ(x?)\s*\(\s*([^\s,)]+)\s*,([^)]*)\)\s*(.*)", re.DOTALL)
_LIST = re.compile(r"~LST\s*\(((?:[^(){}]|\{[^{}]*\})*)\)\s*(.*)", re.DOTALL)
_ITEM = re.compile(r"\s*\{([^{}]*)\}|([^,]*)")


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    text: str
    file: str = ""  # "" is the file itself, a name one that it includes


@dataclass(slots=True)
class _Repeated:
    """A line that comes with definitions of its own."""

    line: Line
    values: dict[str, str] = field(default_factory=dict)


class Lines:
    """An iterator. `remarks` grows while it is read."""

    def __init__(self, text: str, include: Include | None = None, instance: str = "", name: str = "") -> None:
        self.remarks: list[Remark] = []
        self._include, self._instance, self._name = include, instance, name
        self._files: list[Iterator[Line]] = [_physical(text, "")]
        self._bytes, self._count = len(text), 0
        self._waiting: deque[_Repeated] = deque()  # what comes before the next line of a file
        self._values: dict[str, list[str]] = {"_HASH": ["#"], "_BANG": ["!"], "_INSTANCE": [instance]}
        self._defining: list[str] | None = None  # the definition whose next line is awaited

    def __iter__(self) -> Iterator[Line]:
        while (line := self._next()) is not None:
            if self._defining is not None:
                self._define_more(line.text)
            elif line.text and (text := self._interpreted(line)):
                yield self._first(Line(line.number, text, line.file))

    def remark(self, line: Line, text: str, *, note: bool = False) -> None:
        self.remarks.append(Remark(line.number, text, line.file, note))

    def _next(self) -> Line | None:
        self._count += 1
        if self._count > LINES_MAX:
            raise ImportFormatError(f"more than {LINES_MAX} lines, with all includes and repetitions")
        if self._waiting:
            repeated = self._waiting.popleft()
            self._values |= {name: [value] for name, value in repeated.values.items()}
            return repeated.line
        while self._files:
            line = next(self._files[-1], None)
            if line is None:
                self._files.pop()
                continue
            # Twice: 2.2.7 writes what is left to a copy, and reads that. So `\#` does not help there.
            return Line(line.number, decommented(decommented(line.text)), line.file)
        return None

    def _interpreted(self, line: Line) -> str:
        """The line's text with its definitions replaced, or "" where nothing is left to be read."""
        text = line.text
        for _ in range(ROUNDS_MAX):
            if text.startswith("@"):
                text = self._for_instance(text, line)
            if found := _DEFINITION.fullmatch(text):
                self._define(found[1], found[2])
                return ""
            if text.startswith(("~SEQ", "~LST")):
                return self._repeat(text, line)
            new = self._replaced(text, line)
            if new == text:
                break
            text = decommented(new)
        if found := _INCLUDE.fullmatch(text):
            self._open(found[1].strip(BLANKS), line)
            return ""
        return text

    def _first(self, line: Line) -> Line:
        """Up to the first brace outside of quotes. The rest is read as a line of its own, conditions and all."""
        at = _brace(line.text)
        cut = 1 if at == 0 else len(line.text) if at is None else at
        rest = line.text[cut:].strip(BLANKS)
        if rest:
            self._waiting.appendleft(_Repeated(Line(line.number, rest, line.file)))
        return Line(line.number, line.text[:cut].strip(BLANKS), line.file)

    def _for_instance(self, text: str, line: Line) -> str:
        """What follows `@ID`, where it is for this instance."""
        name, _, rest = re.sub(r"[ \t]+", " ", text, count=1).partition(" ")
        others = name.startswith("@^")
        wanted = name[2:] if others else name[1:]
        if rest and (bool(self._instance) and wanted == self._instance) != others:
            return rest.lstrip(BLANKS)
        known = f"instance {self._instance!r}" if self._instance else "no --instance was named"
        self.remark(line, f"{name}: a conditional line: left out: {known}", note=bool(self._instance))
        return ""

    # --- definitions --------------------------------------------------------------------------------------------------

    def _define(self, name: str, value: str) -> None:
        if not value.endswith("\\"):
            self._values[name] = [value]
            return
        first = value[:-1].rstrip(BLANKS)
        self._values[name] = self._defining = [first] if first else []

    def _define_more(self, text: str) -> None:
        """A blank line ends a definition, as does one without a backslash."""
        assert self._defining is not None
        lines, more = self._defining, text.endswith("\\")
        part = text[:-1].rstrip(BLANKS) if more else text
        if part:
            lines.append(part)
        if not more:
            self._defining = None

    def _replaced(self, text: str, line: Line) -> str:
        """One definition replaced, the first. One of several lines stands for its first; the others follow, and it has
        to end the line."""
        for found in _USE.finditer(text):
            name = found[1] or found[2]
            lines = self._values.get(name)
            if lines is None or (len(lines) > 1 and found.end() < len(text)):
                continue
            if len(text) + len(lines[0] if lines else "") > LINE_MAX:
                self.remark(line, f"${name}: the line would be longer than {LINE_MAX} characters: not replaced")
                return text
            self._waiting.extendleft(_Repeated(Line(line.number, later, line.file)) for later in reversed(lines[1:]))
            return text[: found.start()] + (lines[0] if lines else "") + text[found.end() :]
        return text

    # --- lines that repeat --------------------------------------------------------------------------------------------

    def _repeat(self, text: str, line: Line) -> str:
        rows, rest = self._sequence(text) if text.startswith("~SEQ") else _listed(text)
        if not rows or len(rows) > REPEATS_MAX:
            self.remark(line, f"{text[:40]}: left out: expected at most {REPEATS_MAX} values")
            return ""
        self._waiting.extendleft(_Repeated(Line(line.number, rest, line.file), row) for row in reversed(rows))
        return ""

    def _sequence(self, text: str) -> tuple[list[dict[str, str]], str]:
        """`~SEQ(i, FIRST, STEP, LAST)`, without step, or the last one alone."""
        found = _SEQUENCE.fullmatch(text)
        if found is None:
            return [], ""
        words = [self._replaced(w.strip(), Line(0, "")) for w in found[3].split(",")]
        try:
            numbers = [int(word, 0) for word in words]
        except ValueError:
            return [], ""
        if len(numbers) == 1:
            numbers = [-1 if numbers[0] < 0 else 1, numbers[0]]
        first, last = numbers[0], numbers[-1]
        step = numbers[1] if len(numbers) == 3 else 1 if first <= last else -1
        if len(numbers) > 3 or step == 0 or (last - first) * step < 0 or (last - first) // step >= REPEATS_MAX:
            return [], ""
        values = range(first, last + (1 if step > 0 else -1), step)
        return [{found[2]: format(v, "x") if found[1] else str(v)} for v in values], found[4]

    # --- included files -----------------------------------------------------------------------------------------------

    def _open(self, pattern: str, line: Line) -> None:
        why = ""
        if self._include is None:
            why = "import that file by itself"
        elif len(self._files) > INCLUDES_MAX:
            why = f"not followed: included more than {INCLUDES_MAX} deep"
        else:
            try:
                found = self._include(pattern.strip('"'), line.file or self._name)
                why = "" if found else "no such file"
            except OSError as error:
                why = f"cannot be read: {error.strerror or error}"
        if why:
            self.remark(line, f"include {pattern}: {why}")
            return
        self._bytes += sum(len(text) for _, text in found)
        if self._bytes > BYTES_MAX:
            raise ImportFormatError(f"more than {BYTES_MAX} bytes, with all includes")
        self._files += [_physical(text, name) for name, text in reversed(found)]


def _physical(text: str, file: str) -> Iterator[Line]:
    """The lines of a file. Not by str.splitlines(), for which a form feed ends a line."""
    for number, raw in enumerate(text.split("\n"), 1):
        for start in range(0, len(raw) or 1, LINE_MAX):
            yield Line(number, raw[start : start + LINE_MAX].rstrip("\r"), file)


def decommented(line: str) -> str:
    """The line without its comment and the blanks around it. `\\#` and `\\!` are no comment; a backslash at the end
    stays."""
    found: list[str] = []
    quoted, position = False, 0
    line = line.strip(BLANKS)
    while position < len(line):
        sign = line[position]
        if sign == '"':
            quoted = not quoted
        elif sign == "\\" and position + 1 < len(line):
            position += 1
            sign = line[position] if line[position] in "#!" and not quoted else sign + line[position]
        elif sign in "#!" and not quoted:
            # keepalived looks on for a backslash at the end: it continues a definition from within a comment
            return "".join(found).rstrip(BLANKS) + ("\\" if line.endswith("\\") else "")
        found.append(sign)
        position += 1
    text = "".join(found)
    return text[:-1].rstrip(BLANKS) + "\\" if text.endswith("\\") else text.rstrip(BLANKS)


def _brace(text: str) -> int | None:
    """Where the first brace is that no quotes enclose. One that begins a line counts in any case."""
    if text[0] in "{}":
        return 0
    position = 0
    while position < len(text):
        if text[position] in "{}":
            return position
        if text[position] == '"':
            position = text.find('"', position + 1)
            if position < 0:
                return None
        position += 1
    return None


def _listed(text: str) -> tuple[list[dict[str, str]], str]:
    """`~LST({a, b}, {1, 2}, {3, 4}) REST`, or `~LST(a, 1, 2) REST`."""
    found = _LIST.fullmatch(text)
    if found is None:
        return [], ""
    items = [(m[1] if m[1] is not None else m[2]).strip() for m in _ITEM.finditer(found[1] + ",") if m[0].strip()]
    rows = [[value.strip() for value in item.split(",")] for item in items]
    if len(rows) < 2 or any(len(row) > len(rows[0]) for row in rows):
        return [], ""
    names = rows[0]
    return [dict(zip(names, row + [""] * (len(names) - len(row)), strict=True)) for row in rows[1:]], found[2]
