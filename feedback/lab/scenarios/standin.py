"""A server dies in the middle of twelve downloads, and its stand-in continues them where they were.

The streaming server of examples/streaming runs on two real servers, with an agent on each. It tells its agent how far
each client has come, and the stand-in's agent gets this from the masters. Then the server's cables are pulled. A client
that hears nothing waits for its timeout of eight seconds, unless it is told.

    feedback   on_failure = "cut": the clients are told, connect again, and are served by the stand-in
    takeover   the same, and the active director dies as well, before the failure is found
    today      on_failure = "quiesce": only weights change

Detection is the time from the failure until the master gives the stand-in its weight. An interruption is the longest
time in which a client had no new byte.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import feedback
from feedback.lab.bounds import Bound
from feedback.lab.error import LabError
from feedback.lab.figures import Figures
from feedback.lab.job import Job, Options
from feedback.lab.pair import figures as pair_figures
from feedback.lab.pair.injury import Death, service_links
from feedback.lab.pair.product import Product
from feedback.lab.pair.stand import PairStand
from feedback.lab.pair.topology import CLIENT, DIRECTORS, VIP, Node, pair
from feedback.lab.scenario import PairScenario
from feedback.lab.trace import Trace
from feedback.ops import control

EXAMPLE = Path(feedback.__file__).parent.parent / "examples" / "streaming"
DOWNLOADS = 12
PORT = 8000
INTERVAL_SECONDS, FALL, TIMEOUT_SECONDS = 0.2, 3, 0.1
BEFORE_SECONDS = 4.0
DIRECTOR_DIES_SECONDS = 0.2  # after the server's death, before any check can have found it
FOUND_MS = (
    1000 * (FALL * INTERVAL_SECONDS + TIMEOUT_SECONDS) + 200
)  # the last check's deadline, and a turn of the master
TAKEOVER_MS = 300.0  # the other director starts its checks anew: it does not know of the first failed check
SLACK_MS = 700.0  # from detection on: the kernel forgets the flow, the client answers and connects again


class StandIn(PairScenario):
    name = "standin"
    summary = "a server dies in the middle of downloads: its stand-in goes on where it was"
    variants = ("feedback", "takeover", "today")
    seconds = 16.0
    seconds_least = 14.0
    law = "static"
    bounds = (
        Bound("downloads", least=DOWNLOADS),
        Bound("wrong_bytes", most=0),
        Bound("resumed", least=DOWNLOADS),
        Bound("detection_ms", most=FOUND_MS),
        Bound("interrupted_max_ms", most="bound_ms"),
        Bound("takeover_wrong_bytes", most=0),
        Bound("takeover_resumed", least=DOWNLOADS),
        Bound("takeover_detection_ms", most=FOUND_MS + TAKEOVER_MS),
        Bound("takeover_interrupted_max_ms", most="takeover_bound_ms"),
        Bound("today_wrong_bytes", most=0),
    )

    def run(self, job: Job, output: Path) -> None:
        if not EXAMPLE.is_dir():
            raise LabError(f"{EXAMPLE}: not there: this scenario runs from a checkout")
        first, second = DIRECTORS
        with PairStand(pair(job.run), output, job.options) as stand:
            stand.event("clock", wall=time.time() - time.monotonic())
            both = Product(stand, masters=True, services=_service(stand, job.variant), agents=stand.pair.servers[:2])
            both.start(first)
            stand.wait_for_owner(first)
            stand.wait_for("the service", lambda: list(stand.machines[first.name].table().values()) == [2])
            both.start(second)
            both.wait_until_standby(second)
            old, other = stand.pair.servers[:2]
            for server in (old, other):
                socket, words = both.start_agent(server)
                command = [sys.executable, str(EXAMPLE / "server.py"), str(PORT), str(socket), str(words)]
                namespace = stand.pair.namespace(server.name)
                stand.processes.start(f"{server.name}-stream", command, namespace=namespace)
                stand.wait_until_listening(f"{server.name}-stream", namespace, PORT)
            stand.wait_for("the first check", lambda: self._serving(both) == 1)
            sessions = [f"u{number}" for number in range(DOWNLOADS)]
            command = [sys.executable, str(EXAMPLE / "client.py"), str(VIP), str(PORT), str(job.options.seconds)]
            stand.processes.start("client", [*command, *sessions], namespace=stand.pair.namespace(CLIENT.name))
            start = stand.now()
            stand.event("start", start)
            death = Death(stand.pair, first) if job.variant == "takeover" else None
            stand.sleep_until(start + BEFORE_SECONDS)
            links, died = service_links(stand.pair, old), stand.now()
            for link in links:
                link.cut()
            stand.event("died", died, server=old.name)
            if death is not None:
                stand.sleep_until(died + DIRECTOR_DIES_SECONDS)
                stand.strike(death, first)
            stand.processes.wait("client", job.options.seconds + 60.0)
            stand.event("end")
            self._tell(stand, both, second if death is not None else first)

    def _serving(self, both: Product) -> int:
        status = control.ask(both.master_control(DIRECTORS[0]), {"command": "status"})
        servers = [d for s in status.get("services", ()) for d in s["destinations"]]
        return sum(bool(d["weight"]) for d in servers)

    def _tell(self, stand: PairStand, both: Product, director: Node) -> None:
        """Record what the master reports of it, on the wall clock."""
        for event in control.ask(both.master_control(director), {"command": "events"})["events"]:
            if event["kind"] in ("barred", "removed", "stands-in", "cut"):
                told = {k: v for k, v in event.items() if k not in ("at", "kind", "number")}
                stand.event(f"master {event['kind']}", wall=event["at"], director=director.name, **told)

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {}
        for variant, trace in traces.items():
            found |= pair_figures.named(variant, _of(trace))
        return found


def _of(trace: Trace) -> Figures:
    wall = next(e.details["wall"] for e in trace.events if e.what == "clock")
    died = trace.moment("died")
    found = [e.details["wall"] - wall for e in trace.events if e.what == "master stands-in"]
    detection = 1000 * (min((at for at in found if at >= died), default=float("inf")) - died)
    log = trace.output / "logs" / "client.log"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    downloads = [json.loads(line) for line in lines if line.startswith("{")]
    left = trace.moment("end") - died - 1.0  # a client that was interrupted for all of this time never continued
    return {
        "downloads": len(downloads),
        "wrong_bytes": sum(d["wrong_bytes"] for d in downloads),
        "resumed": sum(d["connections"] > 1 and d["interrupted_seconds"] < left for d in downloads),
        "interrupted_max_ms": 1000 * max((d["interrupted_seconds"] for d in downloads), default=float("nan")),
        "detection_ms": detection,
        "bound_ms": detection + SLACK_MS,
    }


def _service(stand: PairStand, variant: str) -> str:
    old, other = stand.pair.servers[:2]
    way = "quiesce" if variant == "today" else "cut"
    return (
        f'[[service]]\nvirtual = "tcp:{VIP}:{PORT}"\nlaw = "static"\non_failure = "{way}"\n'
        f'[[service.destination]]\naddress = "{old.front}"\nstand_in = "{other.front}"\n'
        f'[[service.destination]]\naddress = "{other.front}"\n'
        f"[service.check]\ninterval_seconds = {INTERVAL_SECONDS}\ntimeout_seconds = {TIMEOUT_SECONDS}\n"
        f"fall = {FALL}\nrise = 2\n"
    )


SCENARIO = StandIn()
