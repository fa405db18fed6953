"""What a mark stands for: the written form, its bounds, and which two cannot stand beside each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.config import ConfigError, MasterConfig, marks, parse
from feedback.config.match import Match, parse_match
from feedback.model import Family, Protocol


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("203.0.113.0/24 tcp 80,443,8000-8100", "203.0.113.0/24 tcp 80,443,8000-8100"),
        ("203.0.113.9 udp 53", "203.0.113.9/32 udp 53"),
        ("2001:DB8:9:0::/64 tcp 443", "2001:db8:9::/64 tcp 443"),
        ("0.0.0.0/0 sctp 1-65535", "0.0.0.0/0 sctp 1-65535"),
        ("10.0.0.1 tcp 82,80-81,443,79,443", "10.0.0.1/32 tcp 79-82,443"),  # sorted, joined, once
    ],
)
def test_a_match_is_read_and_said_in_one_way(text: str, said: str) -> None:
    match = parse_match(text, "here")
    assert str(match) == said
    assert parse_match(said, "here") == match


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected NETWORK PROTOCOL PORTS"),
        ("203.0.113.0/24 tcp", "expected NETWORK PROTOCOL PORTS"),
        ("203.0.113.0/24  tcp 80", "expected NETWORK PROTOCOL PORTS"),
        ("203.0.113.0/24 tcp 80 # web", "expected NETWORK PROTOCOL PORTS"),
        ("203.0.113.0/24 icmp 80", "expected one of sctp, tcp, udp"),
        ("203.0.113.0/24 TCP 80", "expected one of sctp, tcp, udp"),
        ("203.0.113.7/24 tcp 80", "did you mean 203.0.113.0/24?"),
        ("203.0.113.0/33 tcp 80", "expected a network"),
        ("203.0.113.0/255.255.255.0.0 tcp 80", "expected a network"),
        ("example.org tcp 80", "expected a network"),
        ("fe80::1%eth0 tcp 80", "has a scope"),
        ("-j tcp 80", "expected a network"),
        ("127.0.0.1 tcp 80", "no router gets packets"),
        ("127.1.0.0/16 tcp 80", "no router gets packets"),
        ("224.0.0.0/8 udp 53", "no router gets packets"),
        ("fe80::/64 tcp 80", "no router gets packets"),
        ("::ffff:203.0.113.0/120 tcp 80", "no router gets packets"),
        ("203.0.113.0/24 tcp 0", "ports are 1 to 65535"),
        ("203.0.113.0/24 tcp 65536", "ports are 1 to 65535"),
        ("203.0.113.0/24 tcp 443-80", "from the lower to the higher"),
        ("203.0.113.0/24 tcp 80,", "expected a port"),
        ("203.0.113.0/24 tcp 80-", "expected a port"),
        ("203.0.113.0/24 tcp -80", "expected a port"),
        ("203.0.113.0/24 tcp +80", "expected a port"),
        ("203.0.113.0/24 tcp 8_0", "expected a port"),
        ("203.0.113.0/24 tcp ٨٠", "expected a port"),
        ("203.0.113.0/24 tcp 0x50", "expected a port"),
        ("203.0.113.0/24 tcp " + "9" * 900, "expected a port"),
        ("203.0.113.0/24 tcp " + ",".join(["80"] * 65), "at most 64"),
        ("203.0.113.0/24 tcp " + ",".join(["80"] * 400), "1218 characters: at most 1024"),
        ("203.0.113.0/24 tcp 80\n-A PREROUTING", "expected"),
        ("203.0.113.0/24 tcp 80};flush ruleset", "expected"),
    ],
)
def test_what_is_no_match_is_refused_with_a_reason_of_one_line(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_match(text, "master.toml: service[0].match[0]")
    said = str(refused.value)
    assert why in said and said.startswith("master.toml: service[0].match[0]: ")
    assert said.isprintable() and len(said) < 400


@given(st.text(max_size=80) | st.from_regex(r"[0-9a-f.:/]{0,20} (tcp|udp) [0-9,\-]{0,20}", fullmatch=True))
def test_any_text_is_a_match_or_refused(text: str) -> None:
    try:
        match = parse_match(text, "here")
    except ConfigError:
        return
    assert parse_match(str(match), "here") == match
    flat = [port for span in match.ports for port in span]
    assert flat == sorted(flat) and all(1 <= port <= 65535 for port in flat)


SERVICE = '[[service]]\nvirtual = "{}"\n'


def config(*services: tuple[str, list[str]]) -> MasterConfig:
    text = "".join(SERVICE.format(virtual) + f"match = {matches!r}\n" for virtual, matches in services)
    return parse(text.replace("'", '"'), MasterConfig, "master.toml")


def test_the_matches_of_a_mark_are_of_both_families() -> None:
    both = ["203.0.113.0/24 tcp 80", "2001:db8:9::/64 tcp 443"]
    found = marks(config(("fwmark:7", both), ("fwmark:7:ipv6", ["2001:db8:a::/64 udp 53"]), ("fwmark:8", [])))
    assert {mark: list(map(str, matches)) for mark, matches in found.items()} == {7: [*both, "2001:db8:a::/64 udp 53"]}
    assert [match.family for match in found[7]] == [Family.IPV4, Family.IPV6, Family.IPV6]


@pytest.mark.parametrize(
    ("services", "why"),
    [
        ([("tcp:10.0.0.1:80", ["203.0.113.0/24 tcp 80"])], "is for a firewall mark"),
        ([("fwmark:7", ["2001:db8::/64 tcp 80"])], 'no [[service]] virtual = "fwmark:7:ipv6"'),
        ([("fwmark:7:ipv6", ["203.0.113.0/24 tcp 80"])], 'no [[service]] virtual = "fwmark:7"'),
        (
            [("fwmark:7", ["203.0.113.0/24 tcp 80-90"]), ("fwmark:8", ["203.0.113.0/24 tcp 22,90,99"])],
            "mark 7 has 203.0.113.0/24 tcp 80-90: a packet can have one mark only",
        ),
        (
            [("fwmark:7", ["10.0.0.9 tcp 80"]), ("tcp:10.0.0.9:80", [])],
            "tcp:10.0.0.9:80: gets nothing: 10.0.0.9/32 tcp 80 gives its packets to mark 7",
        ),
        ([("fwmark:1280704512", ["203.0.113.0/24 tcp 80"])], "are for our own checks"),
        ([("fwmark:7", ["203.0.113.0/24 tcp 80"] * 65)], "length <= 64"),
        ([(f"fwmark:{n}", [f"203.0.{n}.{m} tcp 80" for m in range(60)]) for n in range(1, 10)], "more than 512 rules"),
    ],
)
def test_services_that_cannot_stand_beside_each_other_are_refused(
    services: list[tuple[str, list[str]]], why: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        config(*services)
    assert why in str(refused.value)


@pytest.mark.parametrize(
    "services",
    [
        # One network in another: the more specific one has the word.
        [("fwmark:7", ["0.0.0.0/0 tcp 80"]), ("fwmark:8", ["203.0.113.0/24 tcp 80"])],
        [("fwmark:7", ["203.0.113.0/24 tcp 80"]), ("fwmark:8", ["203.0.113.0/24 udp 80", "203.0.113.0/24 tcp 81"])],
        [("fwmark:7", ["203.0.113.0/24 tcp 80", "203.0.113.0/24 tcp 80-90"])],
        # Packets for an address of this host's own are not marked by a network's match: the VIP keeps its service.
        [("fwmark:7", ["10.0.0.0/24 tcp 80"]), ("tcp:10.0.0.9:80", [])],
        [("fwmark:7", ["10.0.0.9 tcp 80"]), ("udp:10.0.0.9:80", []), ("tcp:10.0.0.9:81", [])],
    ],
)
def test_services_that_can_are_taken(services: list[tuple[str, list[str]]]) -> None:
    assert marks(config(*services))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('firewall = "ufw"', "steer.firewall"),
        ("table = 0", "steer.table"),
        ("table = 254", "steer.table: 254 is the kernel's own"),
        ("table = 255", "steer.table: 255 is the kernel's own"),
        ("table = 4294967296", "steer.table"),
        ("priority = 0", "steer.priority"),
        ("priority = 32766", "steer.priority"),
    ],
)
def test_where_ours_stand_is_bounded(line: str, why: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(f'ownership = "weights"\n[steer]\n{line}\n', MasterConfig)
    assert why in str(refused.value)


def test_two_matches_are_rivals_where_a_packet_could_have_either_mark() -> None:
    def match(text: str) -> Match:
        return parse_match(text, "here")

    assert match("10.0.0.0/8 tcp 80-90").rivals(match("10.0.0.0/8 tcp 90"))
    assert not match("10.0.0.0/8 tcp 80-90").rivals(match("10.0.0.0/9 tcp 90"))
    assert not match("10.0.0.0/8 tcp 80-90").rivals(match("10.0.0.0/8 udp 90"))
    assert match("10.0.0.1 tcp 80").takes(Protocol.TCP, 80) and not match("10.0.0.1 tcp 80").takes(Protocol.TCP, 81)
