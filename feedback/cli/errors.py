"""How commands fail: one line on standard error and an exit status, never a traceback for what an operator did."""

from __future__ import annotations

import click


class Failure(click.ClickException):
    """Exit status 1, or the one given."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.exit_code = status

    def show(self, file: object = None) -> None:
        click.echo(f"feedback: {self.message}", err=True)


UNREACHABLE = 3
