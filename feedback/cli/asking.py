"""How commands ask a daemon over its control socket, and the common parts of their output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from feedback.cli.errors import Failure, Unreachable
from feedback.cli.telling import SCHEMA as SCHEMA
from feedback.cli.telling import told as told
from feedback.config import MASTER_PATH

MASTER = Path("/run/feedback/master.sock")
SYNC = Path("/run/feedback/sync.sock")

control_option = click.option(
    "--control",
    type=click.Path(path_type=Path),
    default=MASTER,
    show_default=True,
    help="The master's control socket.",
)
directory_option = click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=MASTER_PATH.parent,
    show_default=True,
    help="Where master.toml, agent.toml and sync.toml are.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def ask(control: Path, command: str, daemon: str = "feedback master", **words: Any) -> dict[str, Any]:
    """A daemon's answer. Raises Failure with its message, Unreachable (exit status 3) if there is none."""
    from feedback.ops import control as socket

    try:
        return socket.ask(control, {"command": command, **words}, daemon=daemon)
    except socket.NotRunningError as error:
        raise Unreachable(str(error)) from None
    except socket.ControlError as error:
        raise Failure(str(error)) from None


def ago(seconds: float) -> str:
    """A time span for people: 0.25 s, 12 s, 3 min, 2 h, 4 d."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    for size, unit in ((86400, "d"), (3600, "h"), (120, "min")):
        if seconds >= 2 * size or (unit == "min" and seconds >= size):
            return f"{seconds / (60 if unit == 'min' else size):.0f} {unit}"
    return f"{seconds:.0f} s"
