"""`feedback sync`: the director pair's daemon, and commands to it: status, events, handover, resync, doctor."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from feedback.cli.asking import told
from feedback.cli.errors import Failure, Unreachable
from feedback.config.sync import SYNC_PATH

CONTROL = Path("/run/feedback/sync.sock")
FOLLOW_SECONDS = 0.2
PROGRESS_SECONDS = 0.2

_control = click.option(
    "--control",
    type=click.Path(path_type=Path),
    default=CONTROL,
    show_default=True,
    help="The sync daemon's control socket.",
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(invoke_without_command=True)
@click.option(
    "--config",
    "-c",
    "path",
    type=click.Path(path_type=Path),
    default=SYNC_PATH,
    show_default=True,
    help="The configuration, TOML.",
)
@click.option("--verbose", is_flag=True, help="Log more.")
@click.pass_context
def sync(ctx: click.Context, path: Path, verbose: bool) -> None:
    """Run this director's part of the pair in the foreground: election, addresses, replication.

    SIGTERM stops it and leaves addresses, services and connections as they are: no traffic moves. SIGHUP reads
    priority and failback again. It needs CAP_NET_ADMIN and CAP_NET_RAW.

    \b
    First time, on one director:  feedback keys pair        (and copy /etc/feedback/pair.key to the other)
    On both:                      feedback sync check, then systemctl enable --now feedback-sync
    Would a takeover work now?    feedback sync doctor
    """
    ctx.obj = path
    if ctx.invoked_subcommand is None:
        _run(path, verbose)


@sync.command()
@click.pass_obj
def check(path: Path) -> None:
    """Check the configuration and the secret; change nothing."""
    click.echo(checked(path))


def checked(path: Path) -> str:
    """The line for a good configuration. Raises Failure."""
    from feedback.config import ConfigError, SyncConfig, load
    from feedback.ops import pair
    from feedback.ops.keys import KeyFileError

    try:
        config = load(path, SyncConfig)
        pair.load(config.secret)
    except (ConfigError, KeyFileError) as error:
        raise Failure(str(error)) from None
    return f"{path}: good: {config.name} with {config.peer}, {len(config.link)} links, {len(config.address)} addresses"


@sync.command()
@_control
@_json
def status(control: Path, as_json: bool) -> None:
    """Show roles, links, addresses, the replica's state and the last transitions. Exit 1 if nobody is active."""
    answer = _ask(control, "status")
    click.echo(json.dumps(answer) if as_json else "\n".join(_status_lines(answer)))
    sys.exit(0 if "active" in (answer["role"], answer["peer"]["role"]) else 1)


@sync.command()
@_control
@click.option("--follow", "-f", is_flag=True, help="Follow new ones until interrupted.")
def events(control: Path, follow: bool) -> None:
    """Print the transitions as JSON lines: when, from what, to what, why."""
    last = -1
    while True:
        for event in _ask(control, "events", since=last)["events"]:
            told(event)
            last = event["number"]
        if not follow:
            return
        time.sleep(FOLLOW_SECONDS)


@sync.command()
@_control
@click.option("--timeout", default=30.0, show_default=True, metavar="SECONDS", help="Give up after this.")
@_json
def handover(control: Path, timeout: float, as_json: bool) -> None:
    """Give the active role to the other director, once it is complete. Prints how long that took.

    Ask the active director. Refused, with the reason, if the other one is absent or its replica incomplete.
    """
    answer = _ask(control, "handover")
    deadline = time.monotonic() + timeout
    while (state := _ask(control, "handover-state"))["state"] == "under way":
        if time.monotonic() > deadline:
            raise Failure(f"the handover is not done after {timeout:g} s: {state['reason']}")
        time.sleep(0.05)
    answer |= state
    if as_json:
        told(answer)
    elif state["state"] == "done":
        click.echo(f"handed over to {state['peer']} in {state['took_ms']:.0f} ms")
    if state["state"] != "done":
        raise Failure(f"not handed over: {state['reason']}")


