"""The master keeps marks, rules and routes in either role, and the commands show and remove them. The rules are a real
kernel's, in a namespace of their own; IPVS is a model here. The whole on the lab's kernel: the scenario `range`."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from feedback.cli.main import main
from feedback.ipvs import FakeKernel
from feedback.ops.control import ask
from feedback.ops.role import Role, RoleFile, RoleSaid
from tests.master.test_daemon import Site, until
from tests.master.test_daemon import run as with_master
from tests.patience import process_seconds
from tests.ports import free_port
from tests.steer.kept import netns, run

__all__ = ["netns"]
pytestmark = [
    pytest.mark.lab(on="host"),
    pytest.mark.skipif(os.getuid() != 0, reason="needs root, for namespaces"),
]

RANGE = '[[service]]\nvirtual = "fwmark:7"\nmatch = ["203.0.113.0/24 tcp 80,8000-8100"]\n'


@pytest.fixture
def site(tmp_path: Path, netns: str) -> Site:
    made = Site(tmp_path, free_port(), FakeKernel())
    write(made, netns, RANGE)
    return made


def write(site: Site, netns: str, services: str, extra: str = "") -> None:
    site.write(f'netns = "{netns}"\n{extra}')
    site.config.write_text(site.config.read_text() + services)


def command(site: Site, *words: str) -> Result:
    return CliRunner().invoke(main, ["steer", *words, "--directory", str(site.directory)])


def policy(netns: str) -> str:
    return run(netns, "ip rule")


def asked(site: Site) -> dict[str, Any]:
    return ask(site.control, {"command": "steer"})


def settled(site: Site) -> Callable[[], bool]:
    return lambda: bool(asked(site)["settled"])


def kinds(site: Site) -> list[str]:
    return [e["kind"] for e in ask(site.control, {"command": "events"})["events"] if "steer" in e["kind"]]


def test_a_standby_makes_them_too_and_puts_back_within_five_seconds_what_is_undone(site: Site, netns: str) -> None:
    role = RoleFile(site.directory / "role.json")
    role.write(RoleSaid(Role.STANDBY, "d1 is active", "d1", 1))
    write(site, netns, RANGE, f'role = "{site.directory}/role.json"')

    def work() -> None:
        until(settled(site))
        assert "fwmark 0x7 lookup 7433" in policy(netns)
        run(netns, "ip rule del fwmark 7")
        began = process_seconds()
        until(lambda: "fwmark 0x7 lookup 7433" in policy(netns))
        assert process_seconds() - began < 5.0
        until(lambda: kinds(site) == ["steered", "steer-mended"])
        role.write(RoleSaid(Role.ACTIVE, "d1 is dead", "d1", 2))  # and a takeover changes nothing
        until(lambda: site.kernel.snapshot().services != ())
        assert kinds(site) == ["steered", "steer-mended"] and asked(site)["settled"]

    with_master(site, work)
    assert "fwmark 0x7 lookup 7433" in policy(netns)  # stopping leaves them, as weights


def test_a_reload_follows_the_file_and_a_bad_one_leaves_them(site: Site, netns: str) -> None:
    before = policy(netns)

    def reload(services: str) -> None:
        write(site, netns, services)
        os.kill(os.getpid(), signal.SIGHUP)

    def work() -> None:
        until(settled(site))
        reload(RANGE.replace("8100", "8"))  # no such range of ports
        time.sleep(0.3)
        assert "fwmark 0x7" in policy(netns) and asked(site)["state"] == "kept"
        reload(RANGE.replace("fwmark:7", "fwmark:9"))
        until(lambda: "fwmark 0x9" in policy(netns) and "fwmark 0x7" not in policy(netns))
        reload("")
        until(lambda: policy(netns) == before)
        assert asked(site)["state"] == "none"

    with_master(site, work)


def test_what_an_earlier_configuration_made_goes_at_the_next_start(site: Site, netns: str) -> None:
    before = policy(netns)
    with_master(site, lambda: until(settled(site)))
    assert policy(netns) != before
    write(site, netns, "")
    with_master(site, lambda: until(lambda: policy(netns) == before))
    assert not site.control.with_suffix(".steer").exists()


def test_remove_is_for_good_until_a_reload_and_show_says_so(site: Site, netns: str) -> None:
    before = policy(netns)

    def work() -> None:
        until(settled(site))
        shown = command(site, "show")
        assert shown.exit_code == 0, shown.output
        assert (
            "mark 7      203.0.113.0/24 tcp 80,8000-8100" in shown.output
            and "the master maintains them" in shown.output
        )
        removed = command(site, "remove", "--json")
        assert (removed.exit_code, json.loads(removed.stdout)) == (0, {"schema": 1, "removed": True, "by": "master"})
        assert policy(netns) == before
        time.sleep(2.5)  # more than a turn
        assert policy(netns) == before
        shown = command(site, "show")
        assert (
            shown.exit_code == 1 and "missing: 0 of 1 rules that mark are there, and no packet comes by" in shown.output
        )
        assert "removed by `feedback steer remove`" in shown.output
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: "fwmark 0x7" in policy(netns))
        assert "steer-removal" in kinds(site)

    with_master(site, work)


def test_without_a_master_both_commands_work_on_the_kernel_itself(site: Site, netns: str) -> None:
    before = policy(netns)
    with_master(site, lambda: until(settled(site)))
    shown = json.loads(command(site, "show", "--json").stdout)
    assert (shown["missing"], shown["master"]["state"]) == ([], "unknown")
    assert shown["marks"] == [{"mark": 7, "match": ["203.0.113.0/24 tcp 80,8000-8100"]}]
    removed = command(site, "remove")
    assert removed.exit_code == 0 and removed.output == "no mark, rule or route of ours remains\n"
    assert policy(netns) == before


def test_what_cannot_be_made_is_said_and_tried_again(site: Site, netns: str) -> None:
    """The file under /run cannot be written: a directory is in its place."""
    place = site.control.with_suffix(".steer")
    place.mkdir()

    def work() -> None:
        until(lambda: str(place) in asked(site)["problem"])
        assert site.status()["steering"]["problem"] == asked(site)["problem"]
        assert "fwmark 0x7" not in policy(netns) and not asked(site)["settled"]
        refused = command(site, "show")
        assert refused.exit_code == 1 and str(place) in refused.output
        place.rmdir()
        until(settled(site))
        assert "fwmark 0x7" in policy(netns)

    with_master(site, work)


def test_doctor_finds_what_collides_and_who_would_answer(site: Site, netns: str) -> None:
    with_master(site, lambda: until(settled(site)))

    def found() -> list[tuple[str, str]]:
        told = CliRunner().invoke(main, ["doctor", "--directory", str(site.directory), "--netns", netns, "--json"])
        return [(f["level"], f["what"]) for f in json.loads(told.stdout)["findings"] if f["area"] == "steer"]

    assert found() == []
    for line in (
        "ip route add local 203.0.113.0/25 dev lo",
        "ip rule add fwmark 0x7/0xf lookup main priority 99",
        "ip route add blackhole 192.0.2.0/24 table 7433",
        "iptables-legacy -t mangle -A PREROUTING -p udp -j MARK --set-mark 7",
        "sysctl -qw net.ipv4.conf.all.src_valid_mark=1 net.ipv4.conf.lo.proxy_arp=1",
        "ip -6 rule del priority 32766",  # nothing of ours
        "ip route del local default table 7433",
    ):
        run(netns, line)
    said = sorted(found())
    expected = (
        ("error", "203.0.113.0/25 is local in table 255: this host answers ARP for 203.0.113.0/24 of fwmark:7"),
        ("error", "somebody else has a route to 192.0.2.0/24 in table 7433"),
        ("error", "somebody else marks packets with 7 too: iptables-legacy -A PREROUTING -p udp"),
        ("error", "src_valid_mark is 1 on all"),
        ("error", "the policy rule 99 (fwmark 0x7/0xf, table 254) comes before ours at 7433"),
        ("error", "the table's local route (ipv4) is missing: packets for 203.0.113.0/24 do not reach IPVS"),
        ("warning", "proxy_arp is 1 on lo"),
    )
    assert len(said) == len(expected), said
    for (level, what), (wanted_level, start) in zip(said, expected, strict=True):
        assert level == wanted_level and what.startswith(start), (what, start)


def test_help_teaches(site: Site) -> None:
    told = CliRunner().invoke(main, ["steer", "--help"]).output
    assert 'match = ["203.0.113.0/24 tcp 80,443,8000-8100"]' in told and "docs/ranges.md" in told
