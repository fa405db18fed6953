"""`feedback top`: what it shows at 80 columns, what its keys do, and that it leaves the terminal as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from feedback.cli.main import main
from feedback.cli.screen import SORTS, SPARK_WIDTH, Screen, Wish
from tests.cli.test_show import status
from tests.master import test_daemon
from tests.master.test_daemon import Site, run, until

site = test_daemon.site  # a fixture


def screen() -> Screen:
    made = Screen()
    made.update(status())
    return made


def text(made: Screen, width: int = 80, height: int = 24) -> list[str]:
    return [line.text for line in made.lines(width, height)]


def selected(made: Screen) -> str:
    (line,) = [t for t in text(made) if t.startswith("> ")]
    return line.split()[1]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_line_fits_the_width_and_the_height(width: int) -> None:
    made = screen()
    for height in (4, 6, 24):
        lines = text(made, width, height)
        assert len(lines) <= height
        assert max(map(len, lines)) <= width


def test_a_row_has_its_figures_within_80_columns() -> None:
    rows = [t for t in text(screen()) if "10.0.0.1" in t and "tcp" not in t]
    assert len(rows) == 2
    assert all(len(row) <= 80 and row.endswith("fresh") and "50%" in row for row in rows)


def test_a_wide_terminal_shows_the_load_of_late() -> None:
    made, known = Screen(), status()
    for load in (None, 0.0, 0.5, 1.0, 7.0):
        known["services"][0]["destinations"][0]["utilisation"] = load
        made.update(known)
    row = next(t for t in text(made, 100) if "10.0.0.11:80" in t and "tcp" not in t)
    assert row.endswith(" ▁▅██")
    assert "▁" not in "".join(text(made, 80))
    for _ in range(100):
        made.update(known)
    row = next(t for t in text(made, 100) if "10.0.0.11:80" in t and "tcp" not in t)
    assert row.count("█") == SPARK_WIDTH and len(row) <= 100


def test_a_long_address_is_shortened_and_the_state_still_shown() -> None:
    known = status()
    known["services"][0]["destinations"][0]["address"] = "[2001:db8:1234:5678:9abc:def0:1234:5678]:8080"
    made = Screen()
    made.update(known)
    row = next(t for t in text(made) if "[2001:db8" in t and "destinations" not in t)
    assert "5678]:8080" in row and row.endswith("fresh")


def test_the_selection_moves_stays_inside_and_follows_its_destination_through_a_sort() -> None:
    made = screen()
    assert selected(made) == "10.0.0.11:80"
    made.press("up")
    assert selected(made) == "10.0.0.11:80"
    made.press("down")
    made.press("down")
    assert selected(made) == "10.0.0.12:80"
    made.press("w")
    rows = [t for t in text(made) if ":80 " in t and "tcp" not in t]
    assert [r.split()[-9] if r.startswith(">") else r.split()[0] for r in rows][1] == "10.0.0.11:80"
    assert selected(made) == "10.0.0.12:80"


@pytest.mark.parametrize("key", SORTS)
def test_each_sort_is_named(key: str) -> None:
    made = screen()
    made.press(key)
    assert text(made)[0].endswith(f"by {SORTS[key][0]}")


def test_explain_shows_the_chain_and_goes_back() -> None:
    made = screen()
    made.press("e")
    shown = "\n".join(text(made))
    assert "10.0.0.11:80 in tcp:10.0.0.100:80: weight" in shown and "actuate" in shown
    made.press("e")
    assert "actuate" not in "\n".join(text(made))


def test_a_drain_is_asked_for_and_only_yes_is_yes() -> None:
    made = screen()
    assert made.press("d") is None
    assert text(made)[-1] == "drain 10.0.0.11:80 in tcp:10.0.0.100:80? y/n"
    assert made.press("n") is None
    assert made.press("y") is None
    made.press("d")
    assert made.press("y") == Wish("drain", {"destination": "10.0.0.11:80", "service": "tcp:10.0.0.100:80"})


def test_pause_becomes_resume_where_everything_is_paused() -> None:
    made = screen()
    made.press("p")
    assert made.press("y") == Wish("pause", {"reason": "by feedback top"})
    made.update(status() | {"orders": [{"kind": "pause", "service": ""}]})
    made.press("p")
    assert made.press("y") == Wish("resume")


def test_many_rows_scroll_with_the_selection() -> None:
    known = status()
    one = known["services"][0]["destinations"][0]
    known["services"][0]["destinations"] = [one | {"address": f"10.0.{i // 200}.{i % 200 + 1}:80"} for i in range(500)]
    made = Screen()
    made.update(known)
    for _ in range(400):
        made.press("down")
    assert len(text(made)) == 24
    assert selected(made) == "10.0.2.1:80"


def test_away_from_a_terminal_it_prints_one_table(site: Site) -> None:
    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        answer = CliRunner().invoke(main, ["top", "--control", str(site.control)])
        assert answer.exit_code == 0
        assert "10.0.0.12:80" in answer.output and "\x1b" not in answer.output and "q quit" not in answer.output

    run(site, work)
    assert CliRunner().invoke(main, ["top", "--control", str(site.control)]).exit_code == 3


class Terminal:
    """A real one of 80 by 24, with the real command in it."""

    def __init__(self, control: Path) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        code = "from feedback.cli.main import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "top", "--interval", "0.2", "--control", str(control)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
        )
        self.seen = ""

    def until(self, words: str) -> None:
        deadline = time.monotonic() + 60
        while words not in self.seen:
            assert time.monotonic() < deadline, self.seen[-3000:]
            self.read(0.1)

    def read(self, seconds: float) -> None:
        if select.select([self.master], [], [], seconds)[0]:
            self.seen += os.read(self.master, 65536).decode("utf-8", "replace")

    def press(self, keys: str) -> None:
        self.seen = ""
        os.write(self.master, keys.encode())

    def left(self) -> int:
        deadline = time.monotonic() + 60
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            self.read(0.1)
        self.read(0.1)
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


def test_on_a_terminal_keys_drain_explain_and_quit_and_it_is_left_as_it_was(site: Site) -> None:
    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        terminal = Terminal(site.control)
        try:
            terminal.until("10.0.0.12:80")
            terminal.press("\x1b[B")
            terminal.press("d")
            terminal.until("drain 10.0.0.12:80 in tcp:10.0.0.100:80? y/n")
            terminal.press("y")
            until(lambda: site.weights() == [100, 0])
            terminal.until("drained")
            terminal.press("e")
            terminal.until("orders")
            terminal.press("q")
            assert terminal.left() == 0
            assert "\x1b[?1049l" in terminal.seen, "the alternate screen is left"
            attributes: list[Any] = termios.tcgetattr(terminal.slave)
            assert attributes[3] == terminal.before[3], "echo and line mode are back"
        finally:
            terminal.close()

    run(site, work)
