"""Two whole ranges as services by firewall mark: through a takeover, undone by hand, and removed again.

No director has an address of the ranges: the clients' next hop is the VIP, and the masters mark, on both directors.
On the standby everything is undone by hand, removed by `feedback steer remove`, and made again by a reload. Then the
active director dies, and all of it is undone and removed on the new active one too. Marks, rules and routes of others
stay beside it all the time. The watcher keeps asking on the service network who has an address of the ranges.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from feedback.lab import network
from feedback.lab.bounds import Bound
from feedback.lab.error import LabError
from feedback.lab.figures import Figures
from feedback.lab.job import Job, Options
from feedback.lab.pair import figures as pair_figures
from feedback.lab.pair import ranges
from feedback.lab.pair.course import AFTER_SECONDS
from feedback.lab.pair.injury import Death
from feedback.lab.pair.product import COMMAND, Product
from feedback.lab.pair.stand import PYTHON, PairStand
from feedback.lab.pair.topology import DIRECTORS, VIP, VIP6, WATCHER, Node, pair
from feedback.lab.scenario import Scenario
from feedback.lab.trace import Trace
from feedback.lab.workload.streams import Plan

CONNECTIONS = 400
DOWNLOADS = 7
BEFORE_SECONDS = 1.0  # what was sent then may still be under way at the death
ANSWERS = "asker.json"
RESTORED_MS = 5000
PATIENCE_SECONDS = 20.0
LOOK_SECONDS = 0.1


class Range(Scenario):
    name = "range"
    summary = "ranges of addresses that nobody has, through a takeover; undone by hand, and removed"
    variants = ("feedback",)
    seconds = 30.0
    seconds_least = 20.0
    quotas = ()
    law = "static"
    scheduler = "wlc"
    bounds = (
        Bound("flows", least=CONNECTIONS + DOWNLOADS),
        Bound("survived", least="flows"),
        Bound("vip_ms", most=200),
        Bound("gap_max_ms", most=260),
        Bound("vip_answers", least=1),
        Bound("arp_answers", most=0),
        Bound("restored_ms", most=RESTORED_MS),
        Bound("left_behind", most=0),
    )

    def run(self, job: Job, output: Path) -> None:
        first, second = DIRECTORS
        with PairStand(pair(job.run), output) as stand:
            ranges.lay(stand.pair)
            before = {director.name: ranges.state(stand.pair, director.name) for director in DIRECTORS}
            both = Product(stand, masters=True, services=ranges.services(stand.pair))
            course = _Course(stand, both, before)
            both.start(first)
            stand.wait_for_owner(first)
            stand.wait_for("the services", lambda: list(stand.machines[first.name].table().values()) == [3] * 4)
            both.start(second)
            both.wait_until_standby(second)
            for director in DIRECTORS:
                course.wait_until_made(director)
            addresses = [str(address) for address in (VIP, VIP6, *ranges.asked())]
            asker = [*PYTHON, "feedback.lab.pair.asker", str(output / ANSWERS), *addresses]
            stand.processes.start("asker", asker, namespace=stand.pair.namespace(WATCHER.name))
            stand.start_client(_plan(job.options))
            start = stand.wait_until_established()
            stand.event("start", start)
            course.undo(second)
            course.remove(second)
            course.make_again(second)
            death = Death(stand.pair, first)
            stand.sleep_until(start + job.options.seconds - AFTER_SECONDS)
            died = stand.strike(death, first)
            stand.sleep_until(died + AFTER_SECONDS)
            course.undo(second)
            stand.wake()
            stand.wait_until_woken()
            stand.finish()
            stand.processes.kill("asker", signal.SIGTERM)
            course.remove(second)
            both.tell()

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {}
        for variant, trace in traces.items():
            died = trace.moment("death")
            made = pair_figures.of_takeover(pair_figures.read_looks(trace), died) | pair_figures.common(trace)
            # Only during the takeover: later everything is undone, and flows wait until it is restored.
            delay = pair_figures.delay_max_ms(trace.records, died - BEFORE_SECONDS, died + AFTER_SECONDS / 2)
            own = of_ranges(trace) | {"flows": made["established"], "gap_max_ms": delay}
            found |= pair_figures.named(variant, made | own)
        return found


def of_ranges(trace: Trace) -> Figures:
    """`restored_ms` is the longest time until all that was undone on a director was there again; `left_behind` counts
    the lines by which what the commands say after a removal differs from what they said before all."""
    restored = [event.details["seconds"] for event in trace.events if event.what == "steer restored"]
    left = [event.details["lines"] for event in trace.events if event.what == "steer removed"]
    path = trace.output / ANSWERS
    answers: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    vips = [answers.pop(str(vip), 0) for vip in (VIP, VIP6)]
    return {
        "arp_answers": sum(answers.values()) if answers else math.nan,
        "vip_answers": min(vips),
        "restored_ms": 1000 * max(restored, default=math.nan),
        "left_behind": sum(map(len, left)) if left else math.nan,
    }


class _Course:
    """What is done to a director's rules. `before` is the output of its commands when only others' rules existed."""

    def __init__(self, stand: PairStand, both: Product, before: Mapping[str, dict[str, list[str]]]) -> None:
        self.stand, self.both, self.before = stand, both, before
        self.made: dict[str, dict[str, list[str]]] = {}

    def state(self, director: Node) -> dict[str, list[str]]:
        return ranges.state(self.stand.pair, director.name)

    def wait_until_made(self, director: Node) -> None:
        """Wait until the master says that they are made, and record what they look like."""
        self.stand.wait_for(f"the marks of {director.name}", lambda: self._settled(director), PATIENCE_SECONDS)
        self.made[director.name] = self.state(director)
        if self.made[director.name] == self.before[director.name]:
            raise LabError(f"{director.name}: its master says that all is made, and nothing is there")

    def _settled(self, director: Node) -> bool:
        machine = self.both.machine(director)
        answer = machine.ask(self.both.master_control(director), {"command": "steer"}) or {}
        return answer.get("state") == "kept" and bool(answer.get("settled"))

    def undo(self, director: Node) -> None:
        """Undo everything, and wait until it is restored."""
        ranges.undo(self.stand.pair, director.name)
        undone = self.stand.now()
        if self.state(director) == self.made[director.name]:
            raise LabError(f"{director.name}: what was undone is still there")
        done = self._wait(director, self.made[director.name])
        self.stand.event("steer restored", director=director.name, seconds=done - undone)

    def _wait(self, director: Node, wanted: dict[str, list[str]]) -> float:
        """Infinity if it does not come."""
        deadline, done, left = self.stand.now() + PATIENCE_SECONDS, 0.0, dict(wanted)
        while left:  # a program takes 0.1 s here, so only what is still missing is asked for again
            for command, lines in list(left.items()):
                if ranges.told(self.stand.pair, director.name, command) == lines:
                    done = self.stand.now()
                    del left[command]
            if self.stand.now() > deadline:
                break
            self.stand.sleep_until(self.stand.now() + LOOK_SECONDS)
        if differing := _differing(wanted, self.state(director)):
            self.stand.event("steer differs", director=director.name, lines=differing)
            return math.inf
        return done

    def remove(self, director: Node) -> None:
        """Remove everything by the command, as an operator would."""
        directory = self.stand.output / director.name
        directory.mkdir(exist_ok=True)
        own = directory / "master.toml"
        own.unlink(missing_ok=True)
        own.symlink_to(self.both.directory / f"{director.name}-master.toml")
        command = [*COMMAND, "steer", "remove", "--directory", str(directory), "--json"]
        with network.entered(self.stand.pair.namespace(director.name)):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"feedback steer remove: {done.stderr.strip()}")
        differing = _differing(self.before[director.name], self.state(director))
        self.stand.event("steer removed", director=director.name, lines=differing, told=json.loads(done.stdout))

    def make_again(self, director: Node) -> None:
        self.both.machine(director).signal(f"{director.name}-master", signal.SIGHUP)
        self.stand.wait_for(f"the marks of {director.name}", lambda: self._settled(director), PATIENCE_SECONDS)
        if again := _differing(self.made[director.name], self.state(director)):
            raise LabError(f"{director.name}: after a reload it is not as before: {again}")


def _differing(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> list[str]:
    """Lines that came or went, each with its sign, and one line for each command where only the order differs."""
    found = []
    for command, lines in before.items():
        gone = [f"- {line}" for line in lines if line not in after[command]]
        come = [f"+ {line}" for line in after[command] if line not in lines]
        moved = [f"? {command}: another order"] * (not gone and not come and lines != after[command])
        found += [*gone, *come, *moved]
    return found


def _plan(options: Options) -> Plan:
    return Plan(
        targets=ranges.targets(),
        connections=CONNECTIONS,
        seed=options.seed,
        idle=0.2,
        rate=150.0,
        downloads=DOWNLOADS,
        download_seconds=options.seconds + 2,
    )


SCENARIO = Range()
