"""How commands fail: one line on standard error and an exit status, never a traceback for an operator's mistake."""

from __future__ import annotations

from typing import IO, Any

import click

from feedback.refusals import printable


class Failure(click.ClickException):
    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(map(printable, message.split("\n"))))

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"feedback: {self.message}", err=True)


class Unreachable(Failure):
    """No daemon answers."""

    exit_code = 3
