"""keepalived on both directors as operators run it: VRRP over the service network, and the kernel's sync daemon.

This module owns its configuration, which is plain text, and starts it. Source: keepalived.conf(5) of 2.2.7.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from feedback.lab.pair.topology import DIRECTORS, FLOATING, Node, Pair, destination, services
from feedback.lab.process import Processes
from feedback.model import Forward, Service

COMMAND = ["keepalived", "-n", "-l", "-D", "-G"]
PRIORITIES = (150, 100)
KINDS = {Forward.ROUTE: "DR", Forward.MASQUERADE: "NAT"}


def configuration(pair: Pair, director: Node, advert_seconds: float) -> str:
    """With VRRP version 3 for intervals under a second. An IPv4 instance cannot list IPv6 addresses; those in
    virtual_ipaddress_excluded are moved and announced all the same."""
    four = [f"{address}/32 dev {interface}" for address, interface in FLOATING if address.version == 4]
    six = [f"{address}/128 dev {interface}" for address, interface in FLOATING if address.version == 6]
    return (
        f"global_defs {{\n router_id {director.name}\n vrrp_version {2 if advert_seconds >= 1 else 3}\n"
        " lvs_sync_daemon eth0 VI_1 id 51\n script_user root\n enable_script_security\n}\n"
        "vrrp_instance VI_1 {\n state BACKUP\n interface eth0\n virtual_router_id 51\n"
        f" priority {PRIORITIES[DIRECTORS.index(director)]}\n advert_int {advert_seconds:g}\n"
        f" virtual_ipaddress {{\n{_lines(four)} }}\n virtual_ipaddress_excluded {{\n{_lines(six)} }}\n}}\n"
        + "".join(_virtual_server(pair, service) for service in services())
    )


def _lines(items: list[str]) -> str:
    return "".join(f"  {item}\n" for item in items)


def _virtual_server(pair: Pair, service: Service) -> str:
    key = service.key
    persistence = f" persistence_timeout {service.timeout_seconds}\n" if service.persistent else ""
    tcp = key.protocol == "tcp"
    check = "  TCP_CHECK {\n   connect_timeout 1\n  }\n" if tcp else ""
    made = [destination(key, server) for server in pair.servers]
    reals = "".join(f" real_server {one.key.address} {one.key.port} {{\n  weight 1\n{check} }}\n" for one in made)
    return (
        f"virtual_server {key.address} {key.port} {{\n delay_loop 2\n lb_algo {service.scheduler}\n"
        f" lb_kind {KINDS[made[0].forward]}\n protocol {'TCP' if tcp else 'UDP'}\n{persistence}{reals}}}\n"
    )


class Keepalived:
    """keepalived on both directors. `start` may be called again for one that has died."""

    def __init__(self, pair: Pair, processes: Processes, advert_seconds: float) -> None:
        self.pair, self.processes = pair, processes
        self.directory = Path(tempfile.mkdtemp(prefix="keepalived-"))
        for director in DIRECTORS:
            text = configuration(pair, director, advert_seconds)
            (self.directory / f"{director.name}.conf").write_text(text, encoding="utf-8")

    def start(self, director: Node) -> None:
        pids = []
        for option in ("-p", "-c", "-r"):
            # The pid file of a killed one still exists, and a zombie even has the process: a new one would not start.
            pid = self.directory / f"{director.name}{option}.pid"
            pid.unlink(missing_ok=True)
            pids += [option, str(pid)]
        command = [*COMMAND, "-f", str(self.directory / f"{director.name}.conf"), *pids]
        name = self.name(director)
        self.processes.start(name, command, namespace=self.pair.namespace(director.name))

    @staticmethod
    def name(director: Node) -> str:
        return f"{director.name}-keepalived"
