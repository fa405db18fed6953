"""README shows what `show` and `explain` print: their own code must print the same of a pool like that one."""

from __future__ import annotations

from feedback.cli.show import chains, table
from feedback.master.account import ServiceStatus
from feedback.master.actuate.weight import band
from feedback.master.controller import Decision
from feedback.master.laws.capacity import Capacity
from feedback.master.pool import Row
from feedback.master.servers.fleet import Source
from feedback.master.shell.status import of_decision
from tests.docs.pages import ROOT, blocks
from tests.master.builders import member, pool, replace

DEAD_BAND, WEIGHT_MAX = 0.05, 65535


def server(i: int, weight: float, share: float, active: int, inactive: int, **estimate: float) -> Row:
    made = member(i, weight=round(weight), active=active, inactive=inactive)
    made.estimate = replace(made.estimate, deviation=0.08, samples=8, **estimate)
    made.share, made.source = share, Source.AGENT
    band(made, weight, DEAD_BAND, WEIGHT_MAX)
    made.aimed = made.aim
    return made


def printed() -> list[str]:
    """The table, and the first server's chain of reasons."""
    of = pool(
        server(1, 520.4, 0.26, 1, 240, capacity=107.8, utilisation=0.5, rate=45.5),
        server(2, 1480.0, 0.74, 3, 702, capacity=306.5, utilisation=0.51, rate=156.0),
    )
    Capacity().put(of, now=0.0)
    answer = of_decision(Decision(services=(ServiceStatus(of.service, "capacity", of, "", [], owned=True),)))
    (service,) = answer["services"]
    return ["\n".join(table(answer)), chains([{**service, **service["destinations"][0]}])]


def test_readmes_samples_are_what_the_commands_print() -> None:
    shown = [block.text for block in blocks(ROOT / "README.md") if block.text.startswith(("Prot ", "10.0.0.11:80 in "))]
    assert shown == printed()
