"""The units, as systemd itself reads them. `make test` installs systemd-analyze; it needs no running systemd."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "systemd"
# The exposure that each may have at most, by `systemd-analyze security`.
EXPOSURE_MAX = {"feedback-agent.service": 1.5, "feedback-master.service": 2.0, "feedback-sync.service": 2.0}
UNITS = tuple(EXPOSURE_MAX)


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is missing: apt-get install systemd (`make test` does)"
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def options(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (ROOT / unit).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_nothing_wrong(unit: str, tmp_path: Path) -> None:
    # The command and the manual pages are where the package puts them; here any program stands for them.
    copy = tmp_path / unit
    copy.write_text((ROOT / unit).read_text().replace("/usr/bin/feedback ", "/bin/true "))
    done = analyze("verify", "--man=no", copy)
    # Units that ours only come after are read too, and may have faults of their own.
    said = [line for line in (done.stdout + done.stderr).splitlines() if unit in line or "/" not in line]
    assert (done.returncode, said) == (0, [])


@pytest.mark.parametrize("unit", UNITS)
def test_exposure_is_small(unit: str) -> None:
    done = analyze("security", "--offline=true", "--no-pager", ROOT / unit)
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert level, done.stdout + done.stderr
    assert float(level[1]) <= EXPOSURE_MAX[unit], done.stdout


@pytest.mark.parametrize(
    ("unit", "capabilities"), list(zip(UNITS, ("", "CAP_NET_ADMIN", "CAP_NET_ADMIN CAP_NET_RAW"), strict=True))
)
def test_capabilities_are_as_few_as_the_work_needs(unit: str, capabilities: str) -> None:
    found = options(unit)
    assert (found["CapabilityBoundingSet"], found["AmbientCapabilities"]) == ([capabilities], [capabilities])
    assert found["User"] == ["feedback"]


@pytest.mark.parametrize("unit", UNITS)
def test_no_unit_sees_anothers_secret(unit: str) -> None:
    """Agent, master and sync are one user."""
    secrets = {"agent": "agent.key_secret", "master": "master.key_secret", "sync": "pair.key"}
    others = {f"-/etc/feedback/{secret}" for daemon, secret in secrets.items() if daemon not in unit}
    assert {path for paths in options(unit)["InaccessiblePaths"] for path in paths.split()} >= others


@pytest.mark.parametrize("unit", UNITS)
def test_a_stop_runs_nothing_that_could_touch_the_kernels_table(unit: str) -> None:
    assert not {"ExecStop", "ExecStopPost", "ExecStartPre"} & options(unit).keys()


@pytest.mark.parametrize("unit", UNITS)
def test_the_daemon_is_ready_when_it_says_so_is_watched_and_reloads(unit: str) -> None:
    found = options(unit)
    assert found["Type"] == ["notify"]
    assert int(found["WatchdogSec"][0]) > 0
    assert found["ExecReload"] == ["kill -HUP $MAINPID"]
    assert found["Restart"] == ["on-failure"]


@pytest.mark.parametrize("program", ["systemd-sysusers", "systemd-tmpfiles"])
def test_users_and_files_are_understood(program: str, tmp_path: Path) -> None:
    name = program.removeprefix("systemd-") + ".d/feedback.conf"
    path = shutil.which(program)
    assert path, f"{program} is missing: apt-get install systemd (`make test` does)"
    for directory in ("etc", "var/lib"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nfeedback:x:990:990::/:/bin/false\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nfeedback:x:990:\n")
    action = ["--dry-run"] if program == "systemd-sysusers" else ["--remove"]  # parses all of it and needs no root
    done = subprocess.run(
        [path, f"--root={tmp_path}", *action, str(ROOT / name)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
