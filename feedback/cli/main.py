"""The `feedback` command: finds a subcommand and loads only that one (a start in the lab's guest costs seconds)."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import click

from feedback import __version__

COMMANDS = {
    "agent": ("feedback.cli.agent:agent", "Run the agent of a real server, or check its configuration."),
    "master": ("feedback.cli.master:master", "Run the master of a director, or check its configuration."),
    "sync": ("feedback.cli.sync:sync", "Run this director's part of a pair, hand over, check, resync."),
    "show": ("feedback.cli.show:show", "Show services and destinations with load, target and age."),
    "explain": ("feedback.cli.show:explain", "Explain why a destination has its weight."),
    "top": ("feedback.cli.top:top", "Watch services live: sort, drain, explain by single keys."),
    "drain": ("feedback.cli.orders:drain", "Take a destination out; its connections go on."),
    "undrain": ("feedback.cli.orders:undrain", "Put a drained destination back into service."),
    "cut": ("feedback.cli.cuts:cut", "End the flows of a destination now, at both ends."),
    "promote": ("feedback.cli.cuts:promote", "Give a destination the first place of its failover service."),
    "override": ("feedback.cli.orders:override", "Give a destination a weight by hand, for a while."),
    "pause": ("feedback.cli.orders:pause", "Write nothing for a while: weights stay as they are."),
    "resume": ("feedback.cli.orders:resume", "End a pause."),
    "orders": ("feedback.cli.orders:orders", "List the drains, overrides and pauses in force."),
    "events": ("feedback.cli.events:events", "Print events as JSON lines, and follow them."),
    "save": ("feedback.cli.table:save", "Print the kernel's table as ipvsadm rules, with thresholds."),
    "restore": ("feedback.cli.table:restore", "Make the kernel's table match a file, by difference."),
    "check": ("feedback.cli.check:check", "Check every configuration present."),
    "import": ("feedback.cli.imports:import_", "Turn keepalived, ldirectord or ipvsadm files into our TOML."),
    "steer": ("feedback.cli.steer:steer", "Show or remove the marks, rules and routes that lead ranges to IPVS."),
    "doctor": ("feedback.cli.doctor:doctor", "Find what is wrong on this machine, and how to fix it."),
    "keys": ("feedback.cli.keys:keys", "Make, show, enroll, list and revoke keys."),
    "record": ("feedback.cli.record:record", "Record reports and kernel counts, to replay them with another law."),
    "plot": ("feedback.cli.plot:plot", "Draw a recording: shares, loads, connections over time."),
    "simulate": ("feedback.cli.simulate:simulate", "Try laws on a model of a pool, beside an oracle."),
    "completion": ("feedback.cli.completion:completion", "Print the completion script for bash, zsh or fish."),
    "lab": ("feedback.cli.lab:lab", "Run a whole LVS cluster on this machine, on a real kernel."),
}


class Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, (place, _) in COMMANDS.items() if find_spec(place.partition(":")[0]) is not None]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        if name not in self.list_commands(ctx):
            ctx.fail(f"this is the agent's package: {name} is a command of the whole one, lvs-feedback")
        module, attribute = COMMANDS[name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        import difflib

        near = difflib.get_close_matches(args[0], COMMANDS, 1)
        if args[0] not in COMMANDS and near:
            ctx.fail(f"No such command {args[0]!r}: did you mean {near[0]}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="feedback")
def main() -> None:
    """Load-informed scheduling for Linux Virtual Server.

    Agents on the real servers report their load; the master on the director turns it into IPVS weights.

    Exit status: 0 done, 1 failed, 2 wrong usage, 3 no daemon answers, 4 import left something out.
    """
