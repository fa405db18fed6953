"""`feedback agent`: the daemon on a real server, and its check. Its work is in feedback.agent.daemon."""

from __future__ import annotations

from pathlib import Path

import click

from feedback.cli.errors import Failure

CONFIG = "/etc/feedback/agent.toml"


_config = click.option(
    "--config",
    "-c",
    "path",
    type=click.Path(path_type=Path),
    default=None,
    help=f"The configuration file (default: {CONFIG}).",
)


@click.group(invoke_without_command=True)
@_config
@click.pass_context
def agent(context: click.Context, path: Path | None) -> None:
    """Measure this real server and report to every master, in the foreground.

    Needs no privilege. SIGHUP reads the configuration again and keeps the old one if it has an error; SIGTERM stops.
    """
    context.obj = path
    if context.invoked_subcommand is None:
        _run(path or Path(CONFIG))


@agent.command()
@_config
@click.pass_context
def check(context: click.Context, path: Path | None) -> None:
    """Check configuration, key and signals; one line, exit 0 or 1."""
    click.echo(checked(path or context.obj or Path(CONFIG)))


def checked(path: Path) -> str:
    """The line for a good configuration. Raises Failure."""
    from feedback.agent import daemon
    from feedback.agent.signals.files import SignalError
    from feedback.config.strict import ConfigError
    from feedback.ops.keys import KeyFileError

    try:
        return f"{path}: good: {daemon.probe(daemon.check(path))}"
    except (ConfigError, KeyFileError) as error:
        raise Failure(str(error)) from None
    except SignalError as error:
        raise Failure(f"{path}: {error}") from None


def _run(path: Path) -> None:
    from feedback.agent import daemon

    reason = daemon.run(path)
    if reason is not None:
        raise Failure(reason)
