"""A port on loopback that is free now, for TCP and UDP, and that nobody takes before it is bound.

So it is below those that the kernel gives to outgoing connections, and each of pytest-xdist's workers has a part of its
own. Two runs at once begin at different places.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket

FIRST, PART, PARTS = 10_000, 1_000, 20  # below net.ipv4.ip_local_port_range, which begins at 32768

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_numbers = itertools.count(os.getpid())


def free_port() -> int:
    begin = FIRST + _worker % PARTS * PART
    ports = (begin + number % PART for number in _numbers)
    return next(port for port in ports if _is_free(port))


def _is_free(port: int) -> bool:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            try:
                with socket.socket(family, kind) as probe:
                    probe.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:  # anything else: no such family here
                    return False
    return True
