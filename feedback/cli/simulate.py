"""`feedback simulate`: the real controller against a model of a pool, under every law, compared with an oracle."""

from __future__ import annotations

import json
import sys
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from feedback.cli.errors import Failure
from feedback.config import ConfigError

if TYPE_CHECKING:
    from feedback.simulate.case import Case
    from feedback.simulate.run import Outcome
    from feedback.simulate.verdict import Check, Results

NOT_AMONG_EQUALS = ("static", "failover", "overflow", "spillover")  # the last three go by the priority of servers


@click.command()
@click.option("--list", "list_cases", is_flag=True, help="List the built-in cases and the laws.")
@click.option("--suite", is_flag=True, help="All built-in cases (the default).")
@click.option("--case", "names", multiple=True, metavar="NAME", help="A built-in case; may be given again.")
@click.option(
    "--scenario",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A case of your own, TOML (docs/simulate.md); may be given again.",
)
@click.option(
    "--servers",
    type=click.IntRange(1, 10_000),
    help="How many servers: the case's, repeated. Above 20,000 requests a second, each request costs more instead.",
)
@click.option(
    "--replay",
    "recording",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A recording (`feedback record`) instead of a case: what each --law would have done, beside the recording.",
)
@click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="For --replay: a master.toml, whose law_options, guards and thresholds count. Without --law: its own laws.",
)
@click.option(
    "--law",
    "laws",
    multiple=True,
    help="May be given again. Default: all but those of priority pools. `plain` and `oracle` always run. `exporter` "
    "and `no agent` are the law `capacity` with exporters' pages, and with only what the director itself sees.",
)
@click.option(
    "--scheduler",
    "schedulers",
    multiple=True,
    help="Instead of the case's own; in the suite, only those cases that have it. May be given again.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="One seed, the same arrivals for every policy.")
@click.option(
    "--seeds", type=click.IntRange(1, 100), default=1, show_default=True, help="Use so many seeds, and print the mean."
)
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes at a time.")
@click.option("--late/--no-late", default=True, help="Also run `capacity` with twice the delay of reports.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Draw a picture: .svg, .png or .pdf.")
@click.option("--json", "as_json", is_flag=True, help="The last line of standard output is one JSON object.")
def simulate(
    list_cases: bool,
    suite: bool,
    names: tuple[str, ...],
    files: tuple[Path, ...],
    servers: int | None,
    recording: Path | None,
    config: Path | None,
    laws: tuple[str, ...],
    schedulers: tuple[str, ...],
    seed: int,
    seeds: int,
    jobs: int,
    late: bool,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Try laws on a model of a pool: the same controller, no kernel, no waiting.

    Each case runs under each law on each scheduler, under `plain` (LVS with equal weights) and under an oracle that
    knows every server's true capacity. Prints a table of figures, and which of the project's promises hold. Exit 0 when
    the runs were made, whatever they show."""
    from feedback.simulate.verdict import average, checks

    if list_cases:
        _list()
        return
    if config is not None and recording is None:
        raise Failure("--config is for --replay: a case has its own options")
    if recording is not None:
        _replay(recording, config, laws, picture, as_json=as_json)
        return
    cases = _cases(names, files, servers, suite=suite)
    seeds_taken = range(seed, seed + seeds)
    only_own = suite or not (names or files)
    results = _run(cases, laws, schedulers, seeds_taken, jobs, late=late, only_own=only_own)
    averaged = average(results)
    _tell(averaged, list(seeds_taken), picture, as_json=as_json, checked=checks(averaged))


def _cases(names: tuple[str, ...], files: tuple[Path, ...], servers: int | None, *, suite: bool) -> list[Case]:
    from feedback.simulate import suite as built_in
    from feedback.simulate.case import enlarged, read

    try:
        chosen = [built_in.named(name) for name in names] + [read(path) for path in files]
    except (ConfigError, KeyError) as error:
        raise Failure(str(error.args[0])) from None
    cases = list(built_in.CASES) + [c for c in chosen if c not in built_in.CASES] if suite or not chosen else chosen
    return [enlarged(case, servers) for case in cases] if servers is not None else cases


def _laws(laws: tuple[str, ...]) -> list[str]:
    """The laws to run: by default, all that share a load among equals. `static` is `plain` here: equal weights."""
    from feedback.master.laws import UnknownLawError, load, names
    from feedback.simulate.policy import EXPORTER, NO_AGENT, ORACLE, PLAIN

    every = [law for law in names() if law not in NOT_AMONG_EQUALS]
    chosen = [law for law in laws or (*every, EXPORTER, NO_AGENT) if law not in (PLAIN, ORACLE)]
    try:
        for law in chosen:
            if law not in (EXPORTER, NO_AGENT):
                load(law)
    except UnknownLawError as error:
        raise Failure(str(error)) from None
    return [PLAIN, *chosen]


def _run(
    cases: list[Case],
    laws: tuple[str, ...],
    schedulers: tuple[str, ...],
    seeds: range,
    jobs: int,
    *,
    late: bool,
    only_own: bool,
) -> list[Outcome]:
    from feedback.simulate.case import SCHEDULERS
    from feedback.simulate.jobs import perform, plan

    for scheduler in schedulers:
        if scheduler not in SCHEDULERS:
            raise Failure(f"scheduler {scheduler!r} is not modelled: expected one of {', '.join(SCHEDULERS)}")
    planned = plan(cases, _laws(laws), schedulers, seeds, late=("capacity",) if late else (), only_own=only_own)
    began = time.monotonic()

    def tell(line: str) -> None:
        click.echo(f"{time.monotonic() - began:6.1f} s  {line}", err=True)

    return perform(planned, jobs, tell)


def _tell(results: Results, seeds: list[int], picture: Path | None, *, as_json: bool, checked: list[Check]) -> None:
    from rich.console import Console

    from feedback.simulate.picture import NoPictureError, draw
    from feedback.simulate.report import as_json as to_json
    from feedback.simulate.report import table, verdicts

    console = Console(stderr=as_json, width=None if sys.stdout.isatty() else 160)
    console.print(table(results))
    for line in verdicts(checked):
        click.echo(line, err=as_json)
    if picture is not None:
        try:
            click.echo(f"picture: {draw(picture, results)}", err=as_json)
        except (NoPictureError, OSError, ValueError) as error:
            raise Failure(str(error)) from None
    if as_json:
        click.echo(json.dumps(to_json(results, checked, seeds)))


def _replay(path: Path, config: Path | None, laws: tuple[str, ...], picture: Path | None, *, as_json: bool) -> None:
    from rich.console import Console

    from feedback.config import MasterConfig, load
    from feedback.master.laws import UnknownLawError
    from feedback.master.shell.recording import RecordingError, read
    from feedback.simulate.picture import NoPictureError, draw_histories
    from feedback.simulate.replay import recorded, replay
    from feedback.simulate.report import replay_as_json, replay_table
    from feedback.simulate.tape import lines

    try:
        master = load(config, MasterConfig) if config is not None else MasterConfig()
        own = tuple(dict.fromkeys(s.law for s in master.service)) or (master.law,)
        histories = [recorded(read(lines(path), str(path)))]
        histories += [replay(read(lines(path), str(path)), law, master) for law in laws or own]
    except (RecordingError, UnknownLawError, ConfigError) as error:
        raise Failure(str(error)) from None
    except (OSError, UnicodeDecodeError, zlib.error) as error:
        raise Failure(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not histories[0].moments:
        raise Failure(f"{path}: it has no look at the kernel")
    Console(stderr=as_json, width=None if sys.stdout.isatty() else 160).print(replay_table(histories))
    if picture is not None:
        try:
            click.echo(f"picture: {draw_histories(picture, histories)}", err=as_json)
        except (NoPictureError, OSError, ValueError) as error:
            raise Failure(str(error)) from None
    if as_json:
        click.echo(json.dumps(replay_as_json(histories)))


def _list() -> None:
    from feedback.master.laws import names
    from feedback.simulate.suite import CASES

    for case in CASES:
        click.echo(f"{case.name:14} {case.summary} (on {', '.join(case.schedulers)})")
    click.echo(f"laws: {', '.join(names())}; beside them: plain, oracle; capacity without agents: exporter, no agent")