@sync.command()
@_control
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the replica is complete.")
@click.option("--timeout", default=120.0, show_default=True, metavar="SECONDS", help="Give up waiting after this.")
def resync(control: Path, wait: bool, timeout: float) -> None:
    """Have the standby fetch everything again: services, weights and the whole connection table.

    Ask the standby. Nothing is removed meanwhile; the live stream goes on.
    """
    from rich.progress import Progress

    _ask(control, "resync")
    if not wait:
        return
    deadline = time.monotonic() + timeout
    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("connections", total=None)
        while (replica := _ask(control, "status")["replica"])["state"] != "complete":
            progress.update(bar, total=replica["total"] or None, completed=replica["injected"])
            if time.monotonic() > deadline:
                raise Failure(f"not complete after {timeout:g} s: {replica['text']}")
            time.sleep(PROGRESS_SECONDS)
    click.echo(f"complete: {replica['total']} connections in {replica['took_seconds']:.2f} s")


@sync.command()
@_control
@_json
def doctor(control: Path, as_json: bool) -> None:
    """Would a takeover work now? Print each reason why not, with its remedy. Exit 1 if there is one."""
    answer = _ask(control, "doctor")
    if as_json:
        told(answer)
    else:
        for finding in answer["findings"]:
            click.echo(f"{finding['level']:<8} {finding['what']}\n         {finding['mend']}")
        click.echo(answer["verdict"])
    sys.exit(1 if any(f["level"] == "error" for f in answer["findings"]) else 0)


def _ask(control: Path, command: str, **arguments: Any) -> dict[str, Any]:
    from feedback.ops.control import ControlError, NotRunningError, ask

    try:
        return ask(control, {"command": command, **arguments}, daemon="feedback sync")
    except NotRunningError as error:
        raise Unreachable(str(error)) from None
    except ControlError as error:
        raise Failure(str(error)) from None


def _status_lines(s: dict[str, Any]) -> list[str]:
    peer = s["peer"]
    heard = "never heard" if peer["age_seconds"] is None else f"{peer['role']}, heard {_ago(peer['age_seconds'])} ago"
    lines = [
        f"{s['name']}: {s['state']} for {_ago(s['since_seconds'])} (term {s['term']}): {s['reason']}",
        f"{peer['name']}: {heard}; replica there: {peer['replica']}",
        f"replica here: {s['replica']['text']}",
        *_ledger_lines(s["replica"]["ledger"]),
        *_tracking_lines(s["tracking"]),
        "",
    ]
    for link in s["links"]:
        age = "never heard" if link["age_seconds"] is None else f"heard {_ago(link['age_seconds'])} ago"
        lines.append(f"link     {link['local']:<28} {link['peer']:<28} {'up' if link['up'] else 'DOWN':<5} {age}")
    for address in s["addresses"]:
        where = "here" if address["installed"] else "not here"
        lines.append(f"address  {address['address']:<28} {address['interface']:<28} {where}")
    for route in s["routes"]:
        table, where = f"table {route['table']}", "announced here" if route["installed"] else "not here"
        lines.append(f"route    {route['to']:<28} {table:<28} {where}")
    lines.append("")
    lines += [f"{_ago(t['age_seconds']):>8} ago  {t['old']} -> {t['new']}: {t['reason']}" for t in s["transitions"]]
    return lines


def _ledger_lines(ledger: dict[str, int] | None) -> list[str]:
    if ledger is None or not ledger["lacking"]:
        return []
    more = f"at most {ledger['lacking']:,} more did not fit: a standby that joins now would lack them"
    return [f"ledger here: {ledger['connections']:,} of {ledger['limit']:,} connections; {more}"]


def _tracking_lines(tracking: dict[str, Any] | None) -> list[str]:
    """Where the host's connection tracking has a part in it."""
    if tracking is None or not tracking["here"]:
        return []
    written = tracking["written"]
    if written is None:
        said = "entries are written at a takeover"
    else:
        said = f"{written['entries']:,} entries written at the last takeover, in {written['took_ms']:.0f} ms"
    return [f"tracking here: {tracking['problem'] or said}"]


def _ago(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def _run(path: Path, verbose: bool) -> None:
    from feedback.sync import daemon

    reason = daemon.run(path, "debug" if verbose else "info")
    if reason is not None:
        raise Failure(reason)
