"""What the guides say is done: each command is typed, as it stands and in its order, on machines with Debian's systemd,
the real kernel's IPVS and a web server behind (machines.py). The way through the pages is itinerary.py.

Without a kernel it is held that nothing was left out: each block of commands is visited, and each command that stands
in a sentence is typed somewhere, with its options. `make test` walks through the installation and the first director,
`make test-all` the whole way."""

from __future__ import annotations

import functools
import re
import signal
import time
from collections.abc import Iterator

import pytest

from tests.docs.itinerary import DAEMONS, ELSEWHERE, INSTEAD, ITINERARY, ONCE, STATUS, WATCHED, Also, Stop
from tests.docs.machines import Machine, Site
from tests.docs.pages import PAGES, Block, blocks, commands, spans
from tests.docs.test_commands import PROGRAMS, lines

PAGE = {page.name: page for page in reversed(PAGES)}  # README.md is that of the root: the index has no commands
SOON_SECONDS = 60.0


@functools.cache
def command_blocks(page: str) -> tuple[Block, ...]:
    return tuple(block for block in blocks(PAGE[page]) if lines(block))


def typed(block: Block) -> list[str]:
    """Its lines of commands, whole, without the comments behind them and without what they print."""
    text = block.text.replace("\\\n", " ")
    found = [
        line.removeprefix("$ ") for line in text.splitlines() if line.split(" ")[0] in PROGRAMS or line[:2] == "$ "
    ]
    return [re.sub(r"\s+# .*$", "", line) for line in found]


def place(stop: Stop, block: Block, line: str) -> tuple[str, ...]:
    """Where it is typed: where the stop is, or where the comment behind the line says."""
    comment = next((said.partition("# ")[2] for said in block.text.splitlines() if said.startswith(line)), "")
    return ("rs1",) if comment.startswith("real server") else stop.on


def _visits() -> dict[int, Block]:
    """The block of each stop: the first one of its page that begins so and has not been visited."""
    found: dict[int, Block] = {}
    for number, stop in enumerate(ITINERARY):
        if isinstance(stop, Stop):
            left = (b for b in command_blocks(stop.page) if b not in found.values() and b.text.startswith(stop.first))
            block = next(left, None)
            assert block is not None, f"{stop}: no such block on that page"
            found[number] = block
    return found


VISITS = _visits()


def test_every_block_of_commands_is_visited_in_the_order_of_its_page() -> None:
    everything = [block for page in PAGE for block in command_blocks(page)]
    left = [b for b in everything if b not in VISITS.values() and not set(typed(b)) <= set(ELSEWHERE)]
    assert [f"{b}: {b.text}" for b in left] == [], "on no machine"
    for page in PAGE:
        ordered = [b.line for n, b in VISITS.items() if b.page.name == page and not ITINERARY[n].sooner]  # type: ignore[union-attr]
        assert ordered == sorted(ordered), f"{page}: out of order"


def test_nothing_is_excused_that_no_page_says() -> None:
    said = {line for page in PAGE for block in command_blocks(page) for line in typed(block)}
    said |= {span for page in PAGES for span in spans(page)} | {s.line for s in ITINERARY if isinstance(s, Also)}
    assert (set(INSTEAD) | set(ELSEWHERE) | set(WATCHED) | set(STATUS) | DAEMONS | ONCE) - said == set()


