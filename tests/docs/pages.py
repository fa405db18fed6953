"""What a Markdown page holds that can be wrong: blocks of code, spans of code, links, headings."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_OPERATORS = {"&&", "||", "|", ";", "&"}


@dataclass(frozen=True, slots=True)
class Block:
    """`language` is what its fence says, `indented` for one without a fence."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        begin = number
        if lines[number].lstrip().startswith("```"):  # in a list it is indented
            end = next(n for n in range(number + 1, len(lines)) if lines[n].lstrip().startswith("```"))
            text = textwrap.dedent("\n".join(lines[begin + 1 : end]))
            yield Block(page, begin + 2, lines[number].lstrip()[3:].strip(), text)
            number = end
        elif lines[number].startswith("    ") and (not lines[number - 1].strip() or lines[number - 1].startswith("#")):
            while number + 1 < len(lines) and lines[number + 1].startswith("    "):
                number += 1
            yield Block(page, begin + 1, "indented", "\n".join(line[4:] for line in lines[begin : number + 1]))
        number += 1


def prose(page: Path) -> str:
    """The page without its blocks."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for block in blocks(page):
        for number in range(block.line - 1, block.line - 1 + block.text.count("\n") + 1):
            lines[number] = ""
    return "\n".join(line for line in lines if not line.lstrip().startswith("```"))


def spans(page: Path) -> list[str]:
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose(page))]


def links(page: Path) -> list[str]:
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """As the forges make them out of headings."""
    found = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def commands(line: str) -> list[list[str]]:
    """The words of each command of a shell's line, without comment and redirection."""
    lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    words = iter(lexer)
    for word in words:
        if word in _OPERATORS:
            found.append([])
        elif word in {">", ">>", "<"}:
            next(words)
        else:
            found[-1].append(word)
    return [words for words in found if words]
