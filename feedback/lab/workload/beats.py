"""The times of each director's heartbeats on one cable, as a file.

    python -m feedback.lab.workload.beats INTERFACE PORT OUTPUT_FILE

It also sees heartbeats that this end sends. The times are the kernel's, so a busy listener does not delay them. At
SIGTERM it writes the file, with lines of SOURCE_ADDRESS SECONDS (of CLOCK_MONOTONIC), and ends.
"""

from __future__ import annotations

import signal
import socket
import struct
import sys
import time
from itertools import pairwise
from pathlib import Path

SO_TIMESTAMPNS = 35
ETH_P_ALL, ETH_P_IP = 3, 0x0800
IP_BYTES = 20
RECEIVE_BYTES = 4 * 1024 * 1024


def gaps(lines: list[str], source: str, begin: float, end: float) -> list[float]:
    """The seconds between successive heartbeats of a director that came between `begin` and `end`."""
    at = [float(moment) for who, moment in map(str.split, lines) if who == source and begin <= float(moment) <= end]
    return [later - earlier for earlier, later in pairwise(at)]


def main(interface: str, port: str, output: str) -> None:
    over: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(1))
    heard: list[str] = []
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.SOL_SOCKET, 33, RECEIVE_BYTES)  # SO_RCVBUFFORCE
        sock.bind((interface, 0))
        sock.bind((interface, ETH_P_ALL))
        sock.settimeout(0.2)
        ahead = time.clock_gettime(time.CLOCK_REALTIME) - time.monotonic()
        while not over:
            try:
                data, control, _, sender = sock.recvmsg(64, 64)
            except TimeoutError:
                continue
            if sender[1] == ETH_P_IP and data[9] == socket.IPPROTO_UDP and data[22:24] == int(port).to_bytes(2, "big"):
                seconds, nanoseconds = struct.unpack("qq", control[0][2][:16])
                heard.append(f"{socket.inet_ntoa(data[12:16])} {seconds + nanoseconds / 1e9 - ahead:.6f}\n")
    Path(output).write_text("".join(heard), encoding="ascii")


if __name__ == "__main__":
    main(*sys.argv[1:])
