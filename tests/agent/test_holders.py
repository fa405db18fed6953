from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from feedback.agent.signals import holders
from feedback.agent.signals.listeners import parse
from tests.agent import trees


def row(port: int, *attributes: bytes) -> bytes:
    body = struct.pack("=BBBB", socket.AF_INET, 10, 0, 0) + struct.pack("!H", port) + bytes(66) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), 20, 2, 1, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    data = struct.pack("=HH", 4 + len(value), kind) + value
    return data + bytes(-len(data) % 4)


SHUTDOWN = attribute(8, b"\0")


def of(data: bytes) -> list[tuple[int, int]]:
    rows: list[tuple[int, int]] = []
    parse(data, rows, holders.holder)
    return rows


def test_the_cgroups_number_is_found_among_the_attributes() -> None:
    data = row(80, SHUTDOWN, attribute(21, struct.pack("=Q", 4711))) + row(22, SHUTDOWN)
    assert of(data) == [(80, 4711), (22, 0)]


@pytest.mark.parametrize("cut", [b"\4", b"\0\0\x15\0", attribute(21, b"\1\2")])
def test_truncated_or_empty_attributes_are_ignored(cut: bytes) -> None:
    assert of(row(80, cut)) == [(80, 0)]


def test_a_port_belongs_to_the_directory_of_that_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.write(tmp_path / "cgroup.controllers", "cpu\n")
    web = trees.cgroup(tmp_path / "system.slice/web")
    rows = [(80, web.stat().st_ino), (80, web.stat().st_ino), (443, tmp_path.stat().st_ino), (22, 0)]
    monkeypatch.setattr(holders, "_rows", lambda: rows)
    assert holders.holders([80, 443], [tmp_path]) == {80: {web}}


MOUNTED = [root for root in holders.ROOTS if (root / "cgroup.controllers").exists()]


@pytest.mark.skipif(not MOUNTED, reason="no cgroup v2 here")
def test_the_kernel_here_tells_of_a_socket_of_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (number,) = [number for found, number in holders._rows() if found == port]
    own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    assert number == (MOUNTED[0] / own[3:].strip("/")).stat().st_ino
