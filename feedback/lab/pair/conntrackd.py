"""conntrackd beside the pair: the usual tool for a firewall's states on two hosts, as a peer of ours.

This module owns its configuration, which is plain text. conntrackd writes what it receives into the kernel at once (no
external cache), so nobody has to call it at a takeover. Source: conntrackd.conf(5) of 1.4.7.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from feedback.lab.error import LabError
from feedback.lab.pair.topology import DIRECTORS, Node, Pair, heartbeat_address, heartbeat_interface
from feedback.lab.process import Processes

PORT = 3780


def configuration(director: Node, directory: Path) -> str:
    own = DIRECTORS.index(director)
    return f"""\
Sync {{
    Mode NOTRACK {{
        DisableExternalCache on
        StartupResync yes
    }}
    UDP {{
        IPv4_address {heartbeat_address(own, 0)}
        IPv4_Destination_Address {heartbeat_address(1 - own, 0)}
        Port {PORT}
        Interface {heartbeat_interface(0)}
        Checksum on
    }}
}}
General {{
    HashSize 32768
    HashLimit 131072
    LogFile off
    Syslog off
    LockFile {directory}/{director.name}-conntrackd.lock
    UNIX {{
        Path {directory}/{director.name}-conntrackd.socket
    }}
    NetlinkBufferSize 2097152
    NetlinkBufferSizeMaxGrowth 8388608
    Filter From Userspace {{
        Protocol Accept {{
            TCP
            UDP
        }}
        Address Ignore {{
            IPv4_address 127.0.0.1
            IPv4_address 10.79.0.0/16
        }}
    }}
}}
"""


def start(pair: Pair, processes: Processes, directory: Path) -> None:
    """Start it on both directors. Raises LabError if it is not installed."""
    program = shutil.which("conntrackd", path="/usr/sbin:/usr/bin")
    if program is None:
        raise LabError("there is no conntrackd on this machine: apt install conntrackd")
    for director in DIRECTORS:
        file = directory / f"{director.name}-conntrackd.conf"
        file.write_text(configuration(director, directory), encoding="utf-8")
        name = f"{director.name}-conntrackd"
        processes.start(name, [program, "-C", str(file)], namespace=pair.namespace(director.name))
