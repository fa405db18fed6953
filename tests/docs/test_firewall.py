"""The rulesets of docs/firewall.md: every rule is explained, the kernel takes each, traffic passes, and is cut off."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.cli import doctor
from feedback.doctor.rulesets import of_iptables, of_nftables, stateful, untracked
from feedback.lab import network
from feedback.lab.pair.firewall import CONNTRACK, restore
from feedback.lab.pair.firewall import rules as lab_rules
from feedback.lab.pair.injury import Death
from feedback.lab.pair.product import Product
from feedback.lab.pair.stand import PairStand, targets
from feedback.lab.pair.topology import DIRECTORS, VIP, pair
from feedback.lab.workload import streams
from feedback.lab.workload.streams import Plan, Target
from feedback.model import Family, ServiceKey
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "firewall.md"
KINDS = ("both", "direct", "masquerade")
ROUTED, ROUTED6 = ServiceKey.parse("tcp:10.0.0.100:80"), ServiceKey.parse("tcp:[2001:db8::100]:80")
MASQUERADED = ServiceKey.parse("tcp:10.0.0.100:8080")
runs = itertools.count(1)
FIRST, SECOND = DIRECTORS


def ruleset(program: str, kind: str) -> str:
    found = re.search(rf"^```{program} {kind}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert found, f"{program} {kind}"
    return found[1]


def rules(text: str) -> Iterator[tuple[str, str]]:
    """Each rule, and the line before it."""
    lines = [line.strip() for line in text.splitlines()]
    plain = ("*", ":", "COMMIT", "}", "table ", "chain ", "type ", "#")
    for before, line in itertools.pairwise(lines):
        if not line.startswith(plain):
            yield before, line


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("program", ["nft", "iptables"])
def test_every_rule_is_explained(program: str, kind: str) -> None:
    """By the comment above it, or above the same rule of the other protocol or family."""
    told = ""
    found = list(rules(ruleset(program, kind)))
    assert len(found) > 5
    for before, line in found:
        told = before.removeprefix("# ") if before.startswith("#") else told
        assert told, line


@pytest.mark.parametrize("kind", KINDS)
def test_the_doctor_understands_the_iptables_rules(kind: str) -> None:
    found = of_iptables(ruleset("iptables", kind), 4)
    assert stateful(found) is not None
    assert untracked(found, ROUTED) is (kind != "masquerade")
    assert not untracked(found, MASQUERADED)


def test_the_rules_for_ftp_are_those_of_the_lab() -> None:
    """Which its scenario `protocols` sends eight sessions through."""
    wanted = ruleset("iptables", "ftp").replace("10.0.0.100", str(VIP)).splitlines()
    lines = [line for line in wanted if line.startswith("-A")]
    assert len(lines) == 2 and set(lines) <= set(lab_rules(Family.IPV4).splitlines())


# --- nftables --------------------------------------------------------------------------------------------------------


@pytest.mark.lab(on="host")
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft", path="/usr/sbin:/sbin"), reason="needs root and nft")
@pytest.mark.parametrize("kind", KINDS)
def test_this_kernel_takes_the_nftables_rules_and_the_doctor_understands_them(kind: str, tmp_path: Path) -> None:
    """In a network namespace of their own."""
    file = tmp_path / "rules.nft"
    file.write_text(ruleset("nft", kind), encoding="utf-8")
    script = f"nft -f {file} && nft -j list ruleset"
    done = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = of_nftables(done.stdout)
    assert len(found) == len(list(rules(ruleset("nft", kind))))
    assert stateful(found) is not None
    assert untracked(found, ROUTED) is untracked(found, ROUTED6) is (kind != "masquerade")
    assert not untracked(found, MASQUERADED)


@pytest.mark.lab(on="host")
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft", path="/usr/sbin:/sbin"), reason="needs root and nft")
def test_this_kernel_takes_the_nftables_rules_for_ftp_beside_the_others(tmp_path: Path) -> None:
    for kind in ("masquerade", "ftp"):
        (tmp_path / f"{kind}.nft").write_text(ruleset("nft", kind), encoding="utf-8")
    script = f"nft -f {tmp_path}/masquerade.nft && nft -f {tmp_path}/ftp.nft && nft list ruleset"
    done = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ct helper set" in done.stdout and "tcp dport 8080" in done.stdout


# --- iptables, with traffic ------------------------------------------------------------------------------------------


def in_the_lab(kind: str) -> tuple[str, str]:
    """Its addresses, and the same for IPv6."""
    text = ruleset("iptables", kind).replace("--dport 8080", "--dport 81").replace("10.0.0.0/24", "10.77.0.0/16")
    four = text.replace("10.0.0.100", str(VIP)).replace("192.168.7.0/24", "10.79.0.0/16")
    six = [line for line in text.replace("-p icmp", "-p ipv6-icmp").splitlines() if " -s " not in line]
    return four, "\n".join(six).replace("10.0.0.100", "fd77::100") + "\n"


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[PairStand]:
    name = f"fw{os.getpid()}x{next(runs)}"
    with PairStand(pair(name), tmp_path) as made:
        yield made
    network.remove_run(name)


def load(stand: PairStand, kind: str) -> None:
    four, six = in_the_lab(kind)
    for director in DIRECTORS:
        with network.entered(stand.pair.namespace(director.name)):
            CONNTRACK.write_text("1\n", encoding="ascii")
            restore("iptables-legacy-restore", four)
            restore("ip6tables-legacy-restore", six)


def ways(kind: str) -> tuple[Target, ...]:
    names = {"both": ("route", "masquerade"), "direct": ("route",), "masquerade": ("masquerade",)}[kind]
    return tuple(target for target in targets() if target.name.startswith(names))


def survivors(stand: PairStand) -> tuple[int, int]:
    stand.wake()
    stand.wait_until_woken()
    stand.finish()
    found = streams.read(stand.output / streams.FILE)
    return sum(stream.survived for stream in found), len(found)


@pytest.mark.lab(seconds=4)
@pytest.mark.parametrize("kind", ["direct", pytest.param("masquerade", marks=pytest.mark.long)])
def test_what_is_served_passes_and_nothing_else(kind: str, stand: PairStand) -> None:
    load(stand, kind)
    found = doctor.rules(stand.pair.namespace(FIRST.name))  # as `feedback doctor` reads them
    assert stateful(found) is not None and {rule.family for rule in found} == {4, 6}
    assert untracked(found, ServiceKey.parse(f"tcp:{VIP}:80")) is (kind == "direct")
    stand.machines[FIRST.name].make_services()
    stand.take_addresses(FIRST)
    stand.wait_for_owner(FIRST)
    stand.start_client(Plan(ways(kind), 40, 1, idle=0.25, rate=400))
    stand.wait_until_established()
    assert survivors(stand) == (40, 40)
    others = [target for target in targets() if target not in ways(kind) and ":" not in target.address]
    with network.entered(stand.pair.namespace("client")):
        for target in others:
            with socket.socket() as sock:
                sock.settimeout(0.5)
                sock.bind((target.sources[0], 0))
                with pytest.raises(TimeoutError):
                    sock.connect((target.address, target.port))


@pytest.mark.lab(seconds=7)
@pytest.mark.long
def test_with_both_every_connection_survives_a_takeover(stand: PairStand) -> None:
    load(stand, "both")
    both = Product(stand)
    both.start(FIRST)
    both.wait_until_active(FIRST)
    both.start(SECOND)
    both.wait_until_standby(SECOND)
    stand.start_client(Plan(ways("both"), 80, 1, idle=0.25, rate=400))
    stand.wait_until_established()
    stand.sleep_until(stand.now() + 1.0)
    stand.strike(Death(stand.pair, FIRST), FIRST)
    stand.wait_for_owner(SECOND)
    assert survivors(stand) == (80, 80)
    written = (both.ask(SECOND, "status") or {})["tracking"]["written"]
    assert (written["entries"], written["refused"]) == (40, {})
