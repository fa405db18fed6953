"""`feedback lab`: a whole LVS cluster on this machine, on a real kernel, and figures of what it does under load."""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from feedback.cli.asking import told
from feedback.cli.errors import Failure

if TYPE_CHECKING:
    from feedback.lab.runner import Result

INCONCLUSIVE_STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again

kernel_option = click.option(
    "--kernel",
    metavar="KERNEL",
    help="uml: a kernel as a process, any user, no modules of the host. native: this one, with root and IPVS, in "
    "namespaces. qemu:NAME: Debian's, in QEMU; NAME is a version (6.1, 6.12.117), a suite (trixie-backports) or "
    "`newest`. Default: uml where it is installed, since its figures do not depend on what else this machine does.",
)
processor_speed_option = click.option(
    "--processor-speed",
    type=click.FloatRange(0.1, 10),
    default=1.0,
    show_default=True,
    help="Speed of the guest's processor relative to the one that the lab's figures were made on. uml only.",
)
stolen_option = click.option(
    "--stolen",
    type=click.FloatRange(0, 0.9),
    default=0.0,
    show_default=True,
    help="Part of the guest's busy time that an imaginary host takes away while its clock goes on, as in a starved "
    "virtual machine. uml only.",
)
processors_option = click.option(
    "--processors",
    type=click.IntRange(1, 16),
    help="Processors of a guest in QEMU. Default: 1.",
)
accel_option = click.option(
    "--accel",
    type=click.Choice(["kvm", "tcg"]),
    help="How QEMU runs a guest: kvm uses the processor's virtualisation; tcg emulates, so that its time does "
    "not depend on this machine's load. Default: kvm where it really boots a guest.",
)
first_option, second_option = (
    click.option(
        f"--{which}-kernel",
        type=click.Choice(["uml"]),
        help=f"Kernel of the {which} director of a pair (takeover, handover): uml within the guest, so that the "
        "directors run different kernels with one clock.",
    )
    for which in ("first", "second")
)
firewall_option = click.option(
    "--firewall",
    type=click.Choice(["strict"]),
    help="The firewall on both directors of a pair: strict drops what is not accepted, what is invalid, and what "
    "begins without a SYN (docs/firewall.md).",
)
output_option = click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where logs, samples, records and the picture go. Default: lab-output/SCENARIO-TIME.",
)
seed_option = click.option(
    "--seed", type=int, default=1, show_default=True, help="Seed of the requests; one seed, one load."
)


@click.group()
def lab() -> None:
    """Run a whole LVS cluster on this machine, on a real kernel.

    Client, director and real servers are network namespaces, and the real servers' speeds are cgroup quotas. Agents,
    master, HTTP servers, clients and IPVS are the real ones. The kernel is booted as an ordinary process (User Mode
    Linux, Debian package user-mode-linux, 2 s). If that is not installed, this machine's own is used, provided it has
    IPVS and you are root."""


@lab.command("list")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def list_command(as_json: bool) -> None:
    """List the scenarios."""
    from feedback.lab import scenarios

    found = [scenarios.named(name) for name in scenarios.names()]
    if as_json:
        rows = [{"name": s.name, "summary": s.summary, "policies": s.variants, "seconds": s.seconds} for s in found]
        told({"scenarios": rows})
        return
    for scenario in found:
        click.echo(f"{scenario.name:10} {scenario.summary}")


