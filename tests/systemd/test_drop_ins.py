"""The drop-ins that give the master a capability more: what they add to the unit, and no more."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_drop_in_adds_one_capability_to_both_sets_and_one_family() -> None:
    lines = [line for line in (ROOT / "examples" / "cut.conf").read_text().splitlines() if not line.startswith("#")]
    capability = ["CapabilityBoundingSet=CAP_NET_RAW", "AmbientCapabilities=CAP_NET_RAW"]
    assert lines == ["[Service]", *capability, "RestrictAddressFamilies=AF_PACKET"]


def test_the_one_for_iptables_adds_the_capability_alone() -> None:
    text = (ROOT / "examples" / "iptables-legacy.conf").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == ["[Service]", "CapabilityBoundingSet=CAP_NET_RAW", "AmbientCapabilities=CAP_NET_RAW"]


@pytest.mark.parametrize("name", ["cut.conf", "iptables-legacy.conf"])
def test_systemd_takes_it_beside_the_unit(tmp_path: Path, name: str) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is missing")
    unit = tmp_path / "feedback-master.service"
    unit.write_text(
        (ROOT / "systemd" / "feedback-master.service").read_text().replace("/usr/bin/feedback", "/bin/true")
    )
    drop_ins = tmp_path / "feedback-master.service.d"
    drop_ins.mkdir()
    shutil.copy(ROOT / "examples" / name, drop_ins)
    done = subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60)
    said = [line for line in (done.stdout + done.stderr).splitlines() if name in line]
    assert (done.returncode, said) == (0, [])
