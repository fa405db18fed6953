"""FTP through the pair: Debian's vsftpd on a real server, with lftp as clients. Owns both configurations as text.

The server has two addresses. One is as long, as text, as the VIP: when the director rewrites it in a control
connection, no byte is shifted. The other is shorter, so every byte after it is shifted. Sources: vsftpd.conf(5),
lftp(1).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from feedback.lab.error import LabError
from feedback.lab.pair.stand import PairStand
from feedback.lab.pair.topology import BACK, CLIENT, VIP, Node, sources
from feedback.model import Forward

PORT = 21
LARGE_BYTES, SMALL_BYTES = 300_000, 2000
RATE = 50_000  # bytes a second: the large file takes 6 s
LARGE, SMALL = "large", "small"
TIMEOUT_SECONDS = 12
GETS = (SMALL, LARGE, SMALL, SMALL)  # the files of each session, in this order, each followed by a listing


@dataclass(frozen=True, slots=True)
class Session:
    """One client: active or passive."""

    number: int
    passive: bool

    @property
    def name(self) -> str:
        return f"ftp-{self.number}"


def addresses(server: Node) -> tuple[IPv4Address, IPv4Address]:
    """The server's own address, whose text is shorter than the VIP's, and one whose text is as long."""
    own, long = BACK[server.number], BACK[server.number + 100]
    assert len(str(own)) < len(str(VIP)) == len(str(long))
    return own, long


def server_configuration(files: Path, empty: Path, log: Path) -> str:
    words = {
        "listen": "YES",
        "background": "NO",
        "anonymous_enable": "YES",
        "no_anon_password": "YES",
        "local_enable": "NO",
        "anon_root": files,
        "anon_max_rate": RATE,
        "connect_from_port_20": "YES",
        "secure_chroot_dir": empty,
        "seccomp_sandbox": "NO",
        "isolate": "NO",
        "isolate_network": "NO",
        "xferlog_enable": "YES",
        "vsftpd_log_file": log,
    }
    return "".join(f"{key}={value}\n" for key, value in words.items())


def client_script(session: Session, directory: Path) -> str:
    """The commands of one session, over one control connection. A failed transfer is not repeated."""
    source = sources(Forward.MASQUERADE)[0][session.number % len(sources(Forward.MASQUERADE)[0])]
    settings = {
        "ftp:passive-mode": "on" if session.passive else "off",
        "ftp:prefer-epsv": "off",
        "ftp:ssl-allow": "no",
        "ftp:use-feat": "no",
        "ftp:use-mdtm": "no",
        "ftp:use-size": "no",
        "net:connection-limit": 1,
        "net:max-retries": 1,
        "net:timeout": TIMEOUT_SECONDS,
        "net:socket-bind-ipv4": source,
        "cmd:fail-exit": "yes",
        "xfer:clobber": "yes",
    }
    lines = [f"set {key} {value}" for key, value in settings.items()]
    lines.append(f"open -u anonymous,lab {VIP}")
    for turn, name in enumerate(GETS):
        lines += [f"get {name} -o {directory}/{session.name}-{turn}-{name}", "ls"]
    return "\n".join([*lines, "bye", ""])


def start_server(stand: PairStand, server: Node, directory: Path, log: Path) -> None:
    """Start it, and create `directory`. Raises LabError."""
    files, empty = directory / "files", directory / "empty"
    for made in (files, empty):
        made.mkdir(parents=True, mode=0o755)
    for name, size in ((LARGE, LARGE_BYTES), (SMALL, SMALL_BYTES)):
        (files / name).write_bytes(content(size))
        (files / name).chmod(0o644)
    for path in (directory, *directory.parents[:1]):
        path.chmod(0o755)
    file = directory / "vsftpd.conf"
    file.write_text(server_configuration(files, empty, log), encoding="utf-8")
    namespace = stand.pair.namespace(server.name)
    name = f"{server.name}-ftp"
    stand.processes.start(name, [_program("vsftpd"), str(file)], namespace=namespace)
    stand.wait_until_listening(name, namespace, PORT)


def start_client(stand: PairStand, session: Session, directory: Path) -> None:
    file = directory / f"{session.name}.lftp"
    file.write_text(client_script(session, directory), encoding="utf-8")
    namespace = stand.pair.namespace(CLIENT.name)
    stand.processes.start(session.name, [_program("lftp"), "-f", str(file)], namespace=namespace)
    stand.processes.may_die(session.name, lambda status: None)


def content(size: int) -> bytes:
    return (b"%07d\n" * (size // 8 + 1) % tuple(range(size // 8 + 1)))[:size]


def transferred(session: Session, directory: Path) -> int:
    """How many of its files arrived complete and correct."""
    right = 0
    for turn, name in enumerate(GETS):
        path = directory / f"{session.name}-{turn}-{name}"
        size = LARGE_BYTES if name == LARGE else SMALL_BYTES
        right += path.exists() and path.read_bytes() == content(size)
    return right


def connections(log: Path) -> int:
    """Control connections that the server has seen."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return sum("CONNECT: Client" in line for line in text.splitlines())


def _program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise LabError(f"there is no {name} on this machine: apt install {name}")
    return found
