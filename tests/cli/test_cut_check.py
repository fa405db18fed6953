"""`feedback master check` of a configuration that cuts: who lacks the capability, in one line with what mends it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from feedback.cli import master as command
from feedback.cli.main import main
from feedback.ops import keys, process

CUT = 'on_failure = "cut"\n[service.check]\n'
FAILOVER = 'law = "failover"\nlaw_options = { cut = "both" }\n'


def checked(directory: Path, asks: str) -> tuple[int, str]:
    _, secret, _ = keys.create(directory / "master")
    (directory / "agents").mkdir()
    path = directory / "master.toml"
    path.write_text(
        f'key = "{secret}"\nenrolled = "{directory}/agents"\n[[service]]\nvirtual = "tcp:10.0.0.100:80"\n{asks}'
        '[[service.destination]]\naddress = "10.0.0.11"\n'
    )
    done = CliRunner().invoke(main, ["master", "check", "--config", str(path)])
    return done.exit_code, done.output


@pytest.mark.parametrize("asks", [CUT, FAILOVER])
def test_a_process_without_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: str) -> None:
    monkeypatch.setattr(process, "may_send_raw", lambda: False)
    status, said = checked(tmp_path, asks)
    assert status == 1 and said.count("\n") == 1
    assert 'on_failure: "cut" needs CAP_NET_RAW, which this process lacks' in said


@pytest.mark.parametrize(
    ("shown", "good"),
    [
        ("LoadState=loaded\nAmbientCapabilities=cap_net_admin\n", False),
        ("LoadState=loaded\nAmbientCapabilities=cap_net_admin cap_net_raw\n", True),
        ("LoadState=not-found\nAmbientCapabilities=\n", True),
    ],
)
def test_where_systemd_runs_the_unit_must_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str, good: bool
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "systemctl").write_text(f"#!/bin/sh\nprintf '{shown}'\n")
    (tmp_path / "bin" / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(command, "SYSTEMD", tmp_path)
    monkeypatch.setattr(process, "may_send_raw", lambda: True)
    status, said = checked(tmp_path, CUT)
    assert (status == 0) == good
    assert good or "feedback-master.service lacks: examples/cut.conf is a drop-in" in said


def test_who_cuts_nothing_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "may_send_raw", lambda: False)
    status, said = checked(tmp_path, 'on_failure = "remove"\n[service.check]\n')
    assert status == 0, said
