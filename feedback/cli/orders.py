"""`drain`, `undrain`, `override`, `pause`, `resume`, `orders`: an operator's orders to the master.

feedback.master.claims.orders and feedback.master.shell.commands decide what an order means and what is refused.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from feedback.cli.asking import ago, ask, control_option, json_option
from feedback.cli.duration import Duration
from feedback.cli.errors import Failure, Unreachable

WAIT_SECONDS = 0.25

_service = click.option("--service", default="", metavar="SERVICE", help="Only in this service: tcp:10.0.0.100:80.")
_reason = click.option("--reason", "-r", default="", metavar="TEXT", help="Reason, shown by explain, orders and logs.")
_force = click.option("--force", is_flag=True, help="Do it although it would be refused.")
_for = click.option("--for", "seconds", type=Duration(), default=None, help="End after this time: 90s, 30m, 2h.")


@click.command()
@click.argument("destination")
@_service
@_for
@_reason
@_force
@click.option("--wait", is_flag=True, help="Wait until its last active connection has ended, with progress.")
@click.option(
    "--then-cut",
    "cut_after",
    type=Duration(),
    default=None,
    help="After this time cut the connections that are left, as `feedback cut` does.",
)
@click.option("--timeout", type=Duration(), default="1h", show_default=True, help="With --wait: give up after this.")
@control_option
@json_option
def drain(
    destination: str,
    service: str,
    seconds: float | None,
    reason: str,
    force: bool,
    wait: bool,
    cut_after: float | None,
    timeout: float,
    control: Path,
    as_json: bool,
) -> None:
    """Take DESTINATION (ADDRESS or ADDRESS:PORT) out of service: weight 0. Its connections go on, or are cut later.

    Lasts until `feedback undrain`, or for the time of --for; restarts and takeovers do not end it. Refused for the last
    server in service.
    """
    answer = say(
        control,
        "drain",
        destination=destination,
        service=service,
        seconds=seconds,
        reason=reason,
        force=force,
        cut_after=cut_after,
    )
    if not as_json:
        _tell(answer)
    if wait:
        answer["left"] = _wait(control, answer["given"], timeout, quiet=as_json)
    if as_json:
        click.echo(json.dumps(answer))
    if wait and any(answer["left"].values()):
        raise Failure(f"still {sum(answer['left'].values())} connections after {ago(timeout)}; the drain stands")


@click.command()
@click.argument("destination")
@_service
@control_option
@json_option
def undrain(destination: str, service: str, control: Path, as_json: bool) -> None:
    """Put DESTINATION back into service: lift its drain or override. It returns with slow start."""
    _done(say(control, "undrain", destination=destination, service=service), as_json)


@click.command()
@click.argument("destination")
@click.argument("weight", type=click.IntRange(0, 2**31 - 1), required=False)
@click.option("--end", is_flag=True, help="End the override in force.")
@click.option("--for", "seconds", type=Duration(), default="30m", show_default=True, help="End after this time.")
@click.option("--until-lifted", is_flag=True, help="It does not end by itself.")
@_service
@_reason
@_force
@control_option
@json_option
def override(
    destination: str,
    weight: int | None,
    end: bool,
    seconds: float,
    until_lifted: bool,
    service: str,
    reason: str,
    force: bool,
    control: Path,
    as_json: bool,
) -> None:
    """Give DESTINATION this WEIGHT for a while, whatever is measured.

    A zero set by its owner (the configuration, keepalived, a failing check) is not raised without --force. With --force
    it is restored when the override ends.
    """
    if end == (weight is not None):
        raise click.UsageError("a WEIGHT, or --end")
    if end:
        _done(say(control, "undrain", destination=destination, service=service), as_json)
        return
    words = {"weight": weight, "seconds": None if until_lifted else seconds, "reason": reason, "force": force}
    _done(say(control, "override", destination=destination, service=service, **words), as_json)


@click.command()
@click.argument("service", default="")
@_for
@_reason
@control_option
@json_option
def pause(service: str, seconds: float | None, reason: str, control: Path, as_json: bool) -> None:
    """Write nothing to SERVICE (or to any service) until `feedback resume`: weights stay as they are.

    Drains and overrides still act. Meanwhile agents are heard and everything is measured.
    """
    _done(say(control, "pause", service=service, seconds=seconds, reason=reason), as_json)


@click.command()
@click.argument("service", default="")
@control_option
@json_option
def resume(service: str, control: Path, as_json: bool) -> None:
    """End the pause of SERVICE; without one, every pause."""
    _done(say(control, "resume", service=service), as_json)


@click.command()
@control_option
@json_option
def orders(control: Path, as_json: bool) -> None:
    """List the drains, overrides and pauses in force: who, why, how much longer."""
    answer = ask(control, "orders")
    if as_json:
        click.echo(json.dumps({"schema": answer["schema"], "orders": answer["orders"]}))
        return
    for order in answer["orders"]:
        click.echo(line(order))
    if not answer["orders"]:
        click.echo("no orders")


def line(order: dict[str, Any]) -> str:
    """An order for people."""
    what = f"override {order['weight']}" if order["kind"] == "override" else order["kind"]
    where = (
        f"{order['destination']} in {order['service']}" if order["destination"] else order["service"] or "everything"
    )
    left = "until lifted" if order["left_seconds"] is None else f"{ago(order['left_seconds'])} left"
    forced = ", forced" if order["force"] else ""
    said = f": {order['reason']}" if order["reason"] else ""
    return f"{what:<12} {where}  {left}{forced}, by {order['who'] or '?'} {ago(time.time() - order['at'])} ago{said}"


def say(control: Path, command: str, **words: Any) -> dict[str, Any]:
    """The master's answer to a command. Raises Failure, Unreachable."""
    said = {name: value for name, value in words.items() if value not in (None, "", False)}
    sudo = os.environ.get("SUDO_USER")
    return ask(control, command, **said, **({"sudo_user": sudo} if sudo else {}))


