"""Plan: when each flow of one destination is told, and the outcome of each. Pure: `now` in, flows out.

Begins once the destination has left the table. The most recently active go first. A client that does not answer is
poked again: its firewall may drop a segment out of window, and its kernel answers such a segment at most every half
second (tcp_invalid_ratelimit). A client that answers has thereby been told (cuts/__init__.py).

Invariants: no flow is poked after it answered, none more than len(ROUNDS_SECONDS) times, and never more than RATE in a
second (and BURST); a plan ends, at the latest LAST_SECONDS after its last poke.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from math import inf

import msgspec

from feedback.master.cuts.segments import Flow, Heard

ROUNDS_SECONDS = (0.0, 0.6, 1.8)  # after the first; the kernel's limit is 0.5 s
LAST_SECONDS = 1.0  # for the answers to the last pokes
# A poke and its answer are 120 bytes: so this is 77 Mbit/s, beside a server's traffic.
RATE, BURST = 80_000, 256
BATCH = 64  # poked at a time, when the rate bounds them


class Summary(msgspec.Struct, frozen=True):
    """What happened to the flows: `told` answered, and were reset; `gone` had ended before; `silent` never answered. In
    `seconds` since the removal the last of them answered."""

    flows: int
    told: int
    gone: int
    silent: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.told} of {self.flows} clients told within {1000 * self.seconds:.0f} ms, "
            f"{self.gone} had gone, {self.silent} do not answer"
        )


class Plan:
    def __init__(self, flows: Iterable[Flow], now: float) -> None:
        """The flows in the order in which they are to be told."""
        self._flows: dict[Flow, bool] = {}  # whether it has answered
        for flow in flows:  # not in one call, which would hold the interpreter
            self._flows[flow] = False
        self._began = self._last_at = self._answered_at = now
        self._round = 0
        self._queue = deque(self._flows)
        self._sent = self._told = self._gone = 0

    @property
    def flows(self) -> Collection[Flow]:
        return self._flows.keys()

    def due(self, now: float) -> list[Flow]:
        """Whom to poke now."""
        if not self._queue and not self._next_round(now):
            return []
        room = int(BURST + RATE * max(0.0, now - self._began)) - self._sent
        found: list[Flow] = []
        while self._queue and len(found) < min(room, BURST):
            flow = self._queue.popleft()
            if not self._flows[flow]:
                found.append(flow)
        if found:
            self._sent, self._last_at = self._sent + len(found), now
        return found

    def _next_round(self, now: float) -> bool:
        if self._round + 1 >= len(ROUNDS_SECONDS) or now < self._began + ROUNDS_SECONDS[self._round + 1]:
            return False
        self._round += 1
        self._queue.extend(flow for flow, answered in self._flows.items() if not answered)
        return bool(self._queue)

    def heard(self, heard: Heard, now: float) -> Flow | None:
        """Take what a client sent. Returns its flow, once, where it is one of these and goes on no more."""
        if self._flows.get(heard.flow, True):
            return None
        self._flows[heard.flow] = True
        self._told, self._gone = self._told + (not heard.reset), self._gone + heard.reset
        self._answered_at = now
        return heard.flow

    @property
    def _waiting(self) -> int:
        return len(self._flows) - self._told - self._gone

    def ended(self, now: float) -> bool:
        last = self._round + 1 == len(ROUNDS_SECONDS) and not self._queue
        return not self._waiting or (last and now >= self._last_at + LAST_SECONDS)

    def next_timer(self) -> float:
        """When there is something to do, in the caller's `now`; infinity once it has ended."""
        if not self._waiting:
            return inf
        if self._queue:
            return self._began + max(0, self._sent - BURST + BATCH) / RATE
        if self._round + 1 < len(ROUNDS_SECONDS):
            return self._began + ROUNDS_SECONDS[self._round + 1]
        return self._last_at + LAST_SECONDS

    def summary(self) -> Summary:
        waiting = self._waiting
        return Summary(len(self._flows), self._told, self._gone, waiting, self._answered_at - self._began)
