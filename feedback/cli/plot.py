"""`feedback plot`: a recording as a picture. feedback.simulate.plot draws it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from feedback.cli.duration import Duration
from feedback.cli.errors import Failure

if TYPE_CHECKING:
    from feedback.master.shell.recording import Entry


@click.command()
@click.argument("recording", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--for", "seconds", type=Duration(), default="1h", show_default=True, help="Only its last part, of this length."
)
@click.option(
    "--output",
    "-o",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="An SVG file, replaced if it exists.",
)
def plot(recording: Path, seconds: float, path: Path) -> None:
    """Draw a recording of `feedback record`: shares, loads, open and new connections of each destination over time."""
    from feedback.master.shell.recording import RecordingError, read
    from feedback.simulate.plot import Plot
    from feedback.simulate.tape import lines

    def entries() -> Iterator[Entry]:
        return read(lines(recording), str(recording))

    try:
        drawn = Plot(entries, seconds).svg()
    except RecordingError as error:
        raise Failure(str(error)) from None
    except ValueError as error:
        raise Failure(f"{recording}: {error}") from None
    except (OSError, zlib.error) as error:
        raise Failure(f"{recording}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        path.write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{path}: cannot be written: {error.strerror}") from None
    click.echo(f"{path}: drawn")
