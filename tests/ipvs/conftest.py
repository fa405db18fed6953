"""Kernels to test against: the fake, and where the machine has one, the real one in a namespace of its own.

A lab test makes its namespace and removes it, so that it runs in the lab's guest as well as natively.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
from collections.abc import Iterator
from typing import Protocol

import pytest

from feedback.ipvs import Client, FakeKernel, IpvsError, Kernel
from feedback.ipvs.fake import FakeConnection
from feedback.ipvs.namespace import within
from feedback.model import ServiceKey

VIP, PORT = "10.0.0.100", 80
WEB = ServiceKey.parse(f"tcp:{VIP}:{PORT}")

_numbers = itertools.count(1)


class Director(Protocol):
    """A kernel with clients in front of it."""

    kernel: Kernel

    def open(self) -> object | None:
        """A connection to WEB that stays, or None if it is refused."""
        ...

    def close(self, connection: object) -> None:
        """Both ends are done: the kernel has it as inactive."""
        ...


class FakeDirector:
    def __init__(self) -> None:
        self.kernel = FakeKernel()

    def open(self) -> FakeConnection | None:
        return self.kernel.open(WEB)

    def close(self, connection: object) -> None:
        assert isinstance(connection, FakeConnection)
        self.kernel.close_connection(connection)


class RealDirector:
    """Client, director and real servers in one namespace, all on lo: direct routing to local addresses, so that one
    listener accepts for all of them and the kernel's table tells them apart."""

    def __init__(self, netns: str) -> None:
        self.netns = netns
        self.kernel = Client(netns)
        self._listener = within(netns, _listen)
        self._ends: list[socket.socket] = [self._listener]

    def open(self) -> tuple[socket.socket, socket.socket] | None:
        try:
            client = within(self.netns, lambda: socket.create_connection((VIP, PORT), timeout=60))
        except ConnectionRefusedError:
            return None
        ends = client, self._listener.accept()[0]
        self._ends += ends
        return ends

    def close(self, connection: object) -> None:
        assert isinstance(connection, tuple)
        for end in connection:
            end.close()

    def shut(self) -> None:
        for end in self._ends:
            end.close()
        self.kernel.close()


def _listen() -> socket.socket:
    return socket.create_server((VIP, PORT), backlog=64)


@pytest.fixture
def netns() -> Iterator[str]:
    """The name of a fresh namespace in which 10.0.0.100, 10.1.0.0/16 and 2001:db8::/32 are local, with a dummy
    interface `sync0`."""
    if os.geteuid() != 0:
        pytest.skip("a lab test: needs root")
    try:
        Client().close()
    except IpvsError as error:
        pytest.skip(f"a lab test: {error}")
    name = f"ipvs-{os.getpid()}-{next(_numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        rules = [
            "link set lo up",
            f"address add {VIP}/32 dev lo",
            "route add local 10.1.0.0/16 dev lo",
            "route add local 2001:db8::/32 dev lo",
            "link add sync0 type dummy",
            "link set sync0 up",
        ]
        subprocess.run(["ip", "-n", name, "-batch", "-"], input="\n".join(rules).encode(), check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture
def real(netns: str) -> Iterator[RealDirector]:
    director = RealDirector(netns)
    yield director
    director.shut()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.lab(seconds=0.2))])
def director(request: pytest.FixtureRequest) -> Director:
    """The same cases against both: this is the contract."""
    if request.param == "fake":
        return FakeDirector()
    made: RealDirector = request.getfixturevalue("real")
    return made


@pytest.fixture
def kernel(director: Director) -> Kernel:
    return director.kernel