def _gist(words: list[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Program and commands, and the options: arguments may differ."""
    named = [w for w in words[1:] if re.fullmatch(r"[a-z][a-z-]*", w)][:2] if words[0] == "feedback" else words[1:2]
    return (words[0], *named), frozenset(w.split("=")[0] for w in words if w.startswith("-") and len(w) > 1)


def _typed_somewhere() -> list[tuple[tuple[str, ...], frozenset[str]]]:
    whole = [line for block in VISITS.values() for line in typed(block)]
    whole += [stop.line for stop in ITINERARY if isinstance(stop, Also)]
    return [_gist(words) for line in whole if line not in ELSEWHERE for words in commands(line)]


SAID = sorted(
    {(page.name, span) for page in PAGES for span in spans(page) if span.split()[0] in PROGRAMS and " " in span}
)


@pytest.mark.parametrize(("page", "span"), SAID, ids=[f"{page}-{span}" for page, span in SAID])
def test_a_command_in_a_sentence_is_typed_somewhere(page: str, span: str) -> None:
    if span in ELSEWHERE:
        return
    for words in commands(re.sub(r"\b[A-Z]{2,}\b|\|\w+", "", span)):
        chain, options = _gist(words)
        fits = [t for t in _typed_somewhere() if t[0][: len(chain)] == chain and options <= t[1]]
        assert fits, f"{page}: `{span}` is typed nowhere"


class Walk:
    """Goes through the itinerary once; what was tokened for whom is what joins."""

    def __init__(self) -> None:
        self.site = Site()
        self.tokens: dict[str, str] = {}
        self.done = 0
        self.broken = ""

    def reach(self, number: int) -> None:
        """All up to this stop; a test of one stop alone walks there."""
        while self.done <= number:
            if self.broken:
                pytest.fail(f"not reached: {self.broken} failed")
            stop = ITINERARY[self.done]
            self.broken = str(stop)
            self._visit(self.done, stop)
            self.broken = ""
            self.done += 1

    def _visit(self, number: int, stop: Stop | Also) -> None:
        if stop.by_hand:
            stop.by_hand(self.site)
        if isinstance(stop, Also):
            ends = time.monotonic() + SOON_SECONDS
            seen = self._type(self.site[stop.on], stop.line, False)
            while not all(re.search(pattern, seen) for pattern in stop.shows) and time.monotonic() < ends:
                seen = self._type(self.site[stop.on], stop.line, False)
        else:
            directory = "/opt/feedback/source" if stop.page in ("install.md", "failure.md") else "/root"
            seen = ""
            for line in typed(VISITS[number]):
                for name in place(stop, VISITS[number], line)[: 1 if line in ONCE else None]:
                    seen += self._type(self.site[name], line, line in stop.soon, directory)
            ends = time.monotonic() + SOON_SECONDS
            while stop.soon and time.monotonic() < ends and not all(re.search(p, seen) for p in stop.shows):
                seen += "".join(self._type(self.site[stop.on[0]], line, True, directory) for line in stop.soon)
        for pattern in stop.shows:
            assert re.search(pattern, seen), f"{pattern!r} is not to be seen:\n{seen}"

    def _type(self, machine: Machine, line: str, soon: bool, directory: str = "/root") -> str:
        if line in ELSEWHERE:
            return ""
        text = INSTEAD.get(line, line)
        if " keys join " in text:  # which asks for it
            text = f"echo '{self.tokens[machine.name]}' | {text}"
        if line in WATCHED:
            until, key = WATCHED[line]
            status, seen = machine.watch(text, until, key)
            ended = (0, 130, -signal.SIGINT)  # the last: nsenter, which gets Ctrl-C as well
            assert until in seen and status in ended, f"{machine.name}: {line}: {status}\n{seen}"
            return seen
        if line in DAEMONS:
            machine.start(text)
            return ""
        ends = time.monotonic() + SOON_SECONDS
        done = machine.run(text, directory)
        while soon and done.returncode and time.monotonic() < ends:
            time.sleep(1)
            done = machine.run(text, directory)
        expected = STATUS.get(line, 0)
        assert done.returncode == expected, f"{machine.name}: {text}: {done.returncode}\n{done.stdout}{done.stderr}"
        if given := re.match(r"feedback keys token (\S+)", line):
            self.tokens[given[1]] = done.stdout.split()[-1]
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def walk() -> Iterator[Walk]:
    made = Walk()
    yield made
    made.site.close()


FIRST_DIRECTOR = next(n for n, s in enumerate(ITINERARY) if isinstance(s, Stop) and s.page == "console.md")


@pytest.mark.lab(seconds=2.5)
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(n, id=f"{n:02}-{stop}", marks=[pytest.mark.long] * (n >= FIRST_DIRECTOR))
        for n, stop in enumerate(ITINERARY)
    ],
)
def test_it_works_as_written(number: int, walk: Walk) -> None:
    walk.reach(number)
