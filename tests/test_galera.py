"""The example of a check for Galera: a client that says what a node would, and what the script makes of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from feedback.config import MasterConfig, OnFailure, load, on_failure
from feedback.master.controller import Controller

CONTRIB = Path(__file__).parents[1] / "contrib" / "galera"

SYNCED = {"cluster_status": "Primary", "ready": "ON", "local_state": "4", "local_state_comment": "Synced"}


def checked(directory: Path, status: dict[str, str], *more: str, fails: str = "") -> tuple[int, str]:
    """Its exit status and what it says, where the node says this."""
    rows = "\n".join(f"wsrep_{name}\t{value}" for name, value in status.items())
    client = directory / "mysql"
    client.write_text(
        f'#!/bin/sh\necho "$@" > {directory}/asked\n'
        + (f"echo '{fails}' >&2; exit 1\n" if fails else f"cat <<X\n{rows}\nX\n")
    )
    client.chmod(0o755)
    environment = {"PATH": f"{directory}:/usr/bin:/bin", "GALERA_CHECK_DEFAULTS": f"{directory}/g.cnf"}
    command = [str(CONTRIB / "galera-check"), "10.0.0.11", "3306", *more]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=20, check=False)
    return done.returncode, done.stdout.strip()


@pytest.mark.skipif(Path("/usr/bin/mariadb").exists(), reason="the real client would be asked")
@pytest.mark.parametrize(
    ("changed", "more", "status", "said"),
    [
        ({}, (), 0, "synced"),
        ({"cluster_status": "non-Primary"}, (), 1, "not in the primary component: non-Primary"),
        ({"ready": "OFF"}, (), 1, "wsrep_ready is OFF"),
        ({"local_state": "3", "local_state_comment": "Joined"}, (), 1, "not synced: Joined"),
        ({"local_state": "2", "local_state_comment": "Donor/Desynced"}, (), 1, "gives its state to another (donor)"),
        ({"local_state": "2", "local_state_comment": "Donor/Desynced"}, ("--donor-ok",), 0, "synced"),
    ],
)
def test_only_a_synced_node_of_the_primary_component_is_good(
    tmp_path: Path, changed: dict[str, str], more: tuple[str, ...], status: int, said: str
) -> None:
    assert checked(tmp_path, SYNCED | changed, *more) == (status, said)
    assert "--host=10.0.0.11 --port=3306" in (tmp_path / "asked").read_text()


@pytest.mark.skipif(Path("/usr/bin/mariadb").exists(), reason="the real client would be asked")
def test_a_node_that_is_no_cluster_or_does_not_answer_is_not_good(tmp_path: Path) -> None:
    assert checked(tmp_path, {}) == (1, "not in the primary component: no wsrep here")
    refused = "ERROR 2002 (HY000): Can not connect to server on 10.0.0.11 (111)"
    assert checked(tmp_path, {}, fails=refused) == (1, refused)


def test_its_configuration_is_good_and_cuts() -> None:
    config = load(CONTRIB / "master.toml", MasterConfig)
    Controller(config)
    (service,) = config.service
    assert on_failure(service.destination[0], service) is OnFailure.CUT
