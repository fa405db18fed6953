"""keepalived.conf as a tree of lines and blocks. Knows the form, no word's meaning.

Source: keepalived.conf(5): words are separated by blanks, `"` quotes, `#` and `!` begin a comment, `{` opens a block at
the end of a line or alone on the next, `$NAME=VALUE` defines what `$NAME` and `${NAME}` stand for, `@ID` makes a line
conditional.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from feedback.importers.draft import ImportFormatError, Remark

DEPTH_MAX = 16
SUBSTITUTIONS_MAX = 32

_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|([#!].*)|([{}])|([^\s"{}]+)')
_DEFINITION = re.compile(r"\$(\w+)=(.*)")


@dataclass(slots=True)
class Node:
    """A line, with what its block holds if it opens one."""

    line: int
    words: list[str]
    block: list[Node] | None = None

    @property
    def name(self) -> str:
        return self.words[0]

    def word(self, position: int, absent: str = "") -> str:
        return self.words[position] if len(self.words) > position else absent


@dataclass(slots=True)
class Tree:
    nodes: list[Node] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)


def read(text: str) -> Tree:
    """Raises ImportFormatError at a brace without its other half."""
    tree = Tree()
    open_blocks: list[list[Node]] = [tree.nodes]
    values: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if found := _DEFINITION.fullmatch(line):
            values[found[1]] = found[2]
            if found[2].endswith("\\"):
                tree.remarks.append(Remark(number, f"${found[1]}: a definition of several lines: not carried over"))
            continue
        if line.startswith("@"):
            tree.remarks.append(Remark(number, f"{line.split()[0]}: a conditional line: left out"))
            continue
        _take(_split(_substituted(line, values)), number, open_blocks, tree)
    if len(open_blocks) > 1:
        raise ImportFormatError(f"{len(open_blocks) - 1} blocks are not closed with a }}")
    return tree


def _take(words: list[tuple[str, bool]], number: int, open_blocks: list[list[Node]], tree: Tree) -> None:
    """`words`: each with whether it was quoted, for a quoted brace is none."""
    line: list[str] = []
    for word, quoted in words:
        if word == "{" and not quoted:
            if line:
                open_blocks[-1].append(Node(number, line, []))
            elif not open_blocks[-1] or open_blocks[-1][-1].block is not None:
                raise ImportFormatError(f"line {number}: a {{ that belongs to nothing")
            else:
                open_blocks[-1][-1].block = []
            block = open_blocks[-1][-1].block
            assert block is not None
            open_blocks.append(block)
            if len(open_blocks) > DEPTH_MAX:
                raise ImportFormatError(f"line {number}: blocks deeper than {DEPTH_MAX}")
            line = []
        elif word == "}" and not quoted:
            if line:
                open_blocks[-1].append(Node(number, line))
                line = []
            if len(open_blocks) == 1:
                raise ImportFormatError(f"line {number}: a }} too many")
            open_blocks.pop()
        else:
            line.append(word)
    if line:
        open_blocks[-1].append(Node(number, line))
        if line[0] == "include":
            tree.remarks.append(Remark(number, f"include {' '.join(line[1:])}: import that file by itself"))


def _split(line: str) -> list[tuple[str, bool]]:
    found = []
    for quoted, comment, brace, plain in _WORD.findall(line):
        if comment:
            break
        found.append((brace or plain, False) if brace or plain else (re.sub(r"\\(.)", r"\1", quoted), True))
    return found


def _substituted(line: str, values: dict[str, str]) -> str:
    for _ in range(SUBSTITUTIONS_MAX):
        new = re.sub(r"\$\{(\w+)\}|\$(\w+)(?=\s|$)", lambda m: values.get(m[1] or m[2], m[0]), line)
        if new == line or len(new) > 10_000:
            break
        line = new
    return line
