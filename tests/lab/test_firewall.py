"""The lab's strict firewall as a text: each service has its rules, and who begins without a SYN has none."""

from pathlib import Path

import pytest

from feedback.lab import runner, scenarios
from feedback.lab.error import LabError
from feedback.lab.job import Options
from feedback.lab.pair import topology
from feedback.lab.pair.firewall import TRACKED, load, rules
from feedback.model import Family, Forward, Protocol


@pytest.mark.parametrize("family", list(Family))
def test_masqueraded_services_are_tracked_and_routed_ones_are_not(family: Family) -> None:
    lines = rules(family).splitlines()
    for key in (service.key for service in topology.services() if service.key.family is family):
        assert key.protocol is not None
        to = f"-d {key.address} -p {key.protocol.name.lower()} --dport {key.port} "
        tables = [line.split()[1] for line in lines if to in f"{line} "]
        routed = topology.forward_of(key) is Forward.ROUTE
        assert tables == (["PREROUTING", "INPUT"] if routed else ["INPUT"])


@pytest.mark.parametrize("family", list(Family))
def test_nothing_is_accepted_in_forward_but_what_is_known(family: Family) -> None:
    accepted = [line for line in rules(family).splitlines() if line.startswith("-A FORWARD") and "ACCEPT" in line]
    assert accepted == ["-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"]


def test_a_tracked_tcp_service_takes_no_connection_without_a_syn() -> None:
    new = [line for family in Family for line in rules(family).splitlines() if line.endswith("NEW -j ACCEPT")]
    tracked = [s for s in topology.services() if topology.forward_of(s.key) is Forward.MASQUERADE]
    assert len(new) == len(tracked) + len(TRACKED) and all(s.key.protocol is Protocol.TCP for s in tracked)
    assert all("--syn" in line for line in new)


def test_a_firewall_that_is_not_known_is_refused() -> None:
    with pytest.raises(LabError, match="no firewall 'lax': choose from strict"):
        load("lax")


def test_a_scenario_without_directors_takes_no_firewall(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="hog has no pair of directors"):
        runner.run("hog", tmp_path, options=Options(seconds=60, firewall="strict"), only=["feedback"])


def test_a_policy_that_was_not_run_leaves_its_figures_out() -> None:
    assert scenarios.named("firewall").figures({}, Options()) == {}
