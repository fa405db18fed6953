"""Protocols that carry addresses, or calls, in their data: FTP and SIP through a takeover, under moving weights.

    ftp        eight clients, active and passive, half of them at a server address that is shorter, as text, than the
               VIP. The active director dies in the middle of a transfer; each session goes on over its control
               connection
    live       30 SIP calls from two phones; the standby runs from the beginning
    late       the same, but the standby starts when the calls exist
    restarted  the same; then the active director's daemon is killed and started again

Meanwhile weights change five times a second. A call is continued from another port, as by a phone behind NAT, so that
only its Call-ID identifies it. FTP is masqueraded, SIP routed directly.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from feedback.lab import network
from feedback.lab.bounds import Bound
from feedback.lab.error import LabError
from feedback.lab.figures import Figures
from feedback.lab.job import Job, Options
from feedback.lab.pair import ftp
from feedback.lab.pair.injury import Death
from feedback.lab.pair.machine import Namespaced
from feedback.lab.pair.product import Product
from feedback.lab.pair.stand import PYTHON, PairStand
from feedback.lab.pair.topology import BACK, CLIENT, DIRECTORS, VIP, Node, pair, sources
from feedback.lab.scenario import PairScenario
from feedback.lab.trace import Trace
from feedback.lab.workload import sip
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
    SetDestination,
)

FTP = ServiceKey.at(Protocol.TCP, VIP, ftp.PORT)
SIP = ServiceKey.at(Protocol.UDP, VIP, 5060)
PERSISTENCE_SECONDS = 300
SESSIONS = 8
CALLS, PHONES = 30, 2
ROUNDS = 3  # of requests in each call after the takeover, each from another port
CHANGES_PER_SECOND = 5
WEIGHTS = (100, 400, 900, 250)
INTO_SECONDS = 3.0  # into the large transfers
OVER_SECONDS = 45.0  # until every session has ended: longer than lftp's patience
ANSWER_SECONDS = 1.0
SETTLED_SECONDS = 2.0


class Protocols(PairScenario):
    name = "protocols"
    summary = "FTP and SIP through a takeover under moving weights: transfers and calls go on"
    variants = ("ftp", "live", "late", "restarted")
    seconds = 60.0
    seconds_least = 60.0
    scheduler = "rr"
    bounds = (
        Bound("ftp_transfers", least=SESSIONS * len(ftp.GETS)),
        Bound("ftp_failed", most=0),
        Bound("ftp_connections", most=SESSIONS),  # more: somebody has begun anew
        Bound("calls", least=CALLS),
        Bound("calls_kept_live", least="calls"),
        Bound("calls_kept_late", least="calls"),
        Bound("calls_kept_restarted", least="calls"),
    )

    def run(self, job: Job, output: Path) -> None:
        with PairStand(pair(job.run), output, job.options) as stand:
            both = Product(stand)
            if job.variant == "ftp":
                _ftp(stand, both, output)
            else:
                _sip(stand, both, job.variant)
            both.tell()

    def figures(self, traces: Mapping[str, Trace], options: Options) -> Figures:
        found: Figures = {}
        for variant, trace in traces.items():
            told = {event.what: event.details for event in trace.events}
            if variant == "ftp":
                found |= {f"ftp_{name}": value for name, value in told["transfers"].items()}
            else:
                found["calls"] = min(told["calls"]["made"], found.get("calls", CALLS))
                found[f"calls_kept_{variant}"] = told["calls"]["kept"]
        return found


# --- FTP -------------------------------------------------------------------------------------------------------------


def _ftp(stand: PairStand, both: Product, output: Path) -> None:
    first, second = DIRECTORS
    server = stand.pair.servers[0]
    own, long = ftp.addresses(server)
    network.batch([f"addr add {long}/{BACK.prefixlen} dev eth1"], stand.pair.namespace(server.name))
    for director in DIRECTORS:
        with network.entered(stand.pair.namespace(director.name)):
            Path("/proc/sys/net/ipv4/vs/conntrack").write_text("1\n", encoding="ascii")
    directory = output / "ftp"
    shutil.rmtree(directory, ignore_errors=True)  # left by an earlier run
    directory.mkdir()
    log = directory / "vsftpd.log"
    ftp.start_server(stand, server, Path(tempfile.mkdtemp(prefix="ftp-")) / "server", log)
    _begin(stand, both, FTP, [Destination(DestinationKey(a, ftp.PORT), 100, Forward.MASQUERADE) for a in (own, long)])
    both.start(second)
    both.wait_until_standby(second)
    sessions = [ftp.Session(number, passive=number // 2 % 2 == 0) for number in range(SESSIONS)]
    with _moving_weights(stand):
        for session in sessions:
            ftp.start_client(stand, session, directory)
        stand.wait_for("every large transfer is under way", lambda: _under_way(sessions, directory))
        stand.event("start")
        stand.sleep_until(stand.now() + INTO_SECONDS)
        stand.strike(Death(stand.pair, first), first)
        with contextlib.suppress(LabError):
            stand.wait_for("every session has ended", lambda: _ended(stand, sessions), OVER_SECONDS)
    right = sum(ftp.transferred(session, directory) for session in sessions)
    failed = SESSIONS * len(ftp.GETS) - right
    stand.event("transfers", transfers=right, failed=failed, connections=ftp.connections(log))
    stand.event("tracking", written=((both.ask(second, "status") or {}).get("tracking") or {}).get("written"))


def _under_way(sessions: list[ftp.Session], directory: Path) -> bool:
    paths = [directory / f"{session.name}-1-{ftp.LARGE}" for session in sessions]
    return all(path.exists() and path.stat().st_size for path in paths)


def _ended(stand: PairStand, sessions: list[ftp.Session]) -> bool:
    stand.processes.check()
    return not any(session.name in stand.processes.running for session in sessions)


# --- SIP -------------------------------------------------------------------------------------------------------------


def _sip(stand: PairStand, both: Product, variant: str) -> None:
    first, second = DIRECTORS
    for server in stand.pair.servers:
        command = [*PYTHON, "feedback.lab.workload.sip", server.name, str(SIP.port)]
        stand.processes.start(f"{server.name}-sip", command, namespace=stand.pair.namespace(server.name))
    made = [Destination(DestinationKey(server.front, SIP.port), 100, Forward.ROUTE) for server in stand.pair.servers]
    _begin(stand, both, SIP, made)
    if variant != "late":
        both.start(second)
        both.wait_until_standby(second)
    with _moving_weights(stand):
        before = _ask(stand, number=1)
        stand.event("start")
        if variant == "late":
            both.start(second)
            both.wait_until_standby(second)
        if variant == "restarted":
            both.kill(first)
            both.start(first)
            stand.wait_for("the standby is complete again", lambda: _again(both))
        stand.sleep_until(stand.now() + SETTLED_SECONDS)
        stand.strike(Death(stand.pair, first), first)
        stand.wait_for_owner(second)
        after = [_ask(stand, number=2 + turn) for turn in range(ROUNDS)]
    kept = [call for call, server in before.items() if server and all(found[call] == server for found in after)]
    stand.event("calls", made=sum(map(bool, before.values())), kept=len(kept), before=before, after=after[-1])


def _again(both: Product) -> bool:
    first, second = DIRECTORS
    status = both.ask(first, "status")
    return bool(status and status["role"] == "active" and status["replica"]["serving"] and both.complete(second))


def _ask(stand: PairStand, number: int) -> dict[str, str]:
    """Send one request in every call, each from a port of its own. Returns which server answered each."""
    phones = sources(Forward.ROUTE)[0][:PHONES]
    found = {}
    with network.entered(stand.pair.namespace(CLIENT.name)):
        for call in range(CALLS):
            phone = phones[call % PHONES]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(ANSWER_SECONDS)
                sock.bind((str(phone), 0))
                sock.sendto(sip.request(f"call-{call}", str(phone), str(VIP), number), (str(VIP), SIP.port))
                try:
                    found[f"call-{call}"] = sip.server_of(sock.recv(sip.ANSWER_BYTES))
                except OSError:
                    found[f"call-{call}"] = ""
    return found


# --- both ------------------------------------------------------------------------------------------------------------


def _begin(stand: PairStand, both: Product, key: ServiceKey, destinations: list[Destination]) -> None:
    """Wait until the first director is active with the pair's services, and add this one."""
    first = DIRECTORS[0]
    both.start(first)
    both.wait_until_active(first)
    if key == SIP:
        service = Service(key, "wrr", ServiceFlags.PERSISTENT, PERSISTENCE_SECONDS, pe_name="sip")
    else:
        service = Service(key, "rr")  # uses both addresses in turn
    edits: list[Edit] = [AddService(service), *(AddDestination(key, each) for each in destinations)]
    for error in _machine(stand, first).ipvs.apply(edits):
        raise LabError(f"the kernel refused: {error}")


@contextlib.contextmanager
def _moving_weights(stand: PairStand) -> Iterator[None]:
    """Written on the director that has the service and is asked last: the table of a dead one does no harm."""
    stopped = threading.Event()

    def move() -> None:
        for turn in itertools.count():
            for director in DIRECTORS:
                _change(_machine(stand, director), turn)
            if stopped.wait(1 / CHANGES_PER_SECOND):
                return

    thread = threading.Thread(target=move, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _change(machine: Namespaced, turn: int) -> None:
    edits = []
    for entry in machine.ipvs.snapshot().services:
        if entry.service.key in (FTP, SIP):
            for number, each in enumerate(entry.destinations):
                found = each.destination
                weight = WEIGHTS[(turn + number) % len(WEIGHTS)]
                edits.append(SetDestination(entry.service.key, Destination(found.key, weight, found.forward)))
    machine.ipvs.apply(edits)


def _machine(stand: PairStand, director: Node) -> Namespaced:
    machine = stand.machines[director.name]
    assert isinstance(machine, Namespaced)
    return machine


SCENARIO = Protocols()
