"""A server loses something that its own address does not show: the VIP on lo (direct routing), or its tunnel.

There are three equal real servers, and a master with a health check and no agents. Repeatedly one server loses its VIP,
as in a restart of its network, or its tunnel goes down; after three seconds it has it again. Meanwhile it still answers
at its own address, and packets that clients send to the VIP are dropped there.

    through    direct routing, the check goes through the service
    rip        direct routing, the same check of the RIP
    tunnel     IPIP, the check goes through the service

`found_ms` is the longest time from a loss to weight 0 in the kernel, over all losses, each at another moment between
two checks; `bound_ms` is fall times interval. `back_ms` is the longest from a repair to a weight again.
`rip_check_found` counts the losses at which the RIP's check took the server out. `errors_...` are requests of clients
that failed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import inf, isfinite
from pathlib import Path

from feedback.lab import network
from feedback.lab.bounds import Bound
from feedback.lab.figures import Figures, errors, within
from feedback.lab.job import Job, Options
from feedback.lab.product import Product
from feedback.lab.scenario import Scenario
from feedback.lab.stand import DIRECTOR, Stand
from feedback.lab.topology import PORT, VIP, RealServer, pool
from feedback.lab.trace import Trace
from feedback.lab.workload.load import Load
from feedback.model import Forward

QUOTAS = (0.2, 0.2, 0.2)
LOSES = 1  # the index of the server that loses its VIP
RATE = 40.0
COST_MS = 1.0
PATIENCE_SECONDS = 2.0  # of a client
BEGIN_SECONDS, LOST_SECONDS, ROUND_SECONDS = 2.0, 3.0, 6.13  # no multiple of the interval: the phase always differs

INTERVAL_SECONDS, TIMEOUT_SECONDS = 0.5, 0.2
RISE, FALL = 2, 3
UP_SECONDS = 15.0


class ClientsPath(Scenario):
    name = "path"
    summary = "a server loses the VIP or its tunnel: checks through the service, and of the server's own address"
    variants = ("through", "rip", "tunnel")
    seconds = 28.0
    seconds_least = 9.0
    quotas = QUOTAS
    law = "static"
    scheduler = "wrr"
    bounds = (
        Bound("found_ms", most="bound_ms"),
        Bound("found_tunnel_ms", most="bound_ms"),
        Bound("rip_check_found", most=0),
    )

    def run(self, job: Job, output: Path) -> None:
        options = job.options
        tunnel = job.variant == "tunnel"
        topology = pool(job.run, QUOTAS, Forward.TUNNEL if tunnel else Forward.ROUTE)
        loses = topology.servers[LOSES]
        with Stand(topology, output) as stand:
            for server in topology.servers if tunnel else ():
                _open_tunnel(stand, server)
            _accept_local(stand)
            stand.wait_for_servers()
            _start_master(stand, job.variant, options)
            start = stand.begin(_load(options))
            for number in range(_rounds(options)):
                at = start + BEGIN_SECONDS + number * ROUND_SECONDS
                stand.sleep_until(at)
                stand.event("lost", _lose(stand, loses, tunnel))
                stand.sleep_until(at + LOST_SECONDS)
                stand.event("restored", _mend(stand, loses, tunnel))
            stand.finish(start + options.seconds)

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {"bound_ms": 1000 * FALL * INTERVAL_SECONDS}
        for variant, suffix in (("through", ""), ("tunnel", "_tunnel")):
            if trace := traces.get(variant):
                found |= {f"found{suffix}_ms": max(_out_ms(trace)), f"back{suffix}_ms": max(_back_ms(trace))}
        if trace := traces.get("rip"):
            found["rip_check_found"] = sum(isfinite(ms) for ms in _out_ms(trace))
        for variant, trace in traces.items():
            found[f"losses_{variant}"] = len(_moments(trace, "lost"))
            found[f"errors_{variant}"] = errors(within(trace.records, [(trace.moment("lost"), trace.moment("end"))]))
        return found


def _rounds(options: Options) -> int:
    return int((options.seconds - BEGIN_SECONDS) / ROUND_SECONDS)


def _load(options: Options) -> Load:
    seconds, patience = options.seconds, PATIENCE_SECONDS
    return Load(str(VIP), PORT, RATE, seconds, options.seed, COST_MS, timeout_seconds=patience)


def _accept_local(stand: Stand) -> None:
    """Set what the director needs for answers from the VIP; `feedback doctor` names this setting."""
    network.settle(stand.topology.namespace(DIRECTOR), {"net/ipv4/conf/eth0/accept_local": "1"}, [])


def _open_tunnel(stand: Stand, server: RealServer) -> None:
    """Configure a real server for IPVS's tunnels: the VIP on tunl0, no ARP for it, no reverse path filter."""
    settings = {f"net/ipv4/conf/{name}/rp_filter": "0" for name in ("all", "tunl0")}
    settings |= {"net/ipv4/conf/all/arp_ignore": "1", "net/ipv4/conf/all/arp_announce": "2"}
    lines = ["link set tunl0 up", f"addr add {VIP}/32 dev tunl0"]
    network.settle(stand.topology.namespace(server.name), settings, lines)


def _start_master(stand: Stand, variant: str, options: Options) -> None:
    """Start it without agents, so that only the check can find the fault. Waits until each server passed its check."""
    through = "rip" if variant == "rip" else "service"
    check = (
        f'[service.check]\ntype = "http"\npath = "/health"\nthrough = "{through}"\n'
        f"interval_seconds = {INTERVAL_SECONDS}\ntimeout_seconds = {TIMEOUT_SECONDS}\nrise = {RISE}\nfall = {FALL}\n"
    )
    product = Product(
        stand,
        scheduler=options.scheduler or ClientsPath.scheduler,
        law=options.law or ClientsPath.law,
        servers=stand.topology.servers,
        service={"forward": "tunnel" if variant == "tunnel" else "route"},
        master_tables=check,
    )
    product.start_master()
    product.wait_until_checked(UP_SECONDS)


def _lose(stand: Stand, server: RealServer, tunnel: bool) -> float:
    line = "link set tunl0 down" if tunnel else f"addr del {VIP}/32 dev lo"
    network.run_ip(stand.topology.namespace(server.name), line)
    return time.monotonic()


def _mend(stand: Stand, server: RealServer, tunnel: bool) -> float:
    line = "link set tunl0 up" if tunnel else f"addr add {VIP}/32 dev lo"
    network.run_ip(stand.topology.namespace(server.name), line)
    return time.monotonic()


def _moments(trace: Trace, what: str) -> list[float]:
    return [event.at for event in trace.events if event.what == what]


def _out_ms(trace: Trace) -> list[float]:
    """The time from each loss to weight 0 in the kernel; infinity if that never came."""
    return [_until(trace, lost, mended, out=True) for lost, mended in _losses(trace)]


def _back_ms(trace: Trace) -> list[float]:
    """The time from each repair to a weight above 0."""
    ends = [*(lost for lost, _ in _losses(trace)[1:]), trace.moment("end")]
    return [_until(trace, mended, end, out=False) for (_, mended), end in zip(_losses(trace), ends, strict=True)]


def _losses(trace: Trace) -> list[tuple[float, float]]:
    return list(zip(_moments(trace, "lost"), _moments(trace, "restored"), strict=True))


def _until(trace: Trace, begin: float, end: float, *, out: bool) -> float:
    """Milliseconds to the first sample in which the server is out of service, or in it."""
    found = (s.at for s in trace.samples if begin <= s.at < end and (s.weights[LOSES] == 0) is out)
    return 1000 * (next(found, inf) - begin)


SCENARIO = ClientsPath()
