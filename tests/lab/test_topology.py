"""The cluster as data."""

from feedback.lab import topology
from feedback.lab.topology import pool
from feedback.model import Forward


def test_everything_a_run_makes_bears_its_name() -> None:
    made = pool("lab7", (0.1, 0.2))
    assert all(line.split()[2].startswith("lab7-") for line in topology.wiring(made) if line.startswith("netns add"))


def test_nothing_is_put_into_the_hosts_own_namespace() -> None:
    links = [line for line in topology.wiring(pool("lab7", (0.1,))) if line.startswith("link add")]
    assert links
    assert all(line.count(" netns lab7-") == 2 for line in links)


def test_addresses_are_all_different() -> None:
    nodes = pool("lab7", (0.1,) * 40).nodes
    assert len({node.address for node in nodes}) == len(nodes) == 42


def test_a_real_server_with_direct_routing_has_the_vip_and_keeps_it_to_itself() -> None:
    made = pool("lab7", (0.1,))
    server = made.servers[0]
    assert f"addr add {made.vip}/32 dev lo" in topology.addressing(made, server)
    assert topology.settings(made, server)["net/ipv4/conf/all/arp_ignore"] == "1"


def test_a_masqueraded_real_server_answers_by_way_of_the_director() -> None:
    made = pool("lab7", (0.1,), Forward.MASQUERADE)
    lines = topology.addressing(made, made.servers[0])
    assert f"route add {made.client.address} via {made.directors[0].address}" in lines
    assert not any("dev lo" in line for line in lines)


def test_every_director_reschedules_reused_ports() -> None:
    made = pool("lab7", (0.1,))
    assert topology.settings(made, made.directors[0])["net/ipv4/vs/conn_reuse_mode"] == "3"
