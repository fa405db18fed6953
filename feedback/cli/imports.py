"""`feedback import`: another tool's configuration as ours. feedback.importers knows the formats; this reads the files
and their includes, and looks up names of services."""

from __future__ import annotations

import glob
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from feedback.cli.asking import told
from feedback.cli.errors import Failure

if TYPE_CHECKING:
    from feedback.importers import Imported

FORMATS = ("keepalived.conf", "ldirectord.cf", "ipvsadm-save")
TEXT_MAX = 16 * 1024 * 1024
FILES_MAX = 1024  # that one include may name
LEFT_OUT = 4  # exit status


@click.command("import")
@click.argument("format_", metavar="FORMAT", type=click.Choice(FORMATS))
@click.argument("file", type=click.File("r", encoding="utf-8", errors="surrogateescape"))
@click.option("--strict", is_flag=True, help="If anything is left out, print no TOML.")
@click.option("--instance", default="", metavar="NAME", help="keepalived's -i: which @NAME lines count.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: the TOML, and the remarks.")
def import_(format_: str, file: Any, strict: bool, instance: str, as_json: bool) -> None:
    """Turn FILE (- is standard input) into master.toml, on standard output.

    FORMAT is keepalived.conf, ldirectord.cf or ipvsadm-save (what `ipvsadm -S` or `feedback save` printed). Files that
    a keepalived.conf includes are read too. Whatever could not be carried over is reported on standard error, line by
    line, and the exit status is 4 then. A line with "note" says how the other tool reads the file; we read it alike.

    \b
    feedback import keepalived.conf /etc/keepalived/keepalived.conf > /etc/feedback/master.toml
    feedback master check
    """
    from feedback.importers import ImportFormatError, as_toml

    name = getattr(file, "name", "<stdin>")
    try:
        found = read_file(format_, name, file, instance)
    except (ImportFormatError, OSError) as error:
        raise Failure(f"{name}: {error}") from None
    if not found.services and not as_json:
        for remark in found.remarks:
            click.echo(f"{name}: {remark}", err=True)
        raise Failure(f"{name}: none of its services can be carried over")
    refused = strict and not found.lossless
    written = "" if refused else as_toml(found.services, name)
    if as_json:
        remarks = [{"file": r.file, "line": r.line, "text": r.text, "note": r.note} for r in found.remarks]
        told({"toml": written, "services": len(found.services), "lossless": found.lossless, "remarks": remarks})
    else:
        click.echo(written, nl=False)
        for remark in found.remarks:
            click.echo(f"{name}: {'note: ' if remark.note else ''}{remark}", err=True)
        left_out = sum(not r.note for r in found.remarks)
        click.echo(f"{name}: {len(found.services)} services; remarks on omissions: {left_out}", err=True)
    if refused and not as_json:
        click.echo(f"feedback: {name}: something was left out, so --strict prints no TOML", err=True)
    if not found.lossless:
        raise SystemExit(LEFT_OUT)


def read_file(format_: str, name: str, file: TextIO, instance: str = "") -> Imported:
    """Raises ImportFormatError."""
    from feedback.importers import ImportFormatError, keepalived, ldirectord, rules

    text = file.read(TEXT_MAX + 1)
    if len(text) > TEXT_MAX:
        raise ImportFormatError(f"more than {TEXT_MAX} characters")
    match format_:
        case "keepalived.conf":
            include = None if name == "<stdin>" else _included
            return keepalived.read(text, include=include, instance=instance, name=name)
        case "ldirectord.cf":
            return ldirectord.read(text, port_of=_port_of)
        case _:
            return rules.read(text, port_of=_port_of)


def _port_of(name: str, protocol: str) -> int | None:
    try:
        return socket.getservbyname(name, protocol) if protocol else socket.getservbyname(name)
    except OSError:
        return None


def _included(pattern: str, file: str) -> list[tuple[str, str]]:
    """The files that match, relative to the including file: as keepalived does, only regular ones without execute
    permission."""
    found: list[tuple[str, str]] = []
    left = TEXT_MAX
    for name in sorted(glob.glob(str(Path(file).parent / pattern))):  # noqa: PTH207 - a pattern may be absolute
        mode = Path(name).stat().st_mode
        if not stat.S_ISREG(mode) or mode & 0o111:
            raise OSError(f"{name}: not a regular file without execute permission, so keepalived skips it")
        with Path(name).open("rb") as opened:
            text = opened.read(left + 1).decode("utf-8", "surrogateescape")
        left -= len(text)
        found.append((name, text))
        if left < 0 or len(found) > FILES_MAX:
            raise OSError(f"more than {TEXT_MAX} bytes, or {FILES_MAX} files")
    return found
