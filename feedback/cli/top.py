"""`feedback top`: the terminal around feedback.cli.screen: keys in, lines out, requests to the master."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from feedback.cli.asking import ask, control_option
from feedback.cli.errors import Failure
from feedback.cli.screen import Screen, Wish

KEYS = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down", b"\r": "enter", b"\n": "enter"}
PLAIN_WIDTH = 200


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between looks.",
)
@click.option("--once", is_flag=True, help="Print one table, as without a terminal.")
@control_option
def top(interval: float, once: bool, control: Path) -> None:
    """Watch services and destinations live.

    \b
    up, down (k, j)   select           d   drain it (asks)
    n w l c a         sort by name,    u   undrain it
                      weight, load,    e   explain its weight, and back
                      connections, age p   pause or resume everything
                                       q   quit

    Without a terminal it prints one table.
    """
    screen = Screen()
    screen.update(ask(control, "status"))
    if once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        lines = screen.lines(PLAIN_WIDTH, 100_000)[:-1]
        click.echo("\n".join(line.text.rstrip() for line in lines))
        return
    with _keys() as descriptor:
        _run(screen, control, interval, descriptor)


def _run(screen: Screen, control: Path, interval: float, descriptor: int) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()

    def drawn() -> Text:
        lines = screen.lines(console.width, console.height)
        return Text("\n", no_wrap=True, overflow="crop").join(Text(line.text, style=line.style) for line in lines)

    looked = time.monotonic()
    with Live(drawn(), console=console, screen=True, auto_refresh=False) as live:
        while True:
            wait = max(0.0, looked + interval - time.monotonic())
            for key in _pressed(descriptor, wait):
                wish = screen.press(key)
                if wish is not None and wish.command == "quit":
                    return
                if wish is not None:
                    screen.message = _fulfilled(control, wish)
                    looked = 0.0
            if time.monotonic() - looked >= interval:
                looked = time.monotonic()
                try:
                    screen.update(ask(control, "status"))
                except Failure as error:  # a master that restarts is waited for
                    screen.message = error.message
            live.update(drawn(), refresh=True)


def _fulfilled(control: Path, wish: Wish) -> str:
    """Done, or the reason why not."""
    sudo = os.environ.get("SUDO_USER")
    try:
        answer = ask(control, wish.command, **wish.words, **({"sudo_user": sudo} if sudo else {}))
    except Failure as error:
        return error.message
    return "; ".join([f"{wish.command}: done", *answer["notes"]])


def _pressed(descriptor: int, wait: float) -> list[str]:
    """The keys pressed within so many seconds."""
    ready, _, _ = select.select([descriptor], [], [], wait)
    if not ready:
        return []
    data = os.read(descriptor, 64)
    if not data:
        return ["q"]  # the terminal has gone
    return list(_decoded(data))


def _decoded(data: bytes) -> Iterator[str]:
    while data:
        found = next((k for k in KEYS if data.startswith(k)), None)
        if found is not None:
            yield KEYS[found]
            data = data[len(found) :]
        elif data == b"\x1b":
            yield "escape"
            return
        elif data.startswith(b"\x1b"):
            return  # a key that we do not know, whole
        else:
            yield chr(data[0])
            data = data[1:]


@contextmanager
def _keys() -> Iterator[int]:
    """Single keys without echo. Restores the terminal however it ends."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    except KeyboardInterrupt:
        pass
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
