"""From where a check goes out that is answered by the VIP: the source, its port, and what would drop the answer."""

from __future__ import annotations

import socket
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from pathlib import Path

import pytest

from feedback.master.shell import way
from feedback.master.shell.way import Ports
from tests.ports import free_port

RIP, VIP, OWN = ip_address("10.0.0.11"), ip_address("10.0.0.100"), ip_address("10.0.0.1")
BESIDE = [("eth0", IPv4Interface("10.0.0.100/32")), ("eth0", IPv4Interface("10.0.0.1/24"))]
ELSEWHERE = [("lo", IPv4Interface("10.0.0.100/32")), ("eth0", IPv4Interface("10.0.0.1/24"))]
SIX = [("eth0", IPv6Interface("2001:db8::100/128")), ("eth0", IPv6Interface("2001:db8::1/64"))]


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/proc/sys/net/ipv4/conf, all 0."""
    monkeypatch.setattr(way, "CONF", tmp_path)
    for name in ("all", "eth0", "lo"):
        (tmp_path / name).mkdir()
        for setting in ("accept_local", "rp_filter"):
            (tmp_path / name / setting).write_text("0\n")
    return tmp_path


@pytest.mark.parametrize(
    "there, settings, reason, mend",
    [
        (BESIDE, {}, "eth0.accept_local is 0", "sysctl -w net.ipv4.conf.eth0.accept_local=1"),
        (BESIDE, {"eth0/accept_local": 1}, "", ""),
        (BESIDE, {"all/accept_local": 1}, "", ""),
        (BESIDE, {"eth0/accept_local": 1, "all/rp_filter": 1}, "", ""),
        (ELSEWHERE, {"eth0/accept_local": 1, "all/rp_filter": 1}, "the VIP is on lo", "net.ipv4.conf.eth0.rp_filter=2"),
        (ELSEWHERE, {"eth0/accept_local": 1, "all/rp_filter": 1, "eth0/rp_filter": 2}, "", ""),
        (BESIDE[1:], {}, "", ""),  # the VIP is none of this host's
        (BESIDE[:1], {}, "", ""),
    ],
)
def test_what_would_drop_the_answer_is_said_with_what_mends_it(
    conf: Path, there: way.Local, settings: dict[str, int], reason: str, mend: str
) -> None:
    for name, value in settings.items():
        (conf / name).write_text(f"{value}\n")
    found = way._obstacle(OWN, VIP, there)
    assert bool(found) is bool(reason)
    if found is not None:
        assert reason in found.reason and mend in found.mend


@pytest.mark.parametrize(
    "there, rip, expected", [(BESIDE, RIP, str(OWN)), (SIX, ip_address("2001:db8::11"), "2001:db8::1")]
)
def test_the_source_is_in_the_servers_network_and_no_vip(
    conf: Path, there: way.Local, rip: way.Address, expected: str
) -> None:
    assert way._way(rip, VIP, there).source == expected


def test_a_host_with_no_address_but_the_vip_asks_nothing(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way, "routed", lambda address: VIP)
    obstacle = way._way(RIP, VIP, BESIDE[:1]).obstacle
    assert obstacle is not None and "towards 10.0.0.11 this host has only the VIP" in obstacle.reason


def test_a_port_comes_again_when_all_others_have_been_used() -> None:
    first = free_port()
    ports, seen = Ports(first, first + 9), []
    for _ in range(30):
        with socket.socket() as client:
            ports.bind(client, "127.0.0.1")
            seen.append(client.getsockname()[1])
    assert all(len(set(seen[i : i + 8])) == 8 for i in range(22))  # one or two may be somebody else's


def test_a_port_in_use_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as client:
        port = taken.getsockname()[1]
        Ports(port, port).bind(client, "127.0.0.1")
        assert client.getsockname()[1] != port
