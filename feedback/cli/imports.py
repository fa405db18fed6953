"""`feedback import`: somebody else's configuration as ours. What a format means lives in feedback.importers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from feedback.cli.asking import told
from feedback.cli.errors import Failure

if TYPE_CHECKING:
    from feedback.importers import Imported

FORMATS = ("keepalived.conf", "ldirectord.cf", "ipvsadm-save")
TEXT_MAX = 16 * 1024 * 1024


@click.command("import")
@click.argument("format_", metavar="FORMAT", type=click.Choice(FORMATS))
@click.argument("file", type=click.File("r", encoding="utf-8", errors="replace"))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: the TOML, and the remarks.")
def import_(format_: str, file: Any, as_json: bool) -> None:
    """Turn FILE (- is standard input) into master.toml, on standard output.

    FORMAT is keepalived.conf, ldirectord.cf or ipvsadm-save (what `ipvsadm -S` or `feedback save` printed). What could
    not be carried over is said on standard error, line by line; the exit status is 0 all the same.

    \b
    feedback import keepalived.conf /etc/keepalived/keepalived.conf > /etc/feedback/master.toml
    feedback master check
    """
    from feedback.importers import ImportFormatError, as_toml

    name = getattr(file, "name", "<stdin>")
    try:
        found = _read(format_, file.read(TEXT_MAX))
    except ImportFormatError as error:
        raise Failure(f"{name}: {error}") from None
    text = as_toml(found.services, name)
    if as_json:
        remarks = [{"line": r.line, "text": r.text} for r in found.remarks]
        told({"toml": text, "services": len(found.services), "remarks": remarks})
        return
    click.echo(text, nl=False)
    for remark in found.remarks:
        click.echo(f"{name}: {remark}", err=True)
    click.echo(f"{name}: {len(found.services)} services, {len(found.remarks)} remarks", err=True)


def _read(format_: str, text: str) -> Imported:
    from feedback.importers import keepalived, ldirectord, rules

    match format_:
        case "keepalived.conf":
            return keepalived.read(text)
        case "ldirectord.cf":
            return ldirectord.read(text)
        case _:
            return rules.read(text)
