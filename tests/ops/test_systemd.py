from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.ops import systemd
from tests.ops.exhausted import exhausted


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """systemd's end of the notify socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        if request.param == "path":
            sock.bind(str(tmp_path / "notify"))
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        else:
            sock.bind(f"\0feedback-test-{os.getpid()}")
            monkeypatch.setenv("NOTIFY_SOCKET", f"@feedback-test-{os.getpid()}")
        yield sock


def heard(manager: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().split("\n"))


def test_ready_carries_its_status(manager: socket.socket) -> None:
    assert systemd.ready("12 real servers")
    assert heard(manager) == {"READY": "1", "STATUS": "12 real servers", "MAINPID": str(os.getpid())}


def test_reloading_carries_the_time_in_the_same_datagram(manager: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    systemd.reloading()
    message = heard(manager)
    assert message["RELOADING"] == "1"
    assert before <= int(message["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000


def test_stopping_status_and_watchdog(manager: socket.socket) -> None:
    systemd.stopping("bye")
    systemd.status("here")
    systemd.watchdog()
    assert heard(manager) == {"STOPPING": "1", "STATUS": "bye"}
    assert heard(manager) == {"STATUS": "here"}
    assert heard(manager) == {"WATCHDOG": "1"}


def test_outside_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.ready("alone")


def test_a_manager_that_is_gone_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    with pytest.raises(OSError, match="No such file"):
        systemd.ready("here")


def test_an_address_that_is_neither_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock:2:1")
    with pytest.raises(OSError, match="expected a path"):
        systemd.ready("here")


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("4000000", None, 2.0),
        ("4000000", str(os.getpid()), 2.0),
        ("4000000", "1", None),
        ("0", None, None),
        ("", None, None),
        ("soon", None, None),
    ],
    ids=["any process", "this process", "another process", "zero", "empty", "a word"],  # a pid is no name
)
def test_the_watchdog_is_fed_at_half_its_time_by_the_process_it_watches(
    usec: str, pid: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    assert systemd.watchdog_interval_seconds() == seconds


def test_a_credential_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("x")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert systemd.credential("key") == tmp_path / "key"
    assert systemd.credential("other") is None
    assert systemd.credential("../key") is None
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert systemd.credential("key") is None


def test_a_credential_that_may_not_be_looked_at_is_left_to_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(type(tmp_path), "exists", denied)
    assert systemd.credential("master.key_secret") == tmp_path / "master.key_secret"


def test_the_watchdog_is_fed_without_a_descriptor_left(manager: socket.socket) -> None:
    assert systemd.ready("here")
    manager.recv(4096)
    with exhausted():
        assert systemd.watchdog()
    assert heard(manager) == {"WATCHDOG": "1"}


def test_a_systemd_that_does_not_read_holds_nobody_up_and_one_that_went_ends_nobody(manager: socket.socket) -> None:
    while systemd.watchdog():
        pass  # until its queue is full
    manager.close()
    assert not systemd.status("still here")
    with pytest.raises(OSError):
        systemd.ready("here")
