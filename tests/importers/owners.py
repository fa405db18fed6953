"""Real owners of a table, started on a file in a namespace of the lab's guest: what they make of it, what they ask."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from feedback.ipvs import Client
from feedback.ipvs.difference import Table, difference, of_snapshot
from feedback.ipvs.namespace import within

DEADLINE_SECONDS = 60.0
LOOK_SECONDS = 0.05
HOLDS_SECONDS = 0.3  # an owner's table passes through others while it starts
PORTS = (25, 53, 80, 81, 99, 143, 443, 8080, 8081)
ANSWER = b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nTest Page"
LOCAL = ("link set lo up", "route add local 10.1.0.0/16 dev lo", "route add local 2001:db8::/32 dev lo")

Question = tuple[str, int, str, str]  # a real server's address, a port, the request line ("" for none) and the host


@contextmanager
def namespace() -> Iterator[str]:
    """In it 10.1.0.0/16 and 2001:db8::/32 are local."""
    name = f"owners-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "-batch", "-"], input="\n".join(LOCAL).encode(), check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


class Site:
    """A namespace in which all real servers answer, and tell what they are asked."""

    def __init__(self, netns: str, directory: Path) -> None:
        self.netns, self.directory = netns, directory
        self.kernel = Client(netns)
        self.asked: set[Question] = set()
        self._listeners = [within(netns, lambda port=port: _listener(port)) for port in PORTS]
        for listener in self._listeners:
            threading.Thread(target=self._answer, args=(listener,), daemon=True).start()

    def table(self) -> Table:
        return of_snapshot(self.kernel.snapshot())

    def clear(self) -> None:
        self.kernel.apply(difference({}, self.table()))
        self.asked.clear()

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()
        self.kernel.close()

    def command(self, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.netns, *words]

    def settled(
        self, wanted: Table, quiet_seconds: float, ready: Callable[[], bool], ended: Callable[[], bool]
    ) -> Table:
        """The table once the owner is `ready` and it stays the wanted one, or stays what it is for so long; or once the
        owner has ended."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        last, since = self.table(), time.monotonic()
        while not ended():
            now = time.monotonic()
            assert now < deadline, "the owner does not come to rest"
            if not ready():
                since = now
            if now - since > (quiet_seconds if difference(wanted, last) else HOLDS_SECONDS):
                break
            time.sleep(LOOK_SECONDS)
            if (found := self.table()) != last:
                last, since = found, now
        return self.table()

    def _answer(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            address, port = client.getsockname()[:2]
            client.settimeout(2)
            head, *lines = client.recv(4096).decode("latin-1").split("\r\n")
            host = next((line[6:] for line in lines if line.lower().startswith("host: ")), "")
            self.asked.add((address.removeprefix("::ffff:"), port, " ".join(head.split()[:2]), host))
            if head:
                client.sendall(ANSWER)


def _listener(port: int) -> socket.socket:
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)


@contextmanager
def running(words: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    # PERLIO: without it ldirectord starts itself once more, and Perl takes seconds for that here.
    with log.open("wb") as out:
        environment = os.environ | {"PERLIO": "perlio"}
        process = subprocess.Popen(words, stdout=out, stderr=out, start_new_session=True, env=environment)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def keepalived(site: Site, path: Path, wanted: Table) -> tuple[Table, str]:
    log = site.directory / f"{path.stem}.log"
    pids = [site.directory / f"{option}.pid" for option in "pc"]
    for pid in pids:
        pid.unlink(missing_ok=True)
    words = site.command("keepalived", "-C", "-n", "-l", "-d", "-G", f"-f{path}", f"-p{pids[0]}", f"-c{pids[1]}")
    with running(words, log) as process:
        table = site.settled(
            wanted, 3.0, lambda: b"Startup complete" in log.read_bytes(), lambda: process.poll() is not None
        )
    return table, log.read_text(errors="replace")


def ldirectord(site: Site, path: Path, wanted: Table) -> tuple[Table, str]:
    log = site.directory / f"{path.stem}.log"
    with running(site.command("ldirectord", "-d", str(path), "start"), log) as process:
        table = site.settled(
            wanted, 3.0, lambda: b"Starting Linux" in log.read_bytes(), lambda: process.poll() is not None
        )
    return table, log.read_text(errors="replace")


def ipvsadm(site: Site, path: Path, _wanted: Table) -> tuple[Table, str]:
    """`ipvsadm -R` ends at the first line that fails: so each line is a file of its own."""
    said = ""
    for line in path.read_text().splitlines():
        words = site.command("ipvsadm", "-R")
        text = line.removeprefix("ipvsadm ") + "\n"
        done = subprocess.run(words, input=text, text=True, capture_output=True, check=False)
        said += done.stdout + done.stderr
    return site.table(), said
