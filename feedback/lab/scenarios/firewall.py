"""A stateful firewall on both directors, and a thousand connections through it: takeover, and handover and back.

The rules are strict (`--firewall strict`, docs/firewall.md): a director without a tracking entry for a masqueraded
connection drops its packets, whatever IPVS knows. Five policies have the same clients and seed:

    feedback    the active director dies; the other writes the entries that it needs
    back        handed over and back: the first director's own entries are stale then
    unprimed    the active director dies, and no entries are written
    conntrackd  the same with conntrackd, which replicates a firewall's states and knows nothing of IPVS
    many        20,000 masqueraded connections, 19 in 20 of them idle: how long until all their entries exist
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from feedback.lab import network
from feedback.lab.bounds import Bound
from feedback.lab.figures import Figures
from feedback.lab.job import Job, Options
from feedback.lab.pair import conntrackd
from feedback.lab.pair import figures as pair_figures
from feedback.lab.pair.course import AFTER_SECONDS, CONNECTIONS, WAKE_SECONDS, begin, end, plan
from feedback.lab.pair.firewall import STRICT
from feedback.lab.pair.injury import Death
from feedback.lab.pair.product import Product
from feedback.lab.pair.stand import PairStand, targets
from feedback.lab.pair.topology import DIRECTORS, pair
from feedback.lab.scenario import PairScenario
from feedback.lab.trace import Trace
from feedback.lab.workload.streams import Plan

OFF = '[conntrack]\nmode = "off"\n'
SETTINGS = {"unprimed": OFF, "conntrackd": OFF}
MANY = 20_000
NEWEST = 1000
IDLE = 0.95
ESTABLISH_SECONDS = 120.0
SETTLED_SECONDS = 3.0  # by then the standby has what the last of many clients sent
MANY_AFTER_SECONDS = 4.0
WAKE_RATE = 1500.0
TRACKING_MAX = Path("/proc/sys/net/netfilter/nf_conntrack_max")
COUNT_SECONDS = 0.002
STANDS_SECONDS = 3.0  # between the handover and the handover back


class Firewall(PairScenario):
    name = "firewall"
    summary = "a stateful firewall on both directors, 1,000 connections through a takeover, and a handover and back"
    variants = ("feedback", "back", "unprimed", "conntrackd", "many")
    seconds = 22.0
    seconds_least = 18.0
    bounds = (
        Bound("established", least=CONNECTIONS),
        Bound("survived", least="established"),
        Bound("established_back", least=CONNECTIONS),
        Bound("survived_back", least="established_back"),
        Bound("gap_max_ms", most=260),
        Bound("survived_unprimed", most=0.6 * CONNECTIONS),  # or the rules are not strict, and nothing is shown
        Bound("many", least=MANY),
        Bound("many_survived", least="many"),
        Bound("newest_1000_ms", most=50),
        Bound("entries_ms", most=1000),
    )

    def run(self, job: Job, output: Path) -> None:
        options = msgspec.structs.replace(job.options, firewall=STRICT)
        with PairStand(pair(job.run), output, options) as stand:
            both = Product(stand, settings=SETTINGS.get(job.variant, ""))
            if job.variant == "conntrackd":
                conntrackd.start(stand.pair, stand.processes, both.directory)
            if job.variant == "many":
                _many(stand, both, options)
                return
            start = begin(stand, both, plan(options))
            stand.event("visits", found=stand.visit())
            moment = start + options.seconds - AFTER_SECONDS - WAKE_SECONDS
            if job.variant == "back":
                _and_back(stand, both, moment)
            else:
                death = Death(stand.pair, DIRECTORS[0])
                stand.sleep_until(moment)
                stand.strike(death, DIRECTORS[0])
            stand.sleep_until(stand.now() + AFTER_SECONDS)
            _tell_written(stand, both)
            end(stand, both)

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {}
        gaps = []
        for variant, trace in traces.items():
            made = pair_figures.common(trace)
            if variant == "many":
                found |= _of_many(trace, made)
                continue
            if variant in ("feedback", "back"):
                gaps.append(made["gap_max_ms"])
                found |= {f"gap_max_ms_{variant}": made["gap_max_ms"]}
            suffix = "" if variant == "feedback" else f"_{variant}"
            found |= {f"{name}{suffix}": made[name] for name in ("established", "survived")}
        return found | ({"gap_max_ms": max(gaps)} if gaps else {})


def _and_back(stand: PairStand, both: Product, moment: float) -> None:
    first, second = DIRECTORS
    stand.sleep_until(moment - STANDS_SECONDS)
    stand.event("handover", both.hand_over(first))
    stand.sleep_until(moment)
    stand.wait_for("the first one is complete", lambda: both.complete(first))
    stand.event("back", both.hand_over(second))


def _many(stand: PairStand, both: Product, options: Options) -> None:
    first, second = DIRECTORS
    TRACKING_MAX.write_text(f"{4 * MANY}\n", encoding="ascii")  # of all namespaces together; 8,192 in a guest of 1 GB
    both.start(first)
    both.wait_until_active(first)
    both.start(second)
    both.wait_until_standby(second)
    masqueraded = tuple(target for target in targets() if target.name.startswith("masquerade"))
    stand.start_client(Plan(masqueraded, MANY, options.seed, idle=IDLE, wake_rate=WAKE_RATE))
    stand.event("start", stand.wait_until_established(ESTABLISH_SECONDS))
    stand.sleep_until(stand.now() + SETTLED_SECONDS)
    counter = _Counter(stand, second.name)
    died = stand.strike(Death(stand.pair, first), first)
    stand.sleep_until(died + MANY_AFTER_SECONDS)
    counter.stop()
    _tell_written(stand, both)
    stand.wake()
    stand.wait_until_woken(ESTABLISH_SECONDS)
    stand.finish()
    both.tell()


class _Counter:
    """How many entries the kernel has in a director's table, looked at again and again beside everything else: when
    there were as many as are asked for becomes an event."""

    def __init__(self, stand: PairStand, name: str) -> None:
        with network.entered(stand.pair.namespace(name)):
            self.file = Path("/proc/sys/net/netfilter/nf_conntrack_count").open("rb", buffering=0)  # noqa: SIM115
        self.stand, self.stopped = stand, threading.Event()
        self.thread = threading.Thread(target=self._count, daemon=True)
        self.thread.start()

    def _count(self) -> None:
        wanted = [NEWEST, MANY]
        while wanted and not self.stopped.wait(COUNT_SECONDS):
            if int(self.file.read()) >= wanted[0]:
                self.stand.event(f"entries {wanted.pop(0)}", time.monotonic())
            self.file.seek(0)

    def stop(self) -> None:
        self.stopped.set()
        self.thread.join()
        self.file.close()


def _tell_written(stand: PairStand, both: Product) -> None:
    for director in DIRECTORS:
        tracking = (both.ask(director, "status") or {}).get("tracking") or {}
        stand.event("tracking", director=director.name, written=tracking.get("written"))


def _of_many(trace: Trace, made: Figures) -> Figures:
    """Times from the moment of the standby's decision."""
    moments = {event.what: event.at for event in trace.events}
    died = trace.moment("death")
    decided = min(
        (e.at for e in trace.events if e.what == "transition" and e.details["new"] == "active" and e.at >= died),
        default=math.inf,
    )
    return {
        "many": made["established"],
        "many_survived": made["survived"],
        "newest_1000_ms": 1000 * (moments.get(f"entries {NEWEST}", math.inf) - decided),
        "entries_ms": 1000 * (moments.get(f"entries {MANY}", math.inf) - decided),
    }


SCENARIO = Firewall()
