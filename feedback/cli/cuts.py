"""`cut` and `promote`: end the flows of a destination now, and move the first place of a `failover` service.

feedback.master.shell.commands decides what is refused; feedback.master.cuts ends the flows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from feedback.cli.asking import ask, control_option, json_option
from feedback.cli.errors import Failure
from feedback.cli.orders import say

WAIT_SECONDS, LONGEST_SECONDS = 0.1, 20.0

_service = click.option("--service", default="", metavar="SERVICE", help="Only in this service: tcp:10.0.0.100:80.")
_reason = click.option("--reason", "-r", default="", metavar="TEXT", help="Reason, shown by explain and in the logs.")


@click.command()
@click.argument("destination")
@_service
@_reason
@click.option("--client", default="", metavar="ADDRESS[/PREFIX]", help="Only the connections of these clients.")
@click.option("--force", is_flag=True, help="Even if it is the last server in service.")
@click.option("--dry-run", is_flag=True, help="Show what would be cut, and cut nothing.")
@control_option
@json_option
def cut(
    destination: str,
    service: str,
    client: str,
    reason: str,
    force: bool,
    dry_run: bool,
    control: Path,
    as_json: bool,
) -> None:
    """End every flow of DESTINATION (ADDRESS or ADDRESS:PORT) now: both ends of each TCP connection are reset.

    The destination leaves the kernel's table for that, and returns once its flows are forgotten, within a second.
    Meanwhile new connections go elsewhere. A drained destination returns drained. UDP flows go on elsewhere. With
    --client nothing leaves the table: the TCP connections of these clients are reset, and the clients may reconnect at
    once.
    """
    seen = {} if dry_run else ask(control, "events")
    words = {"destination": destination, "service": service, "client": client, "reason": reason}
    answer = say(control, "cut", **words, force=force, dry_run=dry_run)
    places = [(place["service"], place["destination"]) for place in answer["places"]]
    if dry_run:
        status = ask(control, "status")
        done = [_theirs(answer["netns"], place, client) if client else _there(status, place) for place in places]
    else:
        done = _wait(control, seen, places)
    if as_json:
        click.echo(json.dumps({"schema": answer["schema"], "dry_run": dry_run, "cut": done}))
        return
    for each in done:
        click.echo(f"{each['destination']} in {each['service']}: {each['text']}")


def _there(status: dict[str, Any], place: tuple[str, str]) -> dict[str, Any]:
    service = next(s for s in status["services"] if s["virtual"] == place[0])
    d = next(d for d in service["destinations"] if d["address"] == place[1])
    text = f"would cut {d['active']} active and {d['inactive']} inactive connections"
    return {
        "service": place[0],
        "destination": place[1],
        "active": d["active"],
        "inactive": d["inactive"],
        "text": text,
    }


def _theirs(netns: str | None, place: tuple[str, str], client: str) -> dict[str, Any]:
    """Counted in the kernel's own table. Raises Failure if it cannot be read."""
    from ipaddress import ip_network

    from feedback.ipvs import IpvsError, connections
    from feedback.model import DestinationKey, ServiceKey

    service, destination = ServiceKey.parse(place[0]), DestinationKey.parse(place[1])
    clients = ip_network(client)
    try:
        table = connections.read(netns)
    except (IpvsError, OSError) as error:
        raise Failure(f"the connection table cannot be read: {error}") from None
    there = [
        c
        for c in table
        if c.protocol == "TCP"
        and (c.virtual, c.virtual_port) == (service.address, service.port)
        and (c.destination, c.destination_port) == (destination.address, destination.port)
        and c.client in clients
        and c.client_port
    ]
    active = sum(c.state == "ESTABLISHED" for c in there)
    text = f"would cut {active} active and {len(there) - active} inactive connections of {clients}"
    counts = {"active": active, "inactive": len(there) - active}
    return {"service": place[0], "destination": place[1], **counts, "text": text}


def _wait(control: Path, seen: dict[str, Any], places: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """The outcome for each. Raises Failure if the master does not report it."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < deadline:
        time.sleep(WAIT_SECONDS)
        told = ask(control, "events", since=seen["last"], stream=seen["stream"])["events"]
        found = {(e["service"], e["destination"]): e for e in told if e["kind"] == "cut"}
        if all(place in found for place in places):
            return [_said(found[place]) for place in places]
    raise Failure(f"the master did not finish within {LONGEST_SECONDS:.0f} s: see feedback events")


def _said(event: dict[str, Any]) -> dict[str, Any]:
    kept = ("service", "destination", "flows", "told", "gone", "silent", "seconds")
    return {name: event[name] for name in kept} | {"text": event["reason"]}


@click.command()
@click.argument("destination")
@_service
@control_option
@json_option
def promote(destination: str, service: str, control: Path, as_json: bool) -> None:
    """Give DESTINATION the first place of its `failover` service, and keep it there (law_options: sticky).

    This works like a move after a failure. In one decision the old server leaves the table, its connections are cut as
    law_options say, and the new server gets its weight. The old server then returns behind the new one.
    """
    answer = say(control, "promote", destination=destination, service=service)
    virtual, promoted = answer["promoted"]
    deadline = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < deadline:
        time.sleep(WAIT_SECONDS)
        services = ask(control, "status")["services"]
        if any(s["virtual"] == virtual and s.get("holder") == promoted for s in services):
            break
    else:
        raise Failure(f"{promoted} did not get the place within {LONGEST_SECONDS:.0f} s: feedback explain {promoted}")
    if as_json:
        click.echo(json.dumps({"schema": answer["schema"], "service": virtual, "holder": promoted}))
    else:
        click.echo(f"{promoted} has the first place in {virtual}")
