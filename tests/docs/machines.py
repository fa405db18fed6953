"""The machines that the guides speak of: directors and real servers on one network, each with Debian's systemd in a
container on the kernel that runs here (tests/systemd/booted.sh). Nothing of ours is installed on them.

Owns namespaces, cables, cgroups and processes, and removes them. Must not know of any page.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import termios
import time
from pathlib import Path

from feedback.lab import network

ROOT = Path(__file__).parents[2]
BOOTED = ROOT / "tests" / "systemd" / "booted.sh"
CGROUPS = Path("/sys/fs/cgroup")
BOOT_SECONDS = 60.0
LINE_SECONDS = 60.0

ADDRESSES = {
    "d1": ("10.0.0.1/24", "192.168.7.1/24"),
    "d2": ("10.0.0.2/24", "192.168.7.2/24"),
    "rs1": ("10.0.0.11/24",),
    "rs2": ("10.0.0.12/24",),
    "rs3": ("10.0.0.13/24",),
    "client": ("10.0.0.254/24",),
}


class Machine:
    """One of them. `run` is what somebody types there as root."""

    def __init__(self, name: str, namespace: str) -> None:
        self.name, self.namespace = name, namespace
        self.foreground: list[subprocess.Popen[bytes]] = []
        self.work, self.out = (Path(tempfile.mkdtemp(prefix=f"feedback-{name}-{part}-")) for part in ("work", "out"))
        trees = [CGROUPS] if (CGROUPS / "cgroup.controllers").exists() else [CGROUPS / "systemd", CGROUPS / "unified"]
        self.cgroups = [tree / namespace for tree in trees]
        for path in self.cgroups:
            path.mkdir()
        enter = "".join(f"echo $$ >{path}/cgroup.procs; " for path in self.cgroups)
        unshare = "exec unshare --mount --pid --ipc --uts --cgroup --fork --kill-child --propagation private"
        arguments = [self.work, self.out, ROOT, sys.base_prefix, sysconfig.get_path("purelib"), name]
        command = [
            "nsenter",
            f"--net={network.NAMESPACES / namespace}",
            "sh",
            "-c",
            f'{enter}{unshare} sh "$@"',
            "sh",
            BOOTED,
            *arguments,
        ]
        with (self.out / "said").open("wb") as said:
            self.process = subprocess.Popen(list(map(str, command)), stdout=said, stderr=said)
        self._wait()

    def _wait(self) -> None:
        ends = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < ends and self.process.poll() is None:
            up = (self.out / "pid").exists() and not (self.out / "pid").read_text().isspace()
            if up and self.run("systemctl is-active basic.target").returncode == 0:
                return
            time.sleep(0.2)
        raise AssertionError(f"{self.name} does not boot: {(self.out / 'said').read_text()}")

    def _inside(self, line: str, directory: str) -> list[str]:
        target = (self.out / "pid").read_text().strip()
        environment = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
        environment += ["TERM=xterm", "LANG=C.UTF-8", "COLUMNS=160", "LINES=40"]
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        shell = ["bash", "-c", f"mkdir -p {directory} && cd {directory} && {line}"]
        return ["nsenter", "--target", target, *spaces, "--", "env", "-i", *environment, *shell]

    def run(self, line: str, directory: str = "/root") -> subprocess.CompletedProcess[str]:
        command = self._inside(line, directory)
        return subprocess.run(command, capture_output=True, text=True, timeout=LINE_SECONDS, stdin=subprocess.DEVNULL)

    def must(self, line: str) -> str:
        done = self.run(line)
        assert done.returncode == 0, f"{self.name}: {line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def soon(self, line: str, seconds: float = 60.0) -> None:
        """Within this time it succeeds."""
        ends = time.monotonic() + seconds
        while (done := self.run(line)).returncode and time.monotonic() < ends:
            time.sleep(0.5)
        assert done.returncode == 0, f"{self.name}: not within {seconds} s: {line}\n{done.stdout}{done.stderr}"

    def watch(self, line: str, until: str, key: str, seconds: float = 60.0) -> tuple[int, str]:
        """At a terminal, for what goes on until a key is pressed: pressed once `until` is to be seen."""
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            self._inside(line, "/root"),
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
        )
        os.close(follower)
        seen, pressed, ends = b"", False, time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < ends:
            if select.select([leader], [], [], 0.2)[0]:
                with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
                    seen += os.read(leader, 65536)
            if not pressed and until.encode() in seen:
                os.write(leader, key.encode())
                pressed = True
        if process.poll() is None:
            process.kill()
        os.close(leader)
        return process.wait(), seen.decode(errors="replace")

    def start(self, line: str) -> None:
        """For what runs in the foreground until `stop`."""
        command = self._inside(f"exec setsid --wait sh -c 'echo $$ >>/run/typed; {line}'", "/root")
        with (self.out / "said").open("ab") as said:
            self.foreground.append(subprocess.Popen(command, stdout=said, stderr=said))

    def stop(self) -> None:
        if self.foreground:
            self.must("for group in $(cat /run/typed); do kill -- -$group; done; rm /run/typed")
        while self.foreground:
            self.foreground.pop().wait(LINE_SECONDS)

    def read(self, path: str) -> str:
        return self.must(f"cat {path}")

    def write(self, path: str, text: str) -> None:
        command = self._inside(f"cat >{path}", "/root")
        subprocess.run(command, input=text, text=True, check=True, timeout=LINE_SECONDS)

    def edit(self, path: str, *changes: tuple[str, str]) -> None:
        text = self.read(path)
        for old, new in changes:
            assert old in text, f"{self.name}: {path} has no {old!r}"
            text = text.replace(old, new)
        self.write(path, text)

    def close(self) -> None:
        self.process.kill()  # and with it, by --kill-child, all that the container holds
        self.process.wait()
        for path in self.cgroups:
            for below in (*sorted(path.rglob("*/"), reverse=True), path):
                _remove(below)
        for path in (self.work, self.out):
            shutil.rmtree(path, ignore_errors=True)


def _remove(cgroup: Path) -> None:
    """It is busy until the last process is through its end."""
    for _ in range(100):
        try:
            cgroup.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.05)


class Site:
    """All of them, cabled to one switch (and the directors to a second); each boots when it is first asked for."""

    def __init__(self) -> None:
        self.prefix = f"guide{os.getpid()}"
        self.machines: dict[str, Machine] = {}
        switch = self.namespace("switch")
        lines = [f"netns add {self.namespace(name)}" for name in ("switch", *ADDRESSES)]
        network.batch(lines)
        lines = ["link set lo up"]
        lines += [f"link add br{i} type bridge" for i in range(2)] + [f"link set br{i} up" for i in range(2)]
        network.batch(lines, switch)
        for name, addresses in ADDRESSES.items():
            inside = ["link set lo up"]
            for i, address in enumerate(addresses):
                far = f"{name}-{i}"
                network.batch([f"link add eth{i} type veth peer name {far} netns {switch}"], self.namespace(name))
                network.batch([f"link set {far} master br{i}", f"link set {far} up"], switch)
                inside += [f"link set eth{i} up", f"address add {address} dev eth{i}"]
            network.batch(inside, self.namespace(name))

    def namespace(self, name: str) -> str:
        return f"{self.prefix}-{name}"

    def __getitem__(self, name: str) -> Machine:
        if name not in self.machines:
            self.machines[name] = Machine(name, self.namespace(name))
        return self.machines[name]

    def close(self) -> None:
        for machine in self.machines.values():
            machine.close()
        network.remove_run(self.prefix)
