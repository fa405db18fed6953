"""The directors lose contact step by step, while both data paths live; then they regain it.

    one    the first heartbeat cable is cut
    none   the second too: only the look at the VIP is left
    deaf   the standby hears nothing from the active director on the service network either, which still hears it
    healed everything works again
    blind  all cables cut, and the switches carry nothing between the two: neither can learn anything of the other
    seen   everything works again

While a cable or the look works, no role may change. When the look fails, both may be active for a moment, until one
hears the other's announcement. While they are blind, nothing can be done without a third party; that time is reported
separately.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path

from feedback.lab.bounds import Bound
from feedback.lab.figures import Figures
from feedback.lab.job import Job, Options
from feedback.lab.pair import figures as pair_figures
from feedback.lab.pair import injury
from feedback.lab.pair.course import CONNECTIONS, begin, end, plan
from feedback.lab.pair.directors import directors
from feedback.lab.pair.looks import Look
from feedback.lab.pair.stand import PairStand
from feedback.lab.pair.topology import DIRECTORS, pair
from feedback.lab.scenario import PairScenario
from feedback.lab.trace import Trace

PHASES = {"one": 3.0, "none": 3.0, "deaf": 4.0, "healed": 4.0, "blind": 2.0, "seen": 6.0}  # seconds of each
BEFORE_SECONDS = 2.0
SETTLE_SECONDS = 1.0  # after healing; by then one is active, and nothing changes any more


class Splitlinks(PairScenario):
    name = "splitlinks"
    summary = "heartbeat cables cut one after another while both data paths live, then healed"
    variants = ("feedback", "keepalived_fast")
    seconds = BEFORE_SECONDS + sum(PHASES.values()) + 2
    seconds_least = seconds
    bounds = (
        Bound("established", least=CONNECTIONS),
        Bound("both_active_while_seen_ms", most=0),
        Bound("role_changes_while_seen", most=0),
        Bound("both_active_ms", most=1000),
        Bound("role_changes_settled", most=0),
        Bound("active_at_end", least=1, most=1),
    )

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        with PairStand(pair(job.run), output, job.options) as stand:
            both = directors(stand, job.variant)
            moment = begin(stand, both, plan(options)) + BEFORE_SECONDS
            with contextlib.closing(_Acts(stand)) as acts:
                for phase, seconds in PHASES.items():
                    stand.sleep_until(moment)
                    stand.event(phase)
                    getattr(acts, phase)()
                    stand.event(f"{phase} done")
                    moment += seconds
            stand.sleep_until(moment)
            stand.mark_cpu("busy to")
            end(stand, both)

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {}
        for variant, trace in traces.items():
            made = of_phases(pair_figures.read_looks(trace), trace) | pair_figures.common(trace)
            found |= pair_figures.named(variant, made)
        return found


class _Acts:
    """The faults of each phase, prepared."""

    def __init__(self, stand: PairStand) -> None:
        self.pair = stand.pair
        self.links = injury.heartbeat_links(stand.pair)

    def close(self) -> None:
        for link in self.links:
            link.close()

    def one(self) -> None:
        self.links[0].cut()

    def none(self) -> None:
        self.links[1].cut()

    def deaf(self) -> None:
        first, second = DIRECTORS
        injury.deafen(self.pair, second, first)

    def healed(self) -> None:
        injury.undeafen(self.pair, DIRECTORS[1])
        for link in self.links:
            link.heal()

    def blind(self) -> None:
        for link in self.links:
            link.cut()
        injury.isolate(self.pair, True)

    def seen(self) -> None:
        injury.isolate(self.pair, False)
        for link in self.links:
            link.heal()


def of_phases(seen: list[Look], trace: Trace) -> Figures:
    """`both_active_ms` leaves out the blind phase, for which there is `both_active_blind_ms`."""
    deaf, healed, blind, again = (trace.moment(phase) for phase in ("deaf", "healed done", "blind", "seen done"))
    start, finish = trace.moment("start"), trace.moment("end")
    settled = [(healed + SETTLE_SECONDS, blind), (again + SETTLE_SECONDS, finish)]
    last = {look.address: look.owners for look in seen if look.sent < finish}
    return {
        "both_active_ms": pair_figures.both_active_ms(seen, start, blind)
        + pair_figures.both_active_ms(seen, again, finish),
        "both_active_while_seen_ms": pair_figures.both_active_ms(seen, start, deaf),
        "both_active_blind_ms": pair_figures.both_active_ms(seen, blind, again),
        "role_changes": pair_figures.role_changes(seen, start, finish),
        "role_changes_while_seen": pair_figures.role_changes(seen, start, deaf),
        "role_changes_settled": sum(pair_figures.role_changes(seen, *window) for window in settled),
        "active_at_end": max((owners.bit_count() for owners in last.values()), default=math.nan),
    }


SCENARIO = Splitlinks()
