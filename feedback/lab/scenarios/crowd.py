"""A standby starts when 200,000 connections exist, persistent ones among them; then the active director dies.

A thousand of them are real clients, as in `latejoin`. The others are datagrams, each from another address and port,
to a real server that does not answer. 20,000 go to a persistent service, each from an address of its own, so each also
makes a template. The kernel's table has enough chains for so many connections (docs/sync.md).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from ipaddress import IPv4Address
from itertools import islice
from pathlib import Path

from feedback.ipvs import connections
from feedback.lab import network
from feedback.lab.bounds import Bound
from feedback.lab.error import LabError
from feedback.lab.figures import Figures
from feedback.lab.job import Job, Options
from feedback.lab.pair import figures as pair_figures
from feedback.lab.pair.injury import Death
from feedback.lab.pair.machine import Namespaced
from feedback.lab.pair.product import PORT, Product
from feedback.lab.pair.stand import PYTHON, PairStand, targets
from feedback.lab.pair.topology import (
    CLIENT,
    DIRECTORS,
    FRONT,
    PERSISTENCE_SECONDS,
    VIP,
    WATCHER,
    Node,
    heartbeat_address,
    heartbeat_interface,
    pair,
)
from feedback.lab.scenario import PairScenario
from feedback.lab.trace import Trace
from feedback.lab.workload import beats
from feedback.lab.workload.streams import Plan
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationKey,
    Edit,
    Forward,
    Protocol,
    Service,
    ServiceFlags,
    ServiceKey,
)

CONNECTIONS = 200_000
TALKING = 1000
PERSISTENT = 20_000
PORTS = 10_000  # of each address of the others
RATE = 10_000.0  # a second
NOBODY = FRONT[250]
FLOOD = ServiceKey.at(Protocol.UDP, VIP, 4000)
STICKY = ServiceKey.at(Protocol.UDP, VIP, 4001)
FIRST_STICKY, FIRST_FLOOD = FRONT[0x4000], FRONT[0xC000]
LEARN_SECONDS = 60.0
TEMPLATES_READ = 1000
AGE_SECONDS = 20.0  # of a template when the standby starts: its copy there must not expire earlier
JOINED_SECONDS = 3.0  # from complete to the death
AFTER_SECONDS = 5.0
INTERVAL_SECONDS = 0.03
BEATS = "beats"


class Crowd(PairScenario):
    name = "crowd"
    summary = "a standby starts with 200,000 connections there, persistent ones among them, then the active one dies"
    variants = ("feedback",)
    seconds = 120.0
    seconds_least = 120.0
    conn_tab_bits = 18
    bounds = (
        Bound("connections", least=CONNECTIONS),
        Bound("copied", least="connections"),
        Bound("templates", least=PERSISTENT),
        Bound("template_short_seconds", most=5),
        Bound("established", least=TALKING),
        Bound("survived", least="established"),
        Bound("resync_ms", most=10_000),
    )

    def run(self, job: Job, output: Path) -> None:
        first, second = DIRECTORS
        with PairStand(pair(job.run), output, job.options) as stand:
            both = Product(stand)
            both.start(first)
            both.wait_until_active(first)
            _add_services(stand, first)
            stand.start_client(Plan(targets(), TALKING, job.options.seed, idle=0.5))
            start = stand.wait_until_established()
            stand.event("start", start)
            _flood(stand, STICKY, FIRST_STICKY, PERSISTENT, 1)
            sticky = time.monotonic()
            rest = CONNECTIONS - TALKING - 2 * PERSISTENT  # a template is one more
            _flood(stand, FLOOD, FIRST_FLOOD, -(-rest // PORTS), PORTS)
            stand.wait_for(
                "the first director knows them all", lambda: _held(both, first) >= CONNECTIONS, LEARN_SECONDS
            )
            stand.sleep_until(sticky + AGE_SECONDS)
            listener = [*PYTHON, "feedback.lab.workload.beats", heartbeat_interface(0), str(PORT), str(output / BEATS)]
            stand.processes.start("beats", listener, namespace=stand.pair.namespace(second.name))
            stand.event("join")
            both.start(second)
            stand.event("complete", both.wait_until_standby(second))
            stand.event(
                "tables",
                first=_counted(stand, first),
                second=_counted(stand, second),
                templates=_counted(stand, second, templates=True),
            )
            stand.processes.kill("beats", signal.SIGTERM)
            left = _templates_left(stand, second)
            stand.event("templates", read=len(left), shortest_seconds=min(left, default=0))
            died = stand.strike(Death(stand.pair, first), first)
            stand.sleep_until(died + AFTER_SECONDS)
            stand.wake()
            stand.wait_until_woken()
            stand.finish()
            both.tell()

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {}
        for trace in traces.values():
            found |= pair_figures.common(trace)
            found |= pair_figures.of_takeover(pair_figures.read_looks(trace), trace.moment("death"))
            join, complete = trace.moment("join"), trace.moment("complete")
            events = {event.what: event for event in trace.events}
            tables, templates = events["tables"].details, events["templates"]
            found["connections"], found["copied"] = tables["first"], tables["second"]
            found["templates"] = tables["templates"]
            # None was renewed since. So all must have the service's timeout less the time since, not what was left
            # before.
            due = PERSISTENCE_SECONDS - (templates.at - join)
            found["template_short_seconds"] = due - templates.details["shortest_seconds"]
            found["resync_ms"] = 1000 * (complete - join)
            found["copying_ms"] = 1000 * events["replica"].details["took_seconds"]
            found |= _late(trace, join, complete)
        return found


def _late(trace: Trace, begin: float, end: float) -> Figures:
    """How late each director's latest heartbeat was."""
    path = trace.output / BEATS
    lines = path.read_text("ascii").splitlines() if path.exists() else []
    found: Figures = {}
    for number, director in enumerate(DIRECTORS):
        gaps = beats.gaps(lines, str(heartbeat_address(number, 0)), begin, end)
        found[f"heartbeat_late_ms_{director.name}"] = 1000 * (max(gaps, default=float("nan")) - INTERVAL_SECONDS)
    return found


