"""How commands fail: one line on standard error and an exit status, never a traceback for what an operator did."""

from __future__ import annotations

from typing import IO, Any

import click


class Failure(click.ClickException):
    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"feedback: {self.message}", err=True)


class Unreachable(Failure):
    """No daemon answers."""

    exit_code = 3