@lab.command()
@click.argument("scenario")
@click.option("--law", help="The law of the policy `feedback`. Default: the scenario's own, mostly `capacity`.")
@click.option("--scheduler", help="The kernel's scheduler instead of our default.")
@click.option("--adopt", is_flag=True, help="Somebody else owns the service, with wlc; the master only adjusts it.")
@click.option(
    "--source",
    metavar="SOURCE",
    help="One more policy, in which the master has this source instead of agents: `exporter`, Debian's "
    "prometheus-node-exporter on each; `none`, nothing but what the director sees. `hog` has them.",
)
@click.option("--seconds", type=float, help="Seconds of load in each policy's run. Default: the scenario's own.")
@seed_option
@kernel_option
@processor_speed_option
@stolen_option
@processors_option
@accel_option
@first_option
@second_option
@firewall_option
@click.option("--only", metavar="POLICY,...", help="Only these policies; figures that compare others are left out.")
@output_option
@click.option("--json", "as_json", is_flag=True, help="The last line of standard output is one JSON object.")
def run(
    scenario: str,
    law: str | None,
    scheduler: str | None,
    adopt: bool,
    source: str | None,
    seconds: float | None,
    seed: int,
    kernel: str | None,
    processor_speed: float,
    stolen: float,
    processors: int | None,
    accel: str | None,
    first_kernel: str | None,
    second_kernel: str | None,
    firewall: str | None,
    only: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Run SCENARIO, judge its figures, and report them: a table, a picture, result.json.

    Each policy runs in its own guest on its own core, at most two at a time, with the same requests. Progress is on
    standard error. With uml a guest has its own time: other work on this machine makes a run longer and changes no
    figure.

    \b
    Exit status
      0   every bound holds
      1   a bound is missed, or the scenario could not be run
      75  inconclusive: other work on this machine affected the figures too much. No bound
          is judged and no picture is drawn; run it again when the machine has less to do.
    """
    policies = tuple(only.split(",")) if only else ()
    if first_kernel and second_kernel:
        raise click.UsageError("--first-kernel and --second-kernel: one of the two must have the guest's own kernel")
    foreign = "d1" if first_kernel else "d2" if second_kernel else ""
    options = {"law": law, "scheduler": scheduler, "adopt": adopt, "seed": seed, "foreign": foreign}
    options |= {"firewall": firewall or "", "source": source or ""}
    where = _Where(kernel, processors, accel, processor_speed, stolen)
    result = _run(scenario, output, where, policies, seconds, options, as_json=as_json)
    if as_json:
        told(result.as_json())
    sys.exit(_status(result))


@lab.command()
@seed_option
@kernel_option
@output_option
def demo(seed: int, kernel: str | None, output: Path | None) -> None:
    """Race LVS as people run it against feedback, side by side, in about a minute and a half.

    This is the scenario `hog` with two of its policies: four real servers of unequal speed under one service; halfway
    through a CPU hog starts on the largest. Left is wlc with equal weights, right are agents and master. It ends with a
    table and a picture.

    If other work on this machine affected the figures too much, it runs once more by itself. The exit status is
    that of `feedback lab run`.
    """
    result = _demo(output, kernel, seed)
    if result.disturbed:
        click.echo(f"Once more, since the first run was inconclusive: {result.disturbed}.", err=True)
        result = _demo(output, kernel, seed)
    sys.exit(_status(result))


def _demo(output: Path | None, kernel: str | None, seed: int) -> Result:
    return _run("hog", output, _Where(kernel), ("wlc", "feedback"), None, {"seed": seed}, as_json=False)


def _status(result: Result) -> int:
    if result.disturbed:
        return INCONCLUSIVE_STATUS
    return 1 if result.failures else 0


@dataclass(frozen=True, slots=True)
class _Where:
    """The guest, as the command line describes it."""

    kernel: str | None
    processors: int | None = None
    accelerator: str | None = None
    processor_speed: float = 1.0
    stolen: float = 0.0


def _run(
    name: str,
    output: Path | None,
    where: _Where,
    policies: tuple[str, ...],
    seconds: float | None,
    options: dict[str, Any],
    *,
    as_json: bool,
) -> Result:
    from feedback.lab import runner, scenarios
    from feedback.lab.error import LabError
    from feedback.lab.job import Options
    from feedback.lab.kernel import Processor, choose
    from feedback.lab.live import Progress
    from feedback.lab.report import picture, table

    # SIGTERM ends a run as Ctrl-C does: by an exception, on whose way out the guests are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        scenario = scenarios.named(name)
        chosen = Options(seconds=seconds or scenario.seconds, **options)
        directory = output or Path("lab-output") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        processor = Processor(where.processor_speed, where.stolen)
        kernel = choose(where.kernel, processor, processors=where.processors, accelerator=where.accelerator)
        with Progress(scenario, chosen) as progress:
            result = runner.run(name, directory, options=chosen, kernel=kernel, only=policies, watch=progress)
        drawn = picture(result, scenario, chosen, policies)
    except LabError as error:
        raise Failure(str(error)) from None
    table(result, stderr=as_json)
    click.echo(drawn, err=as_json)
    return result
