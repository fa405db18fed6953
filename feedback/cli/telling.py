"""JSON output of commands that make their own answer."""

from __future__ import annotations

import json
from typing import Any

import click

SCHEMA = 1  # of what commands print themselves; a daemon's answer has its own


def told(document: dict[str, Any]) -> None:
    """Print one JSON object, with the number of its schema in front."""
    click.echo(json.dumps({"schema": SCHEMA} | document))
