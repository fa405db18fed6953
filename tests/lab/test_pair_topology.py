"""A pair of directors as data: addresses, services, and keepalived's text for it."""

from itertools import chain

import pytest

from feedback.lab.pair import topology
from feedback.lab.pair.keepalived import configuration
from feedback.lab.pair.topology import CLIENT, DIRECTORS, FLOATING, Pair, pair
from feedback.model import AddDestination, Forward, Protocol


@pytest.fixture
def made() -> Pair:
    return pair("lab7")


def test_everything_a_run_makes_bears_its_name(made: Pair) -> None:
    lines = topology.wiring(made)
    assert all(line.split()[2].startswith("lab7-") for line in lines if line.startswith("netns add"))
    assert all(line.count(" netns lab7-") == 2 for line in lines if line.startswith("link add"))


def test_no_address_is_given_twice_but_the_vips_of_direct_routing(made: Pair) -> None:
    lines = chain.from_iterable(topology.addressing(made, node) for node in made.nodes)
    given = [line.split()[2].partition("/")[0] for line in lines if line.startswith("addr add")]
    twice = {address for address in given if given.count(address) > 1}
    assert twice == {str(topology.VIP), str(topology.VIP6)}


def test_nobody_but_the_real_servers_loopback_has_a_floating_address_at_first(made: Pair) -> None:
    floating = {str(address) for address, _interface in FLOATING}
    for node in made.nodes:
        for line in topology.addressing(made, node):
            if line.startswith("addr add") and line.split()[2].partition("/")[0] in floating:
                assert node in made.servers
                assert "dev lo" in line


def test_macs_are_fixed_and_different(made: Pair) -> None:
    macs = [mac for node in made.nodes for mac in (node.mac, node.back_mac)]
    assert len(set(macs)) == len(macs)
    assert all(mac[0] & 3 == 2 for mac in macs)  # locally administered, for one


def test_every_way_is_there_direct_routing_and_masquerading_by_both_families() -> None:
    tcp = [s.key for s in topology.services() if s.key.protocol is Protocol.TCP and not s.persistent]
    ways = {(topology.forward_of(key), key.address.version) for key in tcp if key.address}
    assert ways == {(forward, version) for forward in (Forward.ROUTE, Forward.MASQUERADE) for version in (4, 6)}


def test_a_masqueraded_real_server_is_on_the_back_switch_and_answers_by_the_gateway(made: Pair) -> None:
    destinations = [e for e in topology.edits(made) if isinstance(e, AddDestination)]
    for edit in destinations:
        masqueraded = edit.destination.forward is Forward.MASQUERADE
        address = edit.destination.key.address
        assert masqueraded == (address in topology.BACK or address in topology.BACK6)
    lines = topology.addressing(made, made.servers[0])
    assert f"route add {topology.FAR} via {topology.GATEWAY}" in lines
    assert all(address in topology.FAR for address in topology.sources(Forward.MASQUERADE)[0])
    assert not any(address in topology.FAR for address in topology.sources(Forward.ROUTE)[0])


def test_the_client_has_every_source_address(made: Pair) -> None:
    lines = topology.addressing(made, CLIENT)
    for forward in (Forward.ROUTE, Forward.MASQUERADE):
        for address in chain(*topology.sources(forward)):
            assert any(line.startswith(f"addr add {address}/{address.max_prefixlen} dev eth0") for line in lines)


def test_the_directors_have_each_heartbeat_cable_to_themselves() -> None:
    ends = {topology.heartbeat_address(director, link) for director in (0, 1) for link in (0, 1)}
    assert len(ends) == 4
    assert all(sum(end in net for end in ends) == 2 for net in topology.HEARTBEATS)


def test_keepalived_moves_every_floating_address_and_serves_every_service(made: Pair) -> None:
    text = configuration(made, DIRECTORS[0], 0.1)
    for address, interface in FLOATING:
        assert f"{address}/{address.max_prefixlen} dev {interface}" in text
    assert text.count("virtual_server ") == len(topology.services())
    assert text.count(" real_server ") == len(topology.services()) * len(made.servers)
    assert text.count("lb_kind NAT") == 2
    assert text.count("{") == text.count("}")


def test_keepalived_speaks_vrrp_3_only_where_a_second_is_too_long(made: Pair) -> None:
    assert "vrrp_version 2\n" in configuration(made, DIRECTORS[0], 1.0)
    assert "vrrp_version 3\n" in configuration(made, DIRECTORS[0], 0.1)
    priorities = ["priority 150" in configuration(made, director, 1.0) for director in DIRECTORS]
    assert priorities == [True, False]
