"""Pressure, connections, listeners, and the files they are read from."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import pytest

from feedback.agent.signals import listeners
from feedback.agent.signals.connections import open_connections
from feedback.agent.signals.files import SignalError, SourceFile, count_of_ranges, keyed, levels
from feedback.agent.signals.listeners import DiagError, ListenerSource, parse, queues
from feedback.agent.signals.pressure import open_pressure, open_trigger
from feedback.wire import Connections, Listener
from tests.agent import trees
from tests.ports import free_port

# Files


def test_a_file_larger_than_the_first_guess_is_read_whole(tmp_path: Path) -> None:
    text = "x" * 100_000
    assert SourceFile(trees.write(tmp_path / "f", text)).read() == text.encode()


def test_a_file_remade_is_opened_again(tmp_path: Path) -> None:
    file = SourceFile(trees.write(tmp_path / "f", "old"))
    file.close()  # what a removed cgroup's descriptor comes to: nothing to be read there
    trees.write(tmp_path / "f", "new")
    assert file.read() == b"new"
    assert file.reopened == 1


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match=r"gone: No such file"):
        SourceFile(tmp_path / "gone")


@pytest.mark.parametrize(
    ("text", "value"), [("a 1\nb 2\n", 2), ("b 2\n", 2), ("bb 3\nb 2", 2), ("a 1\nab 3\n", None), ("", None)]
)
def test_a_key_is_found_at_the_beginning_of_a_line_only(text: str, value: int | None) -> None:
    assert keyed(text.encode(), b"b") == value


@pytest.mark.parametrize(("text", "count"), [("0-3,8\n", 5), ("1\n", 1), ("\n", 0), ("0-1,4-7", 6)])
def test_cpus_of_a_set_are_counted(text: str, count: int) -> None:
    assert count_of_ranges(text.encode()) == count


def test_levels_go_up_to_the_last_cgroup(tmp_path: Path) -> None:
    group = trees.cgroup(trees.cgroup(tmp_path / "pod") / "rs1")
    assert levels(group) == [group, tmp_path / "pod"]


# Pressure


def test_pressure_is_told_in_seconds(tmp_path: Path) -> None:
    source = open_pressure(None, trees.proc(tmp_path))
    assert source is not None
    pressure = source.sample(0.0)
    assert pressure is not None
    assert (pressure.cpu_some, pressure.memory_full) == (1.5, 0.5)


def test_a_kernel_without_pressure_has_none(tmp_path: Path) -> None:
    proc = trees.proc(tmp_path, pressure=False)
    assert open_pressure(None, proc) is None
    assert open_trigger(None, proc) is None


def test_a_cgroup_without_pressure_never_gets_the_hosts(tmp_path: Path) -> None:
    assert open_pressure(trees.cgroup(tmp_path / "rs1"), trees.proc(tmp_path / "proc")) is None


def test_a_cgroups_own_pressure_is_read(tmp_path: Path) -> None:
    group = trees.cgroup(tmp_path / "rs1")
    for name in ("cpu", "memory", "io"):
        trees.write(group / f"{name}.pressure", trees.PRESSURE.replace("1500000", "7000000"))
    source = open_pressure(group, trees.proc(tmp_path / "proc"))
    assert source is not None
    pressure = source.sample(0.0)
    assert pressure is not None
    assert pressure.cpu_some == 7.0


def test_waiting_for_memory_and_io_is_read_every_other_time(tmp_path: Path) -> None:
    proc = trees.proc(tmp_path)
    source = open_pressure(None, proc)
    assert source is not None
    source.sample(0.0)
    for name in ("cpu", "memory", "io"):
        trees.write(proc / "pressure" / name, trees.PRESSURE.replace("1500000", "1600000"))
    told = [source.sample(now) for now in (0.2, 0.4)]
    assert [(p.cpu_some, p.memory_some, p.io_some) for p in told if p] == [(1.6, 1.5, 1.5), (1.6, 1.6, 1.6)]


# Connections


def test_accepted_established_and_overflowed_are_read(tmp_path: Path) -> None:
    source = open_connections(trees.proc(tmp_path))
    assert source is not None
    assert source.sample(0.0) == Connections(opened=42, established=7, overflows=3, resets=8)


def test_columns_are_found_by_name_wherever_they_stand(tmp_path: Path) -> None:
    proc = trees.proc(tmp_path)
    trees.write(proc / "thread-self/net/snmp", "Tcp: CurrEstab OutRsts PassiveOpens\nTcp: 5 7 6\n")
    trees.write(proc / "thread-self/net/netstat", "TcpExt: Other\nTcpExt: 1\n")
    source = open_connections(proc)
    assert source is not None
    assert source.sample(0.0) == Connections(opened=6, established=5, overflows=0, resets=7)


def test_a_kernel_that_does_not_count_connections_has_none(tmp_path: Path) -> None:
    assert open_connections(tmp_path) is None


def test_an_accepted_connection_is_counted_by_the_real_kernel() -> None:
    source = open_connections()
    assert source is not None
    before = source.sample(0.0)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        assert source.sample(0.2).opened > before.opened


# Listeners


def test_a_connection_waiting_for_accept_is_seen_on_the_real_kernel() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=7) as server:
        port = server.getsockname()[1]
        source = ListenerSource([port])
        try:
            assert source.sample(0.0) == (Listener(port, 0, 7),)
            with socket.create_connection(server.getsockname()):
                assert source.sample(listeners.REFRESH_SECONDS) == (Listener(port, 1, 7),)
        finally:
            source.close()


def test_a_listener_in_the_other_family_is_found_after_a_while() -> None:
    port = free_port()
    source = ListenerSource([port])
    try:
        assert source.sample(0.0) == ()
        with socket.create_server(("::1", port), family=socket.AF_INET6, backlog=5):
            assert source.sample(listeners.FAMILIES_SECONDS) == (Listener(port, 0, 5),)
    except OSError as error:
        pytest.fail(f"this machine has no IPv6 on loopback: {error}")
    finally:
        source.close()


def test_without_inet_diag_the_backlog_comes_from_text_and_connections_are_not_walked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "open_diag", lambda: None)
    row = "   {n}: 00000000:{port:04X} 00000000:0000 {state} 00000000:{backlog:08X} 00:00000000 00000000 0 0 1 1\n"
    text = "  sl  local_address rem_address   st tx_queue rx_queue\n"
    text += row.format(n=0, port=80, state="0A", backlog=3) + row.format(n=1, port=22, state="0A", backlog=0)
    text += row.format(n=2, port=80, state="01", backlog=9) + "not a row at all\n"
    trees.write(tmp_path / "thread-self/net/tcp", text)
    assert ListenerSource([80], tmp_path).sample(0.0) == (Listener(80, 3, 0),)


def diag_row(port: int, backlog: int, limit: int) -> bytes:
    body = struct.pack("=BBBB", socket.AF_INET, 10, 0, 0) + struct.pack("!H", port) + bytes(50)
    body += struct.pack("=II", backlog, limit) + bytes(8)
    return struct.pack("=IHHII", 16 + len(body), 20, 2, 1, 0) + body


DONE = struct.pack("=IHHIIi", 20, 3, 2, 1, 0, 0)


def test_rows_of_one_datagram_are_parsed_until_done() -> None:
    rows: list[tuple[int, int, int]] = []
    assert not parse(diag_row(80, 1, 511) + diag_row(443, 0, 128), rows, queues)
    assert parse(DONE, rows, queues)
    assert rows == [(80, 1, 511), (443, 0, 128)]


def test_an_error_of_the_kernel_is_raised() -> None:
    with pytest.raises(DiagError, match="No such file"):
        parse(struct.pack("=IHHIIi", 36, 2, 0, 1, 0, -2) + bytes(16), [], queues)


def test_sockets_that_share_a_port_are_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    source = ListenerSource([80])
    try:
        rows = {socket.AF_INET: [(80, 1, 10), (80, 2, 10)], socket.AF_INET6: [(80, 4, 5), (22, 9, 9)]}
        monkeypatch.setattr(listeners, "dump", lambda diag, family: rows[family])
        assert source.sample(0.0) == (Listener(80, 7, 25),)
    finally:
        source.close()
