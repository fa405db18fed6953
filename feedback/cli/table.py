"""`save` and `restore`: the kernel's table as ipvsadm's rules, and back by difference. feedback.ipvs.difference finds
the differences; feedback.ipvs.text has the format."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from feedback.cli.asking import MASTER, SCHEMA, json_option, told
from feedback.cli.errors import Failure

if TYPE_CHECKING:
    from feedback.ipvs.difference import Table

_netns = click.option("--netns", default=None, metavar="NAME", help="In this network namespace.")


@click.command()
@_netns
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file, replacing it as a whole.",
)
@json_option
def save(netns: str | None, output: Path | None, as_json: bool) -> None:
    """Print the kernel's table as rules that `ipvsadm -R` and `feedback restore` read.

    Unlike `ipvsadm -S` it keeps the thresholds (-x, -y). Counters and connections are left out, as are the services
    for the master's own checks.
    """
    from feedback.ipvs import Client, IpvsError
    from feedback.ipvs.text import format_table

    try:
        with Client(netns=netns) as client:
            rules = format_table(client.snapshot().without_checks())
    except IpvsError as error:
        raise Failure(str(error)) from None
    text = json.dumps({"schema": SCHEMA, "rules": rules.splitlines()}) + "\n" if as_json else rules
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        new = output.with_name(f".{output.name}.new")
        new.write_text(text, encoding="utf-8")
        new.replace(output)
    except OSError as error:
        raise Failure(f"{output}: cannot be written: {error.strerror}") from None


@click.command()
@click.argument("file", type=click.File("r"))
@click.option("--dry-run", "-n", is_flag=True, help="Print the edits, as ipvsadm options; do nothing.")
@click.option("--keep", is_flag=True, help="Leave alone services that FILE does not name.")
@_netns
@json_option
def restore(file: Any, dry_run: bool, keep: bool, netns: str | None, as_json: bool) -> None:
    """Make the kernel's table match FILE (- is standard input), by the smallest difference.

    FILE is output of `feedback save` or `ipvsadm -S`. Nothing is flushed and nothing correct is touched, so no
    connection loses packets. Services that FILE does not name are removed, unless --keep is given."""
    from feedback.ipvs import Client, IpvsError
    from feedback.ipvs.difference import difference, of_snapshot
    from feedback.ipvs.text import format_edit

    wanted = _wanted(file)
    try:
        with Client(netns=netns) as client:
            edits = difference(wanted, of_snapshot(client.snapshot().without_checks()), remove_services=not keep)
            failures = () if dry_run else client.apply(edits)
    except IpvsError as error:
        raise Failure(str(error)) from None
    lines, refused = [format_edit(edit) for edit in edits], [str(f) for f in failures]
    if as_json:
        told({"dry_run": dry_run, "edits": lines, "refused": refused})
    elif dry_run:
        click.echo("".join(line + "\n" for line in lines), nl=False)
    else:
        click.echo(_summary(lines))
    if MASTER.exists() and edits and not dry_run and netns is None:
        click.echo("note: a master runs here and will rewrite what it owns (`feedback pause` stops that)", err=True)
    if refused:
        raise Failure(f"{len(refused)} of {len(edits)} edits were refused: {refused[0]}")


def _wanted(file: Any) -> Table:
    """The table in the file, without the services that carry a master's own checks, which `ipvsadm -S` prints too."""
    from feedback.ipvs.difference import of_edits
    from feedback.ipvs.rules import RulesError
    from feedback.ipvs.text import parse
    from feedback.model import CHECK_MARKS

    try:
        table = of_edits(parse(file.read()))
    except (RulesError, ValueError) as error:
        raise Failure(f"{file.name}: {error}") from None
    return {key: rules for key, rules in table.items() if key.fwmark not in CHECK_MARKS}


WORDS = {
    "-A": "services added",
    "-E": "services changed",
    "-D": "services removed",
    "-a": "destinations added",
    "-e": "destinations changed",
    "-d": "destinations removed",
}


def _summary(lines: list[str]) -> str:
    found = Counter(line.split()[0] for line in lines)
    return ", ".join(f"{found[w]} {text}" for w, text in WORDS.items() if found[w]) or "nothing to do"
