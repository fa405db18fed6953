"""Creates a topology, and removes it: namespaces, cables, addresses, sysctls.

Owns all calls of `ip` and `tc`. Must not know of services or workloads. A start of `ip` costs 10 ms in the guest:
one batch for each namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from feedback.lab import topology as plan
from feedback.lab.error import LabError
from feedback.lab.topology import Topology

NAMESPACES = Path("/run/netns")
CLONE_NEWNET = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)


def build(topology: Topology) -> None:
    """Raises LabError."""
    batch(plan.wiring(topology))
    batch(plan.switching(topology), topology.switch)
    for node in topology.nodes:
        settle(topology.namespace(node.name), plan.settings(topology, node), plan.addressing(topology, node))


def settle(namespace: str | None, settings: Mapping[str, str], addressing: list[str]) -> None:
    """Set sysctls first: some are copied to an interface when it comes up. None is our own namespace. Raises
    LabError."""
    with entered(namespace) if namespace else contextlib.nullcontext():
        for path, value in settings.items():
            Path("/proc/sys", path).write_text(value, encoding="ascii")
    batch(addressing, namespace)


def addresses_of(namespace: str) -> dict[str, str]:
    """The MAC address of each of its interfaces. Raises LabError."""
    command = ["ip", "-n", namespace, "-json", "link", "show"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")
    return {link["ifname"]: link["address"] for link in json.loads(done.stdout)}


def remove_run(run: str) -> None:
    """Deletes every namespace of the run, and with it every interface. Silent where there is none."""
    if NAMESPACES.is_dir():
        for path in NAMESPACES.glob(f"{run}-*"):
            subprocess.run(["ip", "netns", "del", path.name], check=False, capture_output=True)


def run_ip(namespace: str, *arguments: str) -> None:
    """One `ip` command in a namespace. Raises LabError."""
    batch([" ".join(arguments)], namespace)


def run_tc(namespace: str, arguments: str) -> None:
    """One `tc` command in a namespace. Raises LabError."""
    batch([arguments], namespace, "tc")


def batch(lines: list[str], namespace: str | None = None, program: str = "ip") -> None:
    """Lines for `ip -batch`. Raises LabError."""
    command = [program, *(["-n", namespace] if namespace else []), "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr.strip()}")


def enter(namespace: str) -> None:
    """Move this thread into the named network namespace. Raises OSError."""
    with (NAMESPACES / namespace).open("rb") as target:
        _setns(target.fileno())


@contextlib.contextmanager
def entered(namespace: str) -> Iterator[None]:
    """Run in a namespace, and return. What this thread opens there stays there."""
    with Path("/proc/thread-self/ns/net").open("rb") as home:
        enter(namespace)
        try:
            yield
        finally:
            _setns(home.fileno())


def _setns(descriptor: int) -> None:
    if libc.setns(descriptor, CLONE_NEWNET):  # os.setns exists only since Python 3.12
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