def _done(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(answer))
    else:
        _tell(answer)


def _tell(answer: dict[str, Any]) -> None:
    for order in answer["replaced"]:
        click.echo(f"replaced: {line(order)}")
    for order in answer["lifted"]:
        click.echo(f"lifted: {line(order)}")
    for order in answer["given"]:
        click.echo(line(order))
    for note in answer["notes"]:
        click.echo(f"note: {note}", err=True)


def _wait(control: Path, given: list[dict[str, Any]], timeout: float, *, quiet: bool) -> dict[str, int]:
    """Connections left of each drained destination, once there are none or the time is over."""
    from rich.progress import Progress

    deadline = time.monotonic() + timeout
    wanted = {(order["service"], order["destination"]) for order in given}
    terminal = sys.stderr.isatty() and not quiet
    first: int | None = None
    told = -1
    with Progress(transient=True, disable=not terminal) as progress:
        bar = progress.add_task("connections left", total=None)
        while True:
            time.sleep(WAIT_SECONDS)  # first of all: the master writes the weight at its next turn
            try:
                left, done = _left(ask(control, "status"), wanted)
            except Failure as error:
                restarting = isinstance(error, Unreachable) or "just started" in error.message
                if restarting and time.monotonic() < deadline:
                    continue
                raise
            count = sum(left.values())
            first = first or count
            progress.update(bar, total=first, completed=first - count, description=f"{count} connections left")
            if not (terminal or quiet) and count != told:
                click.echo(f"{count} connections left", err=True)
                told = count
            if (done and not count) or time.monotonic() > deadline:
                return left


def _left(status: dict[str, Any], wanted: set[tuple[str, str]]) -> tuple[dict[str, int], bool]:
    """Active connections of each, and whether the kernel has all of them at 0 already. A UDP flow is never active."""
    left, weights = {}, []
    for service in status["services"]:
        for d in service["destinations"]:
            if (service["virtual"], d["address"]) in wanted:
                udp = service["virtual"].startswith("udp:")
                left[f"{d['address']} in {service['virtual']}"] = d["active"] + (d["inactive"] if udp else 0)
                weights.append(d["weight"])
    return left, not any(weights)
