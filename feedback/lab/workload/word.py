"""The report of the lab's HTTP server to its host's agent, five times a second, as a real application could send.

    {"port": 80, "utilisation": 0.4, "in_flight": 12, "latency_seconds": 0.02, "completions": 8120, "errors": 3}

This module owns the datagram and its counters; it must not know HTTP. Counters are cumulative, and completions include
errors. `utilisation` is the CPU used in the last second over what it may use. A real server might report how busy its
worker was. Here that would include waiting for a processor, since all machines of the lab share a few.

The other end is feedback.agent.signals.applications.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections import deque

INTERVAL_SECONDS = 0.2
WINDOW = 5  # intervals


class Word:
    """With an empty `path` it reports nothing. `quota` is in cores."""

    def __init__(self, path: str, port: int, quota: float) -> None:
        self.path, self.port, self.quota = path, port, quota
        self.completions = self.errors = 0
        self.latencies: list[float] = []
        self.due = time.monotonic()
        self.marks = deque([self._mark()], maxlen=WINDOW + 1)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def _mark(self) -> tuple[float, float]:
        return time.monotonic(), time.process_time()

    def patience(self) -> float:
        """Seconds until the next report is due; -1 if never."""
        return max(0.0, self.due - time.monotonic()) if self.path else -1.0

    def say(self, in_flight: int) -> None:
        """Send a report if it is time. An agent that is missing or does not listen costs nothing and is not waited
        for."""
        if not self.path or time.monotonic() < self.due:
            return
        self.due = time.monotonic() + INTERVAL_SECONDS
        self.marks.append(self._mark())
        words = {
            "port": self.port,
            "utilisation": self._utilisation(),
            "in_flight": in_flight,
            "completions": self.completions,
            "errors": self.errors,
        }
        if self.latencies:
            words["latency_seconds"] = sum(self.latencies) / len(self.latencies)
            self.latencies.clear()
        with contextlib.suppress(OSError):
            self.socket.sendto(json.dumps(words).encode(), self.path)

    def close(self) -> None:
        self.socket.close()

    def _utilisation(self) -> float:
        (at, cpu), (now, cpu_now) = self.marks[0], self.marks[-1]
        return min(1.0, (cpu_now - cpu) / max(now - at, 1e-6) / self.quota)
