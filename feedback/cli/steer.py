"""`feedback steer`: shows and removes what leads packets for a range of addresses to IPVS."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from feedback.cli.asking import ask, directory_option, json_option, told
from feedback.cli.errors import Failure, Unreachable
from feedback.config import MASTER_PATH

if TYPE_CHECKING:
    from feedback.config import MasterConfig
    from feedback.steer.keeper import Keeper

WAIT_SECONDS, LONGEST_SECONDS = 0.2, 30.0


@click.group()
def steer() -> None:
    """Ranges of addresses and ports as one service: show or remove what leads their packets to IPVS.

    A director drops or forwards a packet for an address that it does not have. To balance a whole range, incoming
    packets get a firewall mark, a policy rule looks marked packets up in a table where every address is local, and IPVS
    has a service for the mark. `match` in master.toml sets all this up:

    \b
    [[service]]
    virtual = "fwmark:7"
    match = ["203.0.113.0/24 tcp 80,443,8000-8100"]

    The master makes it on both directors, in either role, so nothing moves at a takeover. Anything removed by others is
    back within 5 seconds. It consists of a table lvs_feedback (nftables) or a chain feedback-steer in mangle
    (iptables), and rules and routes with protocol 251; nothing else is ever touched. The router needs a route for the
    range to an address that moves with the active role: see docs/ranges.md.
    """


@steer.command()
@directory_option
@json_option
def show(directory: Path, as_json: bool) -> None:
    """Show each mark with its packets, and whether the kernel has everything it needs.

    Reads master.toml and the kernel, as root; asks the master whether it maintains it. Exit status 1 if something is
    missing.
    """
    config = _config(directory)
    document = _document(config)
    if as_json:
        told(document)
    else:
        click.echo("\n".join(_lines(document)))
    if document["missing"]:
        raise Failure(f"{len(document['missing'])} things are missing" if not as_json else document["missing"][0])


@steer.command()
@directory_option
@json_option
def remove(directory: Path, as_json: bool) -> None:
    """Remove all our marks, rules and routes on this director, and nothing else.

    A running master removes them, and makes none again until it is started or reloaded. Without a running master the
    command removes them, as root. To remove them for good, first remove `match` from master.toml. The other director
    has its own.
    """
    config = _config(directory)
    try:
        answer = ask(config.control, "steer-remove")
    except Unreachable:
        by, problem = "here", _remove(config)
    else:
        by, problem = "master", _wait(config, answer)
    if problem:
        raise Failure(f"not removed: {problem}")
    if as_json:
        told({"removed": True, "by": by})
    else:
        until = "; a start or a reload of the master makes them again" if by == "master" else ""
        click.echo(f"no mark, rule or route of ours remains{until}")


def _config(directory: Path) -> MasterConfig:
    from feedback.config import ConfigError, MasterConfig, load

    try:
        return load(directory / MASTER_PATH.name, MasterConfig)
    except ConfigError as error:
        raise Failure(str(error)) from None


def keeper(config: MasterConfig) -> Keeper:
    """The keeper of this configuration's master, for reading."""
    from feedback.config import marks
    from feedback.master.shell import steering

    made = steering.keeper(config)
    made.want(marks(config))
    return made


def _document(config: MasterConfig) -> dict[str, Any]:
    from feedback.config import marks
    from feedback.ipvs import IpvsError
    from feedback.steer.errors import SteerError

    try:
        looked = keeper(config)
        firewall, _ = looked.seen()
        missing = looked.lacking()
    except (SteerError, IpvsError) as error:
        raise Failure(str(error)) from None
    return {
        "firewall": firewall,
        "table": config.steer.table,
        "priority": config.steer.priority,
        "marks": [{"mark": mark, "match": list(map(str, matches))} for mark, matches in sorted(marks(config).items())],
        "missing": list(missing),
        "master": _master(config),
    }


def _master(config: MasterConfig) -> dict[str, Any]:
    """Its word, or why there is none."""
    try:
        answer = ask(config.control, "steer")
    except Failure as error:  # Unreachable too
        return {"state": "unknown", "settled": False, "problem": error.message}
    return {name: answer[name] for name in ("state", "settled", "problem")}


def _lines(document: dict[str, Any]) -> list[str]:
    if not document["marks"]:
        return ["no service has a match: nothing is steered"]
    lines = []
    for mark in document["marks"]:
        lines += [f"mark {mark['mark']:<6} {match}" for match in mark["match"]]
    lines.append(
        f"table {document['table']}, policy rules at {document['priority']}, {document['firewall'] or 'no'} rules"
    )
    master = document["master"]
    words = {
        "kept": "the master maintains them" if master["settled"] else "the master is making them",
        "removed": "removed by `feedback steer remove`: a start or a reload of the master makes them again",
        "none": "the master has another configuration: systemctl reload feedback-master",
        "unknown": "no master maintains them",
    }[master["state"]]
    lines.append(f"{words}: {master['problem']}" if master["problem"] else words)
    return [*lines, *(f"missing: {what}" for what in document["missing"])]


def _wait(config: MasterConfig, answer: dict[str, Any]) -> str:
    """Wait until the master has done it. Returns the reason why not, or nothing."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while not answer["settled"] and not answer["problem"]:
        if time.monotonic() > deadline:
            return f"the master did not finish within {LONGEST_SECONDS:.0f} s"
        time.sleep(WAIT_SECONDS)
        answer = ask(config.control, "steer")
    return str(answer["problem"])


def _remove(config: MasterConfig) -> str:
    from feedback.ipvs import IpvsError
    from feedback.steer.errors import SteerError

    try:
        made = keeper(config)
        made.want({})
        made.turn()
    except (SteerError, IpvsError) as error:
        return str(error)
    return ""
