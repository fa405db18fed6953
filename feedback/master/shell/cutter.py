"""The shell of the cuts: reads the kernel's table, sends segments and hears the answers. It decides nothing.

A thread of its own, so that neither a long table nor many clients make the master's turns late: no step of it that
holds the interpreter is long. Sending sockets are opened once; listening ones only while something is listed or cut,
since they get a copy of all TCP to the services' ports that the kernel's table does not take.

It listens from the listing on. Who sends something between the removal and the poke is reset by the director's own TCP
at once, and answers no poke with its numbers any more; they are in what it sent.

Raw sockets need CAP_NET_RAW. They are of the master's network namespace.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address
from math import inf
from pathlib import Path
from queue import Empty, SimpleQueue

from feedback.faults import said
from feedback.ipvs.namespace import within
from feedback.master.cuts import segments
from feedback.master.cuts.course import Cut, Do, Told
from feedback.master.cuts.listing import Listing, Place
from feedback.master.cuts.plan import Plan, Summary
from feedback.master.cuts.segments import Flow, Heard, Way
from feedback.master.shell import raw
from feedback.master.shell.way import routed
from feedback.model import Destination, Forward
from feedback.ops.logs import Log

LOG = Log("cutter")

TABLE = Path("/proc/thread-self/net/ip_vs_conn")
LOOK_SECONDS, FORGET_SECONDS = 0.05, 5.0  # the kernel forgets within 0.02 s, and looks through all of its table for it
HEARD_MAX = 512  # before the next ones are poked
# Of the process. A turn of the master gives the interpreter away at each of its system calls, and waits so long for it.
SWITCH_SECONDS = 0.0005

Receive = Callable[[Told], None]


class _Cutting:
    """One destination's. `look_at` and `until`: when to look whether the kernel has forgotten, and how long at most."""

    def __init__(self, cut: Cut, plan: Plan, way: Way | None) -> None:
        self.cut, self.plan, self.way = cut, plan, way
        self.look_at = self.until = inf


