"""`doctor` and `check` as an operator runs them: on a machine with real files, a real master, and a real kernel."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import feedback.ipvs
from feedback.cli import doctor as module
from feedback.cli.main import main
from feedback.ops import keys
from tests.cli import test_table
from tests.ipvs.conftest import RealDirector
from tests.master import test_daemon
from tests.master.test_daemon import Site, run, until

site, netns, real = test_daemon.site, test_table.netns, test_table.real  # fixtures


def command(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(w) for w in words])


def whats(answer: Result) -> list[str]:
    found: dict[str, Any] = json.loads(answer.stdout)
    assert found["schema"] == 1
    return [f"{f['level']} {f['area']}: {f['what']}" for f in found["findings"]]


def test_a_director_with_a_master_whose_agents_are_silent(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    class Opened(test_table.Opened):
        snapshot = staticmethod(lambda: site.kernel.snapshot())  # type: ignore[assignment]

    monkeypatch.setattr(feedback.ipvs, "Client", lambda netns=None: Opened())

    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        said = whats(command("doctor", "--directory", site.directory, "--json"))
        assert "warning agents: the agent of 10.0.0.11 has not reported since the master started" in said
        assert not [line for line in said if "configuration" in line or "enrolled" in line or " master:" in line]
        keys.revoke(site.directory / "agents", "rs2")
        said = whats(command("doctor", "--directory", site.directory, "--json"))
        assert "warning agents: no agent is enrolled for 10.0.0.12" in said

    run(site, work)
    answer = command("doctor", "--directory", site.directory)
    assert answer.exit_code == 1
    assert "systemctl enable --now feedback-master" in answer.output


def test_check_judges_every_configuration_that_is_there(site: Site) -> None:
    answer = command("check", "--directory", site.directory)
    assert (answer.exit_code, answer.output.count("good")) == (0, 1)
    (site.directory / "sync.toml").write_text('name = "d1"\n')
    answer = command("check", "--directory", site.directory, "--json")
    assert answer.exit_code == 1
    found = json.loads(answer.stdout)
    assert [c["good"] for c in found["configurations"]] == [True, False]
    assert "1 of 2 configurations cannot be used" in answer.stderr


def test_a_secret_that_others_may_read_is_an_error_with_its_chmod(site: Site) -> None:
    site.secret.chmod(0o644)
    answer = command("doctor", "--directory", site.directory)
    assert answer.exit_code == 1
    assert f"chmod 600 {site.secret}" in answer.output
    assert command("check", "--directory", site.directory).exit_code == 1


def test_a_secret_of_another_user_is_found(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "USER", "nobody")
    answer = command("doctor", "--directory", site.directory)
    assert f"chown feedback {site.secret}" in answer.output
    monkeypatch.setattr(module, "USER", getpass.getuser())
    assert "does not belong to" not in command("doctor", "--directory", site.directory).output


def test_where_nothing_is_configured_it_says_how_to_begin(tmp_path: Path) -> None:
    assert "copy one of examples/" in command("doctor", "--directory", tmp_path).output
    assert command("check", "--directory", tmp_path).exit_code == 1


@pytest.mark.lab
def test_on_a_real_kernel_it_reads_the_settings_and_the_table(real: RealDirector, tmp_path: Path) -> None:
    rules = "-A -t 10.0.0.100:80 -s rr -p 60\n-a -t 10.0.0.100:80 -r 10.1.0.1:80 -g -w 0\n"
    assert CliRunner().invoke(main, ["restore", "--netns", real.netns, "-"], input=rules).exit_code == 0
    answer = command("doctor", "--directory", tmp_path, "--netns", real.netns, "--json")
    assert answer.exit_code == 1
    said = "\n".join(whats(answer))
    for expected in (
        "error service: tcp:10.0.0.100:80: every destination has weight 0",
        "warning scheduler: tcp:10.0.0.100:80: rr only checks",
        "warning sysctl: expire_quiescent_template=0",
        "advice sysctl: conn_reuse_mode=1",
        "advice sysctl: expire_nodest_conn=0",
    ):
        assert expected in said
