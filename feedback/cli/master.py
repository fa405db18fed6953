"""`feedback master`: run the master in the foreground, or check its configuration."""

from __future__ import annotations

import difflib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from feedback.cli.errors import Failure
from feedback.config import MASTER_PATH
from feedback.refusals import printable

if TYPE_CHECKING:
    from feedback.config import MasterConfig

SYSTEMD = Path("/run/systemd/system")  # exists where systemd is the init of this host
UNIT = "feedback-master.service"

config_option = click.option(
    "--config",
    "-c",
    "path",
    type=click.Path(path_type=Path),
    default=MASTER_PATH,
    show_default=True,
    help="The configuration, TOML.",
)


@click.group(invoke_without_command=True)
@config_option
@click.option("--verbose", is_flag=True, help="Log more.")
@click.pass_context
def master(ctx: click.Context, path: Path, verbose: bool) -> None:
    """Run the master of this director in the foreground.

    It sets weights from agents' reports and the kernel's counts. SIGTERM stops it and leaves the weights as they are;
    SIGHUP reads configuration and enrolments again. It needs CAP_NET_ADMIN.
    """
    ctx.obj = path
    if ctx.invoked_subcommand is None:
        _run(path, verbose)


@master.command()
@click.option("--config", "-c", "path", type=click.Path(path_type=Path), default=None, help="Another file.")
@click.pass_obj
def check(default: Path, path: Path | None) -> None:
    """Check the configuration, the key and the enrolments; change nothing."""
    click.echo(checked(path or default))


def checked(chosen: Path) -> str:
    """What is said of a good configuration: a line, and one for each remark. Raises Failure."""
    from feedback.config import ConfigError, MasterConfig, cuts, load
    from feedback.master import Controller
    from feedback.master.laws import UnknownLawError
    from feedback.ops import keys
    from feedback.ops.keys import KeyFileError

    try:
        config = load(chosen, MasterConfig)
        keys.load_secret(config.key)
        agents = keys.enrolled(config.enrolled)
    except (ConfigError, KeyFileError) as error:
        raise Failure(str(error)) from None
    try:
        Controller(config)
    except (ConfigError, UnknownLawError) as error:  # these know no file
        raise Failure(f"{chosen}: {error}") from None
    for problem in agents.problems:
        raise Failure(problem)
    if cuts(config) and (problem := _cannot_cut()):
        raise Failure(f'{chosen}: on_failure: "cut" needs CAP_NET_RAW, which {problem}')
    services = f"{len(config.service)} services" if config.service else "all services of the kernel"
    good = f"{chosen}: good: {services}, {len(agents.by_key)} agents enrolled"
    return "\n".join([good, *(f"{chosen}: {remark}" for remark in _of_schedulers(config))])


def _of_schedulers(config: MasterConfig) -> Iterator[str]:
    """One that Linux has not may be a module of somebody's own."""
    from feedback.master.traits import TRAITS

    for i, service in enumerate(config.service):
        name = service.scheduler
        if name is not None and name not in TRAITS:
            near = difflib.get_close_matches(name, TRAITS, 1, 0.6)
            advice = f"did you mean {near[0]}?" if near else f"it has {', '.join(TRAITS)}."
            yield f"service[{i}].scheduler: Linux has no {printable(name)}: {advice} Another's only gets zero or not"


def _cannot_cut() -> str:
    """Who lacks the capability, with the remedy; '' if nobody does. If systemd runs, the unit is asked."""
    from feedback.ops import process

    if not process.may_send_raw():
        return "this process lacks: check as root"
    if not SYSTEMD.is_dir():
        return ""
    command = ["systemctl", "show", "--property=LoadState,AmbientCapabilities", UNIT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    if "LoadState=loaded" not in done.stdout or "cap_net_raw" in done.stdout.lower():
        return ""
    return f"{UNIT} lacks: examples/cut.conf is a drop-in for it, then systemctl daemon-reload"


def _run(path: Path, verbose: bool) -> None:
    from feedback.master.shell import daemon

    reason = daemon.run(path, "debug" if verbose else "info")
    if reason is not None:
        raise Failure(reason)
