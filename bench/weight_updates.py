"""Weight updates a second, side by side in one run on one kernel: ours, pyroute2's IPVS class, and ipvsadm.

Run as root on a kernel with IPVS (the lab's guest does): `python bench/weight_updates.py [--json] [--destinations N]`.
It makes a network namespace of its own and removes it. Each way changes the weights of the same wlc service's
destinations to a value that they do not have, for about a second, and the last value is read back and compared, so that
nothing which only looks fast can win.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from feedback.ipvs import Client, IpvsError
from feedback.ipvs.namespace import within
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationKey,
    Forward,
    Protocol,
    Service,
    ServiceKey,
    SetDestination,
)

SERVICE = ServiceKey.at(Protocol.TCP, "10.0.0.1", 80)
NAMESPACE = f"bench-{os.getpid()}"

Way = Callable[[int], int]  # writes this weight to some destinations, the first ones; returns to how many


def destination(index: int, weight: int) -> Destination:
    key = DestinationKey.parse(f"10.1.{index // 250}.{index % 250 + 1}:80")
    return Destination(key, weight=weight, forward=Forward.ROUTE)


def edits(count: int, weight: int) -> list[SetDestination]:
    return [SetDestination(SERVICE, destination(i, weight)) for i in range(count)]


def ours_batched(client: Client, count: int) -> Way:
    """One apply() of all destinations. The edits are built outside the clock for every way alike."""
    prepared = {weight: edits(count, weight) for weight in (11, 12)}

    def write(weight: int) -> int:
        failures = client.apply(prepared[weight])
        assert not failures, failures[0]
        return count

    return write


def ours_per_call(client: Client, count: int) -> Way:
    prepared = {weight: [[edit] for edit in edits(count, weight)] for weight in (11, 12)}

    def write(weight: int) -> int:
        for one in prepared[weight]:
            assert not client.apply(one)
        return count

    return write


def pyroute2_class(count: int) -> tuple[Way, Callable[[], None]]:
    from pyroute2 import IPVS, IPVSDest, IPVSService

    ipvs = IPVS(netns=NAMESPACE)
    service = IPVSService(addr=str(SERVICE.address), port=SERVICE.port, protocol=socket.IPPROTO_TCP)
    prepared = {
        weight: [
            IPVSDest(addr=str(e.destination.key.address), port=80, weight=weight, fwd_method=3)
            for e in edits(count, weight)
        ]
        for weight in (11, 12)
    }

    def write(weight: int) -> int:
        for dest in prepared[weight]:
            ipvs.dest("set", service=service, dest=dest)
        return count

    return write, ipvs.close


def ipvsadm_restore(count: int) -> Way:
    """`ipvsadm -R` with one -e line each; a process for every pass, as a script would."""
    prepared = {w: "".join(_line(e.destination) + "\n" for e in edits(count, w)).encode() for w in (11, 12)}

    def write(weight: int) -> int:
        subprocess.run(_netns("ipvsadm", "-R"), input=prepared[weight], check=True)
        return count

    return write


def ipvsadm_each(count: int) -> Way:
    prepared = {w: [_line(e.destination).split() for e in edits(count, w)] for w in (11, 12)}

    def write(weight: int) -> int:
        for words in prepared[weight]:
            subprocess.run(["ipvsadm", *words], check=True)
        return count

    return write


def _line(dest: Destination) -> str:
    return f"-e -t {SERVICE.address}:{SERVICE.port} -r {dest.key} -g -w {dest.weight}"


def _netns(*words: str) -> list[str]:
    return ["ip", "netns", "exec", NAMESPACE, *words]


def measure(client: Client, write: Way, seconds: float) -> float:
    """Updates a second, over at least `seconds` of passes that alternate between two weights."""
    write(12)  # warm: caches, sockets, imports
    done, weight, began = 0, 12, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        weight = 23 - weight
        touched = write(weight)
        done += touched
    changed = sum(e.destination.weight == weight for e in client.destinations(SERVICE))
    assert changed >= touched, f"only {changed} destinations have the weight written last"
    return done / elapsed


def run(destinations: int, seconds: float) -> dict[str, float]:
    with Client(NAMESPACE) as client:
        made = [AddService(Service(SERVICE, scheduler="wlc"))]
        failures = client.apply(made + [AddDestination(SERVICE, destination(i, 1)) for i in range(destinations)])
        assert not failures, failures[0]
        theirs, close = pyroute2_class(destinations)
        each = min(20, destinations)
        figures = {
            "ours_batched_per_second": measure(client, ours_batched(client, destinations), seconds),
            "ours_per_call_per_second": measure(client, ours_per_call(client, destinations), seconds),
            "pyroute2_per_second": measure(client, theirs, seconds),
            "ipvsadm_restore_per_second": measure(client, ipvsadm_restore(destinations), seconds),
            "ipvsadm_each_per_second": within(
                NAMESPACE, lambda: measure(client, ipvsadm_each(each), seconds)
            ),  # a child is born in the namespace of the thread: no `ip netns exec` in the measured time
        }
        close()
    figures["ours_over_pyroute2"] = figures["ours_batched_per_second"] / figures["pyroute2_per_second"]
    figures["destinations"] = destinations
    return figures


def show(figures: dict[str, float]) -> None:
    base = figures["pyroute2_per_second"]
    rows = [
        ("feedback.ipvs, one apply() of all", "ours_batched_per_second"),
        ("feedback.ipvs, one apply() each", "ours_per_call_per_second"),
        ("pyroute2 IPVS.dest('set')", "pyroute2_per_second"),
        ("ipvsadm -R, fed by a pipe", "ipvsadm_restore_per_second"),
        ("ipvsadm -e, a process each", "ipvsadm_each_per_second"),
    ]
    print(f"weight updates a second, a wlc service of {figures['destinations']:.0f} destinations")
    for words, name in rows:
        print(f"  {words:36} {figures[name]:>10,.0f}   {figures[name] / base:8.2f} x pyroute2")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="weight updates a second: ours, pyroute2, ipvsadm")
    parser.add_argument("--json", action="store_true", help="print one JSON object of numbers")
    parser.add_argument("--destinations", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1.0, help="at least this long for each way")
    options = parser.parse_args(arguments)
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    # Until some interface is up a fresh namespace has no routing table, and no address counts as unicast: EINVAL.
    subprocess.run(["ip", "-n", NAMESPACE, "link", "set", "lo", "up"], check=True)
    try:
        figures = run(options.destinations, options.seconds)
    except IpvsError as error:
        print(f"weight_updates: {error}", file=sys.stderr)
        return 1
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)
    if options.json:
        print(json.dumps({name: round(value, 2) for name, value in figures.items()}))
    else:
        show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
