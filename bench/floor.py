"""The least that an agent could cost. One process only wakes up five times a second. One then sends the bytes of a
report by CURVE. One also reads the files that an agent reads, equally often, without looking at what they say.
agent_cost.py runs them with what the agent's package has.

    python -I -S bench/floor.py SITE PHASE_SECONDS wake
    python -I -S bench/floor.py SITE PHASE_SECONDS send ENDPOINT PUBLIC SECRET SERVER DATA_HEX
    python -I -S bench/floor.py SITE PHASE_SECONDS read ENDPOINT PUBLIC SECRET SERVER DATA_HEX

Each wakes at a phase of its own. Processes that woke together would find each other's code in the caches.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator

INTERVAL_SECONDS = 0.2
# How often an agent reads each: at every report, at every other one, once a second (feedback/agent/signals).
FILES = {
    1: ("stat", "thread-self/net/snmp", "pressure/cpu"),
    2: ("meminfo", "pressure/memory", "pressure/io"),
    5: ("vmstat", "thread-self/net/netstat"),
}
READ_BYTES = 16 * 1024


def main() -> None:
    site, phase, kind, *rest = sys.argv[1:]
    sys.path.insert(0, site)
    turns = wakes(float(phase))
    if kind == "wake":
        for _ in turns:
            pass
    send = sender(*rest)
    files = opened() if kind == "read" else []
    for turn in turns:
        for every, descriptor in files:
            if turn % every == 0:
                os.pread(descriptor, READ_BYTES, 0)
        send()


def wakes(phase: float) -> Iterator[int]:
    """The number of each wake, for ever."""
    poll, turn = select.poll(), 0
    due = time.monotonic() // INTERVAL_SECONDS * INTERVAL_SECONDS + phase
    while True:
        due += INTERVAL_SECONDS
        poll.poll(max(0.0, due - time.monotonic()) * 1000)
        turn += 1
        yield turn


def sender(endpoint: str, public: str, secret: str, server: str, data: str) -> Callable[[], None]:
    import zmq

    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.CONFLATE, 1)
    socket.curve_publickey, socket.curve_secretkey = public.encode(), secret.encode()
    socket.curve_serverkey = server.encode()
    socket.connect(endpoint)
    report = bytes.fromhex(data)

    def send() -> None:
        socket.send(report)

    return send


def opened() -> list[tuple[int, int]]:
    """How often to read, and the descriptor. Files that this kernel does not have are left out."""
    found = []
    for every, names in FILES.items():
        for name in names:
            try:
                found.append((every, os.open(f"/proc/{name}", os.O_RDONLY)))
                os.pread(found[-1][1], READ_BYTES, 0)
            except OSError:
                continue
    return found


if __name__ == "__main__":
    main()
