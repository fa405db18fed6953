"""Bad configuration: one line that names file, key path and what was expected. Good ones: what they become."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedback.config import AgentConfig, ConfigError, MasterConfig, load, parse, service_key, to_destination, to_service
from feedback.model import Forward, ServiceFlags

SERVICE = '[[service]]\nvirtual = "tcp:10.0.0.100:80"\n'
DESTINATION = '[[service.destination]]\naddress = "10.0.0.11"\n'
KEY = "0123456789012345678901234567890123456789"
AGENT = f'name = "rs1"\naddresses = ["10.0.0.11"]\n[[master]]\nendpoint = "tcp://10.0.0.1:7433"\npublic_key = "{KEY}"\n'

BAD_MASTER = [
    ("listn = []", "listn", "unknown"),
    (SERVICE + "weight = 3", "service[", "weight"),
    ("interval_seconds = 'x'\n" + SERVICE, "interval_seconds", "float"),
    ("interval_seconds = 0\n" + SERVICE, "interval_seconds", "0.05"),
    ('[[service]]\nvirtual = "tcp:10.0.0.300:80"', "service[0].virtual", "10.0.0.300"),
    ('[[service]]\nvirtual = "10.0.0.1:80"', "service[0].virtual", "PROTOCOL:ADDRESS:PORT"),
    ('[[service]]\nvirtual = "tcp:10.0.0.1:99999"', "service[0].virtual", "0..65535"),
    (SERVICE + DESTINATION.replace("10.0.0.11", "rs1"), "service[0].destination[0].address", "IPv4 or IPv6"),
    (SERVICE + DESTINATION + DESTINATION, "service[0].destination[1].address", "twice"),
    (SERVICE + SERVICE, "service[1].virtual", "twice"),
    (SERVICE + DESTINATION + "upper = 5\nlower = 6\n", "service[0].destination[0].lower", "more than upper"),
    (SERVICE + DESTINATION + "lower = 6\n", "service[0].destination[0].lower", "more than upper, which is 0"),
    (SERVICE + DESTINATION + "weight = -1\n", "service[0].destination[0].weight", ">= 0"),
    (SERVICE + DESTINATION + 'forward = "nat"\n', "service[0].destination[0].forward", "masquerade"),
    (SERVICE + 'flags = ["quick"]\n', "service[0].flags[0]", "one-packet"),
    (SERVICE + "persistence_seconds = 300\npersistence_prefix = 33\n", "service[0].persistence_prefix", "32"),
    ('ownership = "all"\n' + SERVICE, "ownership", "table, weights"),
    ('listen = ["10.0.0.1:7433"]\n' + SERVICE, "listen[0]", "tcp://ADDRESS:PORT"),
    (SERVICE + '[guards]\nlost_policy = "shrug"\n', "guards.lost_policy", "hold"),
    (SERVICE + "[guards]\nstale_seconds = 20\n", "guards.lost_seconds", "stale_seconds"),
    ("", "service", "at least one"),
    ("[[service]\n", "", "not TOML"),
]

BAD_AGENT = [
    (AGENT.replace("10.0.0.11", "ten"), "addresses[0]", "IPv4 or IPv6"),
    (AGENT.replace("tcp://10.0.0.1:7433", "udp://10.0.0.1:7433"), "master[0].endpoint", "tcp://ADDRESS:PORT"),
    (AGENT.replace(KEY, "short"), "master[0].public_key", "40"),
    (AGENT.replace('"rs1"', '"rs 1"'), "name", "regex"),
    ('service_cgroup = "system.slice/x"\n' + AGENT, "service_cgroup", "absolute"),
    ('service_cgroup = ["/a/b", "/a/b/c"]\n' + AGENT, "service_cgroup", "overlap"),
    ('service_cgroup = ["/a/b", "/a/b"]\n' + AGENT, "service_cgroup", "overlap"),
    ("service_cgroup = 1\n" + AGENT, "service_cgroup", "str | array"),
    ("ports = [0]\n" + AGENT, "ports[0]", "1..65535"),
    ('name = "rs1"\naddresses = ["10.0.0.11"]', "master", "required"),
]


@pytest.mark.parametrize("text, path, expected", BAD_MASTER)
def test_a_bad_master_configuration_is_one_line_with_file_path_and_expectation(
    tmp_path: Path, text: str, path: str, expected: str
) -> None:
    file = tmp_path / "master.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, MasterConfig)
    said = str(caught.value)
    assert said.startswith(f"{file}: ") and "\n" not in said
    assert path in said and expected in said


@pytest.mark.parametrize("text, path, expected", BAD_AGENT)
def test_a_bad_agent_configuration_is_one_line_too(text: str, path: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, AgentConfig, source="agent.toml")
    said = str(caught.value)
    assert said.startswith("agent.toml: ") and "\n" not in said
    assert path in said and expected in said


def test_a_missing_file_says_where_to_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file.*examples"):
        load(tmp_path / "none.toml", MasterConfig)


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "x.toml", MasterConfig)


def test_udp_gets_wrr_and_tcp_gets_sed_by_default() -> None:
    config = parse(SERVICE + SERVICE.replace("tcp", "udp") + '[[service]]\nvirtual = "fwmark:7"\n', MasterConfig)
    assert [to_service(s).scheduler for s in config.service] == ["sed", "wrr", "sed"]


def test_a_destination_takes_port_and_forwarding_from_its_service() -> None:
    config = parse(SERVICE + 'forward = "masquerade"\n' + DESTINATION, MasterConfig)
    made = to_destination(config.service[0].destination[0], config.service[0])
    assert (str(made.key), made.forward) == ("10.0.0.11:80", Forward.MASQUERADE)


@pytest.mark.parametrize(("told", "good"), [("", False), ("port = 80", True), ("check_port = 80", True)])
def test_a_check_of_a_service_without_a_port_needs_one_from_itself_or_from_each_destination(
    told: str, good: bool
) -> None:
    other = DESTINATION.replace(".11", ".12")
    text = f'[[service]]\nvirtual = "fwmark:7"\ncheck = {{}}\n{DESTINATION}{told}\n{other}port = 81\n'
    if good:
        parse(text, MasterConfig)
        return
    with pytest.raises(ConfigError, match="check: needs a port"):
        parse(text, MasterConfig)


def test_persistence_sets_flag_and_timeout() -> None:
    made = to_service(parse(SERVICE + "persistence_seconds = 300\n", MasterConfig).service[0])
    assert made.flags is ServiceFlags.PERSISTENT and made.timeout_seconds == 300


@pytest.mark.parametrize("name", ["master.toml", "master-weights.toml", "agent.toml"])
def test_the_examples_are_good(name: str) -> None:
    path = Path(__file__).parents[1] / "examples" / name
    load(path, AgentConfig if name.startswith("agent") else MasterConfig)


def test_keys_are_written_as_they_are_read() -> None:
    for text in ("tcp:10.0.0.1:80", "udp:[2001:db8::1]:53", "fwmark:7", "fwmark:7:ipv6", "sctp:10.0.0.1:0"):
        config = parse(f'[[service]]\nvirtual = "{text}"\n', MasterConfig)
        assert str(service_key(config.service[0])) == text


def test_a_persistence_engine_needs_udp_and_persistence() -> None:
    sip = SERVICE.replace("tcp", "udp") + 'pe = "sip"\n'
    made = to_service(parse(sip + "persistence_seconds = 120\n", MasterConfig).service[0])
    assert made.pe_name == "sip" and made.persistent
    marked = '[[service]]\nvirtual = "fwmark:7"\npe = "sip"\npersistence_seconds = 60\n'
    assert to_service(parse(marked, MasterConfig).service[0]).pe_name == "sip"
    for text, said in (
        (sip, "needs persistence_seconds"),
        (sip.replace("udp", "tcp") + "persistence_seconds = 120\n", "only works with UDP"),
        (sip.replace("sip", "h323") + "persistence_seconds = 120\n", "expected one of sip"),
    ):
        with pytest.raises(ConfigError, match=said):
            parse(text, MasterConfig)
