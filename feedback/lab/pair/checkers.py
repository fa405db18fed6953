"""keepalived's checkers, or ldirectord, as the owner of the pair's services on its first director, without a pair.

This module owns their configurations, which are plain text, with the same patience as the product's checks. Sources:
keepalived.conf(5) of 2.2.7, ldirectord(8) of 4.12.0.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from feedback.lab.error import LabError
from feedback.lab.pair.keepalived import KINDS
from feedback.lab.pair.topology import ROUTE_PORT, Node, Pair, destination, services
from feedback.lab.process import Processes
from feedback.model import Forward, Protocol, Service, format_endpoint

WORDS = {Forward.ROUTE: "gate", Forward.MASQUERADE: "masq"}


def keepalived(pair: Pair, interval_seconds: int, fall: int) -> str:
    """keepalived's default: a server that fails is removed."""
    return "global_defs {\n router_id d1\n}\n" + "".join(
        _virtual_server(pair, service, interval_seconds, fall) for service in services()
    )


def _virtual_server(pair: Pair, service: Service, interval_seconds: int, fall: int) -> str:
    key = service.key
    made = [destination(key, server) for server in pair.servers]
    check = (
        f"  TCP_CHECK {{\n   connect_port {ROUTE_PORT}\n   connect_timeout 1\n   retry {fall - 1}\n"
        f"   delay_before_retry {interval_seconds}\n   warmup 0\n  }}\n"
    )
    reals = "".join(f" real_server {one.key.address} {one.key.port} {{\n  weight 1\n{check} }}\n" for one in made)
    return (
        f"virtual_server {key.address} {key.port} {{\n delay_loop {interval_seconds}\n lb_algo {service.scheduler}\n"
        f" lb_kind {KINDS[made[0].forward]}\n protocol {'UDP' if key.protocol is Protocol.UDP else 'TCP'}\n{reals}}}\n"
    )


def ldirectord(pair: Pair, interval_seconds: int, fall: int) -> str:
    """ldirectord's default: a server that fails is quiesced."""
    head = (
        f"checktimeout=1\nnegotiatetimeout=1\ncheckinterval={interval_seconds}\ncheckcount=1\nfailurecount={fall}\n"
        "autoreload=no\nquiescent=yes\nsupervised=yes\n"
    )
    return head + "".join(_virtual(pair, service) for service in services())


def _virtual(pair: Pair, service: Service) -> str:
    key = service.key
    assert key.address is not None
    made = [destination(key, server) for server in pair.servers]
    reals = "".join(
        f"\treal{6 if one.key.address.version == 6 else ''}={format_endpoint(one.key.address, one.key.port)}"
        f" {WORDS[one.forward]} 1\n"
        for one in made
    )
    six = "6" if key.address.version == 6 else ""
    protocol = "udp" if key.protocol is Protocol.UDP else "tcp"
    return (
        f"virtual{six}={format_endpoint(key.address, key.port)}\n{reals}\tscheduler={service.scheduler}\n"
        f"\tprotocol={protocol}\n\tchecktype=connect\n\tcheckport={ROUTE_PORT}\n"
    )


def start(name: str, pair: Pair, director: Node, processes: Processes, *, interval_seconds: int, fall: int) -> None:
    """`name` is keepalived or ldirectord. Raises LabError where it is not installed."""
    directory = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    make = {"keepalived": keepalived, "ldirectord": ldirectord}[name]
    file = directory / "owner.conf"
    file.write_text(make(pair, interval_seconds, fall), encoding="utf-8")
    program = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise LabError(f"there is no {name} on this machine: apt install {name}")
    if name == "keepalived":
        pids = ["-p", str(directory / "k.pid"), "-c", str(directory / "c.pid")]
        command = [program, "-C", "-n", "-l", "-D", "-G", *pids, "-f", str(file)]
    else:  # its log is standard output, which Perl buffers when it is a file
        command = ["perl", "-e", "$| = 1; $0 = shift; do $0", program, str(file), "start"]
    processes.start(name, command, namespace=pair.namespace(director.name))