class Cutter:
    """`receive` gets what came of each action, in this thread. Raises OSError where raw sockets are refused."""

    def __init__(self, netns: str | None, receive: Receive) -> None:
        self._netns, self._receive = netns, receive
        self._orders: SimpleQueue[Cut | None] = SimpleQueue()
        self._listed: dict[Place, list[Flow]] = {}
        self._early: dict[Flow, Heard | None] = {}  # of those listed: what the client has sent past the table
        self._cuttings: dict[Place, _Cutting] = {}
        self._by_flow: dict[Flow, _Cutting] = {}
        self._hearing: list[socket.socket] = []
        self._taps: dict[Place, socket.socket] = {}  # of those that stay in the table
        self._senders = within(netns, raw.senders)
        sys.setswitchinterval(SWITCH_SECONDS)
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="cutter", daemon=True)
        self._thread.start()

    def do(self, cuts: list[Cut]) -> None:
        for cut in cuts:
            self._orders.put(cut)
        if cuts:
            self._stir()

    def close(self) -> None:
        self._orders.put(None)
        self._stir()
        self._thread.join()
        for each in (*self._senders.values(), *self._hearing, *self._taps.values()):
            each.close()
        os.close(self._wake)
        os.close(self._woken)

    def _stir(self) -> None:
        with suppress(BlockingIOError):  # it is woken already
            os.write(self._wake, b"\0")

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            now = time.monotonic()
            timers = [min(c.plan.next_timer(), c.look_at) for c in self._cuttings.values()]
            ready = self._wait(None if not timers else max(0.0, 1000 * (min(timers) - now)))
            with suppress(BlockingIOError):
                os.read(self._woken, 4096)
            try:
                for each in (*self._hearing, *self._taps.values()):
                    if each.fileno() in ready:
                        self._hear(each)
                if not self._take():
                    return
                self._poke()
            except Exception as error:  # the next cut must go on all the same
                LOG.error("fault", reason=said(error))
                self._give_up()

    def _wait(self, patience_ms: float | None) -> set[int]:
        """Not select(): a master with many agents has more descriptors than that takes."""
        poll = select.poll()
        for descriptor in (self._woken, *(each.fileno() for each in (*self._hearing, *self._taps.values()))):
            poll.register(descriptor, select.POLLIN)
        return {descriptor for descriptor, _ in poll.poll(patience_ms)}

    def _take(self) -> bool:
        """What was ordered; one reading of the table serves all. False at the end."""
        wanted: list[Cut] = []
        begun: list[Cut] = []
        with suppress(Empty):
            while True:
                cut = self._orders.get_nowait()
                if cut is None:
                    return False
                if cut.do is Do.FORGET:
                    self._forget(cut.place)
                else:
                    (wanted if cut.do is Do.LIST else begun).append(cut)
        if wanted:
            self._list(wanted)
        for cut in begun:
            if cut.do is Do.SOME:
                self._begin_some(cut)
            else:
                self._begin(cut)
        return True

    def _list(self, cuts: list[Cut]) -> None:
        listing = self._reading(cut.place for cut in cuts)
        for cut in cuts:
            self._forget(cut.place)
            flows = self._listed[cut.place] = listing.flows(cut.place)
            for flow in flows:
                self._early[flow] = None
        self._listen()
        for cut in cuts:
            self._receive(Told(cut.service, cut.destination.key, len(self._listed[cut.place])))

    def _forget(self, place: Place) -> None:
        for flow in self._listed.pop(place, ()):
            self._early.pop(flow, None)
        self._fall_silent()

    def _reading(self, places: Iterable[Place]) -> Listing:
        listing = Listing(places)
        try:
            _read(within(self._netns, _table), listing)
        except OSError as error:
            LOG.error("table-failed", reason=error.strerror or str(error), note="clients that are cut are not told")
        return listing

    def _begin(self, cut: Cut) -> None:
        now = time.monotonic()
        plan = Plan(self._listed.pop(cut.place, ()), now)
        made = self._cuttings[cut.place] = _Cutting(cut, plan, self._way(cut.destination) if cut.both else None)
        for flow in plan.flows:
            self._by_flow[flow] = made
            early = self._early.pop(flow, None)
            if early is not None:
                self._answered(early)

    def _begin_some(self, cut: Cut) -> None:
        """It stays in the table, so its clients' answers go to their server: they are heard on their way."""
        assert cut.clients is not None
        ipv6 = cut.clients.version == 6
        if cut.place in self._cuttings:
            return
        flows = self._reading([cut.place]).flows(cut.place)
        mine = [flow for flow in flows if ip_address(flow.client) in cut.clients]
        made = self._cuttings[cut.place] = _Cutting(cut, Plan(mine, time.monotonic()), None)
        for flow in mine:
            self._by_flow[flow] = made
        program = segments.client_filter({flow.virtual_port for flow in mine}, cut.clients)
        self._taps[cut.place] = within(self._netns, lambda: raw.tap(ipv6=ipv6))
        raw.attach(self._taps[cut.place], program)

    def _poke(self) -> None:
        now = time.monotonic()
        for place, cutting in list(self._cuttings.items()):
            for flow in cutting.plan.due(now):
                numbers = secrets.randbits(64)
                self._send(segments.poke(flow, numbers >> 32, numbers & 0xFFFFFFFF), flow.client)
            if cutting.plan.ended(now) and self._forgotten(cutting, now):
                del self._cuttings[place]
                self._end(cutting)

    def _forgotten(self, cutting: _Cutting, now: float) -> bool:
        """Where it comes back: whether the kernel has none of its flows any more."""
        if not cutting.cut.back:
            return True
        if cutting.until == inf:
            cutting.look_at, cutting.until = now, now + FORGET_SECONDS
        if now < cutting.look_at:
            return False
        place = cutting.cut.place
        left = self._reading([place]).count(place)
        if left and now >= cutting.until:
            LOG.error(
                "not-forgotten", destination=str(place[1]), flows=left, note="is net.ipv4.vs.expire_nodest_conn 1?"
            )
        cutting.look_at = now + LOOK_SECONDS
        return not left or now >= cutting.until

    def _end(self, cutting: _Cutting) -> None:
        summary = cutting.plan.summary()
        for flow in cutting.plan.flows:
            self._by_flow.pop(flow, None)
        tap = self._taps.pop(cutting.cut.place, None)
        if tap is not None:
            tap.close()
        self._fall_silent()
        self._receive(Told(cutting.cut.service, cutting.cut.destination.key, summary.flows, summary))

    def _give_up(self) -> None:
        for cutting in self._cuttings.values():
            self._receive(Told(cutting.cut.service, cutting.cut.destination.key, 0, Summary(0, 0, 0, 0, 0.0)))
        for tap in self._taps.values():
            tap.close()
        self._cuttings, self._by_flow, self._taps = {}, {}, {}
        self._fall_silent()

    # --- segments -----------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        ports = {flow.virtual_port for flows in (self._early, self._by_flow) for flow in flows}
        if not self._hearing:
            self._hearing = within(self._netns, raw.hearers)
        for each in self._hearing:
            raw.attach(each, segments.port_filter(ports, ipv6=each.family is socket.AF_INET6))

    def _fall_silent(self) -> None:
        """Where nothing is listed or cut any more."""
        if not self._listed and not self._cuttings:
            for each in self._hearing:
                each.close()
            self._hearing = []

    def _hear(self, each: socket.socket) -> None:
        for _ in range(HEARD_MAX):
            try:
                heard = raw.heard(each)
            except BlockingIOError:
                return
            except OSError as error:
                LOG.error("hearing-failed", reason=error.strerror or str(error))
                return
            if heard is not None:
                self._answered(heard)

    def _answered(self, heard: Heard) -> None:
        if heard.flow in self._early:
            self._early[heard.flow] = heard
        cutting = self._by_flow.get(heard.flow)
        if cutting is not None and cutting.cut.do is Do.SOME and not heard.reset:
            # Whatever it sends until it is told: the numbers of a busy connection may have moved on meanwhile.
            self._send(segments.reset_client(heard), heard.flow.client)
            self._send(segments.reset_through(heard), heard.flow.virtual)
        flow = cutting.plan.heard(heard, time.monotonic()) if cutting is not None else None
        if cutting is not None and flow is not None and cutting.way is not None:
            self._send(segments.reset(flow, heard.sequence, cutting.way), cutting.way.server)

    def _send(self, packet: bytes, to: bytes) -> None:
        """A host that cannot be reached is one that cannot be told."""
        family = socket.AF_INET if len(to) == 4 else socket.AF_INET6
        with suppress(OSError):
            self._senders[family].sendto(packet, (_text(to), 0))

    def _way(self, of: Destination) -> Way:
        server = of.key.address.packed
        source = within(self._netns, lambda: _source(server)) if of.forward is Forward.TUNNEL else b""
        return Way(of.forward, server, of.key.port, of.tunnel_type, of.tunnel_port, source)


@lru_cache(maxsize=4096)
def _text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def _source(server: bytes) -> bytes:
    """The address from which this host would speak to it."""
    try:
        return routed(ip_address(server)).packed
    except OSError:
        return bytes(len(server))


def _table() -> int:
    return os.open(TABLE, os.O_RDONLY | os.O_CLOEXEC)


def _read(table: int, listing: Listing) -> None:
    """The kernel gives a page at a time."""
    rest = b""
    try:
        while data := os.read(table, 65536):
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            for line in lines:
                listing.take(line)
    finally:
        os.close(table)
