"""`feedback check`: every configuration present, each by its daemon's own check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from feedback.cli.asking import directory_option, json_option, told
from feedback.cli.errors import Failure
from feedback.config import AGENT_PATH, MASTER_PATH, SYNC_PATH


@click.command()
@directory_option
@json_option
def check(directory: Path, as_json: bool) -> None:
    """Check every configuration present: master.toml, agent.toml, sync.toml, with their keys and enrolments.

    Exit status 1 if one is bad, or if there is none. Changes nothing and asks no daemon.
    """
    found = results(directory)
    if as_json:
        told({"configurations": found})
    else:
        for one in found:
            click.echo(one["text"], err=not one["good"])
    if not found:
        raise Failure(f"{directory}: no master.toml, agent.toml or sync.toml: see examples/")
    bad = sum(not one["good"] for one in found)
    if bad:
        raise Failure(f"{bad} of {len(found)} configurations cannot be used")


def results(directory: Path) -> list[dict[str, Any]]:
    """Each configuration, and whether it is good."""
    found: list[dict[str, Any]] = []
    for name, test in ((MASTER_PATH.name, _master), (AGENT_PATH.name, _agent), (SYNC_PATH.name, _sync)):
        path = directory / name
        if path.exists():
            try:
                found.append({"path": str(path), "good": True, "text": test(path)})
            except Failure as error:
                found.append({"path": str(path), "good": False, "text": error.message})
    return found


def _master(path: Path) -> str:
    from feedback.cli.master import checked

    return checked(path)


def _agent(path: Path) -> str:
    from feedback.cli.agent import checked

    return checked(path)


def _sync(path: Path) -> str:
    from feedback.cli.sync import checked

    return checked(path)
