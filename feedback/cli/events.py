"""`feedback events`: events as JSON lines: the master's, and in a pair the sync daemon's transitions."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from feedback.cli.asking import MASTER, SYNC, ask
from feedback.cli.errors import Failure, Unreachable

SCHEMA = 1
FOLLOW_SECONDS = 0.25


class Source:
    """One daemon's events, each once. An absent daemon is asked again; a restarted one begins anew."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self._path = name, path
        self._last, self._stream = 0, ""
        self.problem = ""

    def news(self) -> list[dict[str, Any]]:
        words = {"since": self._last} | ({"stream": self._stream} if self._stream else {})
        try:
            answer = ask(self._path, "events", f"feedback {self.name}", **words)
        except Unreachable as error:
            self.problem = error.message
            if not self._stream:
                self._last = 0  # it names no stream: when it is back, its numbers begin anew
            return []
        except Failure as error:
            if self.name != "sync":
                raise
            self.problem = error.message  # the master's events are worth having alone
            return []
        self.problem = ""
        found = list(answer["events"])
        if answer.get("gone"):
            found.insert(0, {"number": None, "at": round(time.time(), 3), "kind": "gone", "count": answer["gone"]})
        self._stream = answer.get("stream", "")
        self._last = answer.get("last", max([self._last, *(e["number"] for e in answer["events"])]))
        return [{"schema": SCHEMA, "source": self.name} | event for event in found]


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Follow new ones until interrupted.")
@click.option(
    "--kind", "kinds", multiple=True, metavar="KIND", help="Only these: weight-changed, role ...; repeatable."
)
@click.option(
    "--control", type=click.Path(path_type=Path), default=MASTER, show_default=True, help="The master's control socket."
)
@click.option(
    "--sync-control",
    type=click.Path(path_type=Path),
    default=SYNC,
    show_default=True,
    help="The sync daemon's control socket; if it runs, its transitions are among the events.",
)
def events(follow: bool, kinds: tuple[str, ...], control: Path, sync_control: Path) -> None:
    """Print events as JSON lines, oldest first: schema, source, number, at, kind and the fields of that kind.

    \b
    weight-changed foreign-edit ejected readmitted barred unbarred removed returned stands-in relieved cut promoted
    check-warning held released agent-heard agent-lost agent-back exporter-heard exporter-lost exporter-back
    order-given order-lifted order-expired
    role started reloaded reload-failed service-left service-removed steered steer-mended steer-removal
    of the pair: transition notice
    gone: the number of events lost before they were read

    The master keeps the newest 2000. --follow survives a daemon's restart.
    """
    sources = [Source("master", control), Source("sync", sync_control)]
    while True:
        found = [event for source in sources for event in source.news()]
        if not follow and all(s.problem for s in sources):
            raise Unreachable(sources[0].problem)
        for event in sorted(found, key=lambda e: e["at"]):
            if not kinds or event["kind"] in kinds:
                click.echo(json.dumps(event))
        if not follow:
            return
        try:
            time.sleep(FOLLOW_SECONDS)
        except KeyboardInterrupt:
            return
