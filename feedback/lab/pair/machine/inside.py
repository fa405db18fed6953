"""Inside a director's own kernel: performs requests that come over the serial line, one JSON line each.

    python -m feedback.lab.pair.machine.inside RUN DIRECTOR OUTPUT

It must not decide anything. The other end of the line is `foreign.py`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import time
import tty
from pathlib import Path
from typing import Any, BinaryIO

from feedback.ipvs import Client, IpvsError
from feedback.lab import network
from feedback.lab.error import LabError
from feedback.lab.pair import firewall, topology
from feedback.lab.pair.machine import machine
from feedback.lab.pair.machine.foreign import interfaces
from feedback.lab.pair.topology import DIRECTORS, Node, Pair
from feedback.lab.process import Processes

LINE = Path("/dev/ttyS0")
SIOCETHTOOL = 0x8946
ETHTOOL_SGRO, ETHTOOL_STSO, ETHTOOL_SGSO = 0x2C, 0x1F, 0x24


class Inside:
    def __init__(self, pair: Pair, director: Node, output: Path) -> None:
        self.pair = pair
        network.settle(None, topology.settings(pair, director), topology.addressing(pair, director))
        for name in interfaces():
            _one_frame_at_a_time(name)
        self.ipvs = Client()
        self.processes = Processes(output / "logs")

    def do(self, request: dict[str, Any]) -> Any:
        """Raises LabError and IpvsError."""
        match request["do"]:
            case "table":
                self.processes.check()
                return machine.table(self.ipvs)
            case "make_services":
                machine.make_services(self.ipvs, self.pair)
            case "guard":
                firewall.load(request["firewall"])
            case "start":
                self.processes.start(request["name"], request["command"])
            case "signal":
                machine.send(self.processes, request["name"], signal.Signals(request["how"]))
            case "ask":
                return machine.ask(Path(request["socket"]), request["request"])
            case "clock":
                return time.monotonic()
            case unknown:
                raise LabError(f"cannot {unknown}")
        return None


def _one_frame_at_a_time(interface: str) -> None:
    """Turn off the joining of incoming frames and the cutting of outgoing ones. The driver sends the first of several
    joined frames, and then whatever follows it in memory (vector_kern.c, prep_msg: no frag_list)."""
    # Only when the interface is up: setting it up turns both on again.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for command in (ETHTOOL_SGRO, ETHTOOL_STSO, ETHTOOL_SGSO):
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP", interface.encode(), ctypes.addressof(value))
            with contextlib.suppress(OSError):  # an offload that it does not have
                fcntl.ioctl(sock, SIOCETHTOOL, request)


def main(run: str, name: str, output: str) -> None:
    descriptor = os.open(LINE, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(descriptor)
    with os.fdopen(descriptor, "rb", buffering=0) as line:
        director = next(node for node in DIRECTORS if node.name == name)
        inside = Inside(topology.pair(run), director, Path(output))
        _say(line, {"result": "up"})
        while request := line.readline():
            try:
                _say(line, {"result": inside.do(json.loads(request))})
            except (LabError, IpvsError, OSError) as error:
                _say(line, {"error": f"{error}"})


def _say(line: BinaryIO, answer: dict[str, Any]) -> None:
    data = json.dumps(answer, separators=(",", ":")).encode() + b"\n"
    while data:
        data = data[os.write(line.fileno(), data) :]


if __name__ == "__main__":
    main(*sys.argv[1:])
