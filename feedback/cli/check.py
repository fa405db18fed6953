"""`feedback check`: every configuration that is there, each by the daemon's own check."""

from __future__ import annotations

import json
from pathlib import Path

import click

from feedback.cli.asking import json_option
from feedback.cli.errors import Failure
from feedback.config import AGENT_PATH, MASTER_PATH, SYNC_PATH

SCHEMA = 1


@click.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=MASTER_PATH.parent,
    show_default=True,
    help="Where master.toml, agent.toml and sync.toml are.",
)
@json_option
def check(directory: Path, as_json: bool) -> None:
    """Check every configuration that is there: master.toml, agent.toml, sync.toml, with their keys and enrolments.

    Exit status 1 if one is bad, or none is there. Nothing is changed, no daemon is asked.
    """
    results = []
    for name, test in (
        (MASTER_PATH.name, _master),
        (AGENT_PATH.name, _agent),
        (SYNC_PATH.name, _sync),
    ):
        path = directory / name
        if path.exists():
            try:
                results.append({"path": str(path), "good": True, "text": test(path)})
            except Failure as error:
                results.append({"path": str(path), "good": False, "text": error.message})
    if as_json:
        click.echo(json.dumps({"schema": SCHEMA, "configurations": results}))
    else:
        for found in results:
            click.echo(found["text"], err=not found["good"])
    if not results:
        raise Failure(f"{directory}: no master.toml, agent.toml or sync.toml: see examples/")
    bad = sum(not found["good"] for found in results)
    if bad:
        raise Failure(f"{bad} of {len(results)} configurations cannot be used")


def _master(path: Path) -> str:
    from feedback.cli.master import checked

    return checked(path)


def _agent(path: Path) -> str:
    from feedback.cli.agent import checked

    return checked(path)


def _sync(path: Path) -> str:
    from feedback.cli.sync import checked

    return checked(path)