def _add_services(stand: PairStand, director: Node) -> None:
    """Make them by hand, beside the pair's own services. Nothing listens at their real server."""
    edits: list[Edit] = []
    for key, flags, seconds in ((FLOOD, ServiceFlags(0), 0), (STICKY, ServiceFlags.PERSISTENT, PERSISTENCE_SECONDS)):
        edits.append(AddService(Service(key, "rr", flags, seconds)))
        edits.append(AddDestination(key, Destination(DestinationKey(NOBODY, key.port), 1, Forward.ROUTE)))
    machine = stand.machines[director.name]
    assert isinstance(machine, Namespaced)
    for error in machine.ipvs.apply(edits):
        raise LabError(f"the kernel refused: {error}")
    for each in DIRECTORS:
        line = f"neigh replace {NOBODY} lladdr {WATCHER.mac.hex(':')} nud permanent dev eth0"
        network.batch([line], stand.pair.namespace(each.name))


def _flood(stand: PairStand, key: ServiceKey, first: IPv4Address, addresses: int, ports: int) -> None:
    mac = DIRECTORS[0].mac.hex()
    words = map(str, (mac, key.address, key.port, first, addresses, ports, RATE))
    command = [*PYTHON, "feedback.lab.workload.flood", *words]
    stand.processes.start("flood", command, namespace=stand.pair.namespace(CLIENT.name))
    stand.processes.wait("flood", 10 * addresses * ports / RATE + 30)


def _held(both: Product, director: Node) -> int:
    status = both.ask(director, "status")
    return status["replica"]["ledger"]["connections"] if status else 0


def _counted(stand: PairStand, director: Node, *, templates: bool = False) -> int:
    """Connections and templates, or templates alone, as its kernel counts them: of what it lists a few are left out
    where others come and go meanwhile."""
    machine = stand.machines[director.name]
    assert isinstance(machine, Namespaced)
    return sum(
        each.persistent if templates else each.active + each.inactive + each.persistent
        for service in machine.ipvs.snapshot().services
        for each in service.destinations
    )


def _templates_left(stand: PairStand, director: Node) -> list[int]:
    """Seconds of those that the table begins with: to read all of it takes the kernel half a minute."""
    left: list[int] = []
    shown = Path("/proc/thread-self/net/ip_vs_conn")
    with network.entered(stand.pair.namespace(director.name)), shown.open(encoding="ascii") as table:
        for line in islice(table, 1, None):
            found = connections.parse_line(line)
            if found.client_port == 0 and found.virtual_port == STICKY.port:
                left.append(found.expires_seconds)
                if len(left) == TEMPLATES_READ:
                    break
    return left


SCENARIO = Crowd()
