"""Ranges that move with the active role: routes for a routing daemon to announce, added and removed by a thread.

It runs in a thread, because nothing here may delay a heartbeat, and a routing protocol is slow anyway. A route is a
blackhole route with a protocol number of ours. It drops nothing, since only the routing daemon reads its table. Routes
of ours that are not wanted are removed in either role. Nothing is done while the role is unknown, so a restart
withdraws no route. A file under /run says that some of our routes may exist. This is a shell, and uses
feedback.steer.routing."""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path

from feedback.config.strict import Network
from feedback.faults import said
from feedback.ops.logs import Log
from feedback.refusals import printable

PROTOCOL = 252  # rtm_protocol, free for user space (/etc/iproute2/rt_protos)
MEND_SECONDS = 2.0
END_SECONDS = 2.0

LOG = Log("routes")


class Routes:
    """`wanted` are networks with their tables. `open` starts the thread, but only if there may be work for it."""

    def __init__(self, wanted: Collection[tuple[Network, int]], memory: Path) -> None:
        self._wanted, self._memory = frozenset(wanted), memory
        self._active: bool | None = None
        self._stir, self._ending = threading.Event(), False
        self._there: frozenset[tuple[Network, int]] = frozenset()
        self._thread: threading.Thread | None = None
        self.problem = ""  # why the routes are not as wanted

    def open(self) -> None:
        if self._wanted or self._memory.exists():
            self._thread = threading.Thread(target=self._run, name="routes", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop the thread. The routes stay."""
        self._ending = True
        self._stir.set()
        if self._thread is not None:
            self._thread.join(END_SECONDS)

    def follow(self, active: bool) -> None:
        """Follow this role from now on. Returns at once."""
        if active is not self._active:
            self._active = active
            self._stir.set()

    def installed(self, network: Network, table: int) -> bool:
        """Whether the last look, some seconds ago, found this route."""
        return (network, table) in self._there

    def _run(self) -> None:
        while not self._ending:
            if self._active is not None:
                self._turn(self._active)
            self._stir.wait(MEND_SECONDS)
            self._stir.clear()

    def _turn(self, active: bool) -> None:
        try:
            self.problem = self._work(self._wanted if active else frozenset())
        except Exception as error:  # the thread goes on: this is tried again
            problem = printable(said(error))
            if problem != self.problem:
                LOG.error("routes-failed", reason=problem, note="tried again")
            self.problem = problem

    def _work(self, wanted: frozenset[tuple[Network, int]]) -> str:
        from feedback.steer.routing import BLACKHOLE, Routing

        with Routing() as routing:
            there = frozenset((r.network, r.table) for r in routing.routes(proto=PROTOCOL) if r.kind == BLACKHOLE)
            if wanted:
                self._memory.touch()
            for network, table in sorted(wanted - there, key=str):
                routing.add_blackhole(network, table, PROTOCOL)
            for network, table in sorted(there - wanted, key=str):
                routing.remove_blackhole(network, table, PROTOCOL)
            if there != wanted:
                LOG.info("routes", added=_text(wanted - there), removed=_text(there - wanted))
                there = frozenset((r.network, r.table) for r in routing.routes(proto=PROTOCOL) if r.kind == BLACKHOLE)
            self._there = there
        if not self._wanted:
            self._memory.unlink(missing_ok=True)
        missing = wanted - there
        return f"somebody else has a route in the place of {_text(missing)}" if missing else ""


def _text(routes: Collection[tuple[Network, int]]) -> str:
    return " ".join(sorted(f"{network}@{table}" for network, table in routes)) or "none"
