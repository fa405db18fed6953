"""The least that an agent could cost: a process that wakes up five times a second, and one that then also sends the
bytes of a report by CURVE. Neither reads or decides anything. Run by agent_cost.py, with what the agent's package has.

    python -I -S bench/floor.py SITE wake
    python -I -S bench/floor.py SITE send ENDPOINT PUBLIC SECRET SERVER DATA_HEX
"""

from __future__ import annotations

import select
import sys

MILLISECONDS = 200


def main() -> None:
    site, kind, *rest = sys.argv[1:]
    sys.path.insert(0, site)
    poll = select.poll()
    if kind == "wake":
        while True:
            poll.poll(MILLISECONDS)
    import zmq

    endpoint, public, secret, server, data = rest
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.CONFLATE, 1)
    socket.curve_publickey, socket.curve_secretkey = public.encode(), secret.encode()
    socket.curve_serverkey = server.encode()
    socket.connect(endpoint)
    report = bytes.fromhex(data)
    while True:
        poll.poll(MILLISECONDS)
        socket.send(report)


if __name__ == "__main__":
    main()
