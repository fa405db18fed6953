"""A real server dies with the flows of 500 UDP clients and 500 idle TCP connections spread over three servers.

TCP goes by direct routing and masquerading, with IPv4 and IPv6; UDP by direct routing. The server's cables are pulled,
so that nothing is heard from it. A client that waits for it would wait for ever unless the director acts. Each policy
has the same clients and the same patience of checks:

    feedback         on_failure = "remove" for UDP (its default) and "cut" for TCP
    takeover         the same, and the active director dies as well, before the failure is found
    keepalived       its checkers, which remove a server that fails
    keepalived_told  the same with expire_nodest_conn=1, which keepalived leaves to the operator
    ldirectord       quiescent=yes, its default

A UDP flow's silence is the time from its first question without an answer to the first answer after it; a TCP client is
told when its socket reports the end. Infinite means never while the scenario lasts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from feedback.ipvs import sysctl
from feedback.lab import network
from feedback.lab.bounds import Bound
from feedback.lab.figures import Figures
from feedback.lab.job import Job, Options
from feedback.lab.pair import checkers, topology
from feedback.lab.pair import figures as pair_figures
from feedback.lab.pair.injury import Death, service_links
from feedback.lab.pair.product import Product
from feedback.lab.pair.stand import PairStand, targets, udp_target
from feedback.lab.pair.topology import DIRECTORS, VIP6, Pair, destination, pair, services
from feedback.lab.scenario import PairScenario
from feedback.lab.trace import Trace
from feedback.lab.workload.streams import Plan
from feedback.lab.workload.waiting import FILE, Waited, read
from feedback.model import Forward, Protocol

UDP_FLOWS = TCP_CONNECTIONS = 500
INTERVAL_SECONDS, FALL, TIMEOUT_SECONDS = 1, 2, 0.1
SLACK_SECONDS = 0.2  # for the last check's deadline, one turn of the master, and a client's next question
DIRECTOR_DIES_SECONDS = 0.6  # after the server's death, before any check can have found it
DISTURBED_SECONDS = 0.5  # a longer silence of a healthy server's client is no mere takeover
BEFORE_SECONDS = 2.0


class Deadflows(PairScenario):
    name = "deadflows"
    summary = "a server dies with 500 UDP flows and 500 idle TCP connections: who is told, and when"
    variants = ("feedback", "takeover", "keepalived", "keepalived_told", "ldirectord")
    seconds = 12.0
    seconds_least = 8.0
    law = "static"
    bounds = (
        Bound("udp_on_dead", least=100),
        Bound("tcp_on_dead", least=100),
        Bound("udp_silence_max_ms", most="bound_ms"),
        Bound("tcp_told_max_ms", most="bound_ms"),
        Bound("disturbed_others", most=0),
        Bound("takeover_udp_silence_max_ms", most="bound_ms"),
        Bound("takeover_tcp_told_max_ms", most="bound_ms"),
        Bound("takeover_disturbed_others", most=0),
    )

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        first, second = DIRECTORS
        with PairStand(pair(job.run), output, job.options) as stand:
            dead = stand.pair.servers[0]
            if job.variant in ("feedback", "takeover"):
                both = Product(stand, masters=True, services=master_services(stand.pair))
                both.start(first)
                both.wait_until_active(first)
                both.start(second)
                both.wait_until_standby(second)
            else:
                if job.variant == "keepalived_told":
                    with network.entered(stand.pair.namespace(first.name)):
                        sysctl.write("expire_nodest_conn", 1)
                stand.take_addresses(first)
                # Else it would be the source address of checks, which every real server has itself.
                retired = ["addr", "change", f"{VIP6}/128", "dev", "eth0", "preferred_lft", "0"]
                network.run_ip(stand.pair.namespace(first.name), *retired)
                name = job.variant.partition("_")[0]
                checkers.start(name, stand.pair, first, stand.processes, interval_seconds=INTERVAL_SECONDS, fall=FALL)
                stand.wait_for_services(first)
            stand.sleep_until(stand.now() + BEFORE_SECONDS)
            stand.start_waiting(_plan(options))
            stand.event("start", stand.wait_until_established())
            death = Death(stand.pair, first) if job.variant == "takeover" else None
            stand.sleep_until(stand.now() + BEFORE_SECONDS)
            links, died = service_links(stand.pair, dead), stand.now()
            for link in links:
                link.cut()
            stand.event("died", died, server=dead.name)
            if death is not None:
                stand.sleep_until(died + DIRECTOR_DIES_SECONDS)
                stand.strike(death, first)
            stand.sleep_until(died + options.seconds)
            stand.wake()
            stand.processes.wait("client", 60.0)

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {"bound_ms": 1000 * (FALL * INTERVAL_SECONDS + SLACK_SECONDS)}
        for variant, trace in traces.items():
            waited = read(trace.output / FILE)
            died = next(e for e in trace.events if e.what == "died")
            made = of_clients(waited, died.at, trace.moment("wake"), died.details["server"])
            found |= pair_figures.named(variant, made)
        return found


def of_clients(waited: list[Waited], died: float, woken: float, dead: str) -> Figures:
    """What the clients of the dead server noticed, and the others. At `woken` all TCP clients speak: what they hear
    after that is an answer to themselves."""
    mine = [w for w in waited if w.servers and w.servers[0] == dead]
    others = [w for w in waited if not w.servers or w.servers[0] != dead]
    udp = [w.silence_seconds for w in mine if w.kind == "udp"]
    tcp = [w.told_at - died if w.told and w.told_at < woken else math.inf for w in mine if w.kind == "tcp"]
    return {
        "udp_silence_max_ms": 1000 * max(udp, default=math.nan),
        "tcp_told_max_ms": 1000 * max(tcp, default=math.nan),
        "disturbed_others": sum(_disturbed(w) for w in others),
        "udp_on_dead": len(udp),
        "tcp_on_dead": len(tcp),
        "udp_never": sum(math.isinf(s) for s in udp),
        "tcp_never": sum(math.isinf(s) for s in tcp),
    }


def _disturbed(of: Waited) -> bool:
    if of.kind == "tcp":
        return bool(of.told) or not of.woken
    return len(of.servers) != 1 or of.silence_seconds > DISTURBED_SECONDS


def master_services(of: Pair) -> str:
    """The pair's services as tables of master.toml."""
    text = ""
    for service in services():
        key = service.key
        udp = key.protocol is Protocol.UDP
        text += f'[[service]]\nvirtual = "{key}"\nscheduler = "{"wrr" if udp else "sed"}"\nlaw = "static"\n'
        text += f"persistence_seconds = {service.timeout_seconds}\n" if service.persistent else ""
        text += "" if udp else 'on_failure = "cut"\n'
        for server in of.servers:
            made = destination(key, server)
            way = "masquerade" if made.forward is Forward.MASQUERADE else "route"
            text += f'[[service.destination]]\naddress = "{made.key.address}"\nforward = "{way}"\n'
        text += f"[service.check]\nport = {topology.ROUTE_PORT}\ninterval_seconds = {INTERVAL_SECONDS}\n"
        text += f"timeout_seconds = {TIMEOUT_SECONDS}\nfall = {FALL}\nrise = 2\n"
    return text


def _plan(options: Options) -> Plan:
    return Plan(
        targets=targets(),
        connections=TCP_CONNECTIONS,
        seed=options.seed,
        udp=udp_target(),
        udp_flows=UDP_FLOWS,
    )


SCENARIO = Deadflows()
