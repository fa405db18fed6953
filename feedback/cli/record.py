"""`feedback record`: the master's input from agents and kernel, into a file for `feedback simulate --replay`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from feedback.cli.asking import control_option, told
from feedback.cli.duration import Duration
from feedback.cli.errors import Failure, Unreachable

FLUSH_SECONDS = 2.0
TELL_SECONDS = 10.0
MEGABYTE = 1_000_000


@click.command()
@click.option(
    "--output",
    "-o",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="A new file; compressed if its name ends in .gz (a tenth of the size).",
)
@click.option("--for", "seconds", type=Duration(), default="1h", show_default=True, help="How long to record.")
@click.option(
    "--max-size",
    type=click.IntRange(1, 100_000),
    default=500,
    show_default=True,
    help="The largest size in MB: recording stops there.",
)
@control_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def record(path: Path, seconds: float, max_size: int, control: Path, as_json: bool) -> None:
    """Record the master's input from agents and kernel, to replay it with another law.

    The master does not wait for a slow recorder but cuts it off. Ctrl-C ends the recording; the file can be used, even
    after a full disk. `feedback simulate --replay FILE --law LAW` reads it.
    """
    from feedback.ops.control import ControlError, NotRunningError, follow
    from feedback.simulate.tape import FullError, Tape

    began, count, why = time.monotonic(), 0, ""
    lines = follow(control, {"command": "record"})
    try:
        first = next(lines)  # before there is a file
        with Tape(path, max_size * MEGABYTE) as tape:
            tape.put(first)
            count = 1
            flushed = told = began
            for line in lines:
                tape.put(line)
                count += 1
                now = time.monotonic()
                if now - flushed >= FLUSH_SECONDS:
                    tape.flush()
                    flushed = now
                if now - told >= TELL_SECONDS:
                    click.echo(f"{now - began:6.0f} s  {count} entries, {tape.written / MEGABYTE:.1f} MB", err=True)
                    told = now
                if now - began >= seconds:
                    break
    except NotRunningError as error:
        raise Unreachable(str(error)) from None
    except (ControlError, FullError) as error:
        why = str(error)
    except FileExistsError:
        raise Failure(f"{path}: already exists: choose another name") from None
    except OSError as error:
        raise Failure(f"{path}: cannot be written: {error.strerror}") from None
    except KeyboardInterrupt:
        click.echo("", err=True)
    _tell(path, time.monotonic() - began, count, why, as_json=as_json)


def _tell(path: Path, seconds: float, count: int, why: str, *, as_json: bool) -> None:
    if not count:
        raise Failure(why or "nothing was recorded")
    size = path.stat().st_size
    if as_json:
        found = {"path": str(path), "seconds": round(seconds, 1), "entries": count, "bytes": size, "ended_early": why}
        told(found)
    else:
        click.echo(f"{path}: {seconds:.0f} s, {count} entries, {size / MEGABYTE:.1f} MB")
    if why:
        raise Failure(f"ended early: {why}; the recorded part can be replayed")
