"""sync.toml: what it may say, and one line for each thing that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedback.config import ConfigError, SyncConfig, load, parse

ROOT = Path(__file__).parents[2]
GOOD = """
name = "d1"
peer = "d2"
[[link]]
local = "192.168.7.1:7434"
peer = "192.168.7.2:7434"
[[address]]
address = "10.0.0.100/32"
interface = "eth0"
"""


def test_the_example_is_good() -> None:
    config = load(ROOT / "examples" / "sync.toml", SyncConfig)
    assert (config.name, config.peer, len(config.link)) == ("d1", "d2", 2)
    assert config.mirrors


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('peer = "d2"', 'peer = "d1"'), "peer: 'd1' is this director's own name"),
        (('"10.0.0.100/32"', '"10.0.0.100/33"'), "address[0].address: '10.0.0.100/33': expected ADDRESS/PREFIX"),
        (('"10.0.0.100/32"', '"vip"'), "expected ADDRESS/PREFIX"),
        (('"192.168.7.2:7434"', '"192.168.7.2"'), "link[0].peer"),
        (('"192.168.7.2:7434"', '"192.168.7.2:0"'), "expected a port in 1..65535"),
        (('"192.168.7.2:7434"', '"[fe80::1]:7434"'), "local and peer are of different families"),
        (('name = "d1"', 'name = "d1"\nreach = ["gateway"]'), "reach[0]: 'gateway' is not an IPv4 or IPv6 address"),
        (('name = "d1"', 'name = "d1"\nengine = "vrrp"'), "engine: 'vrrp': expected one of heartbeat, keepalived"),
        (('name = "d1"', 'name = "d1"\nengine = "keepalived"'), "keepalived moves the addresses: remove these"),
        (('name = "d1"', 'name = "d1"\nreplication.mode = "maybe"'), "replication.mode: 'maybe'"),
        (('name = "d1"', 'name = "d1"\nvip = "x"'), "unknown field `vip`"),
        (('name = "d1"', 'name = "d1"\ntiming.interval_seconds = 0'), "timing.interval_seconds"),
    ],
)
def test_what_is_wrong_is_one_line(change: tuple[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace(*change), SyncConfig, source="sync.toml")
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith("sync.toml: ")


def test_an_address_or_a_link_twice_is_refused() -> None:
    for table in ("link", "address"):
        part = GOOD[GOOD.index(f"[[{table}]]") :].partition("\n[[")[0] + "\n"
        with pytest.raises(ConfigError, match=r"twice|same local"):
            parse(GOOD + part, SyncConfig)


def test_keepalived_moves_the_addresses_and_makes_the_services() -> None:
    text = 'engine = "keepalived"' + GOOD[: GOOD.index("[[address]]")]
    assert not parse(text, SyncConfig).mirrors
    assert parse(text + "[replication]\nmirror = true\n", SyncConfig).mirrors
