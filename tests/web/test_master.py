"""The master's side of the pages: where they listen, what they tell of it, and that weights need no pages."""

from __future__ import annotations

import json
import os
import signal
import socket

import pytest

from feedback.config import ConfigError, MasterConfig, parse
from feedback.ops.role import Role, RoleFile, RoleSaid
from feedback.web import past
from tests.master.test_daemon import Site, run, site, until
from tests.ports import free_port
from tests.web.test_server import get

__all__ = ["site"]  # the fixture

OWNED = '[[service]]\nvirtual = "tcp:10.0.0.100:80"\n'


@pytest.mark.parametrize(
    "listen, error",
    [
        ('listen = "7480"', "http.listen: '7480': expected ADDRESS:PORT"),
        ('listen = "director1:7480"', "http.listen: 'director1' does not appear to be an IPv4 or IPv6 address"),
        ('listen = "127.0.0.1:74800"', "port 0..65535"),
        ('socket = "/run/x"', "unknown field `socket`"),
    ],
)
def test_where_to_listen_is_checked(listen: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        parse(f"{OWNED}[http]\n{listen}", MasterConfig)


def test_pages_are_on_loopback_by_default_and_off_by_an_empty_setting() -> None:
    assert parse(OWNED, MasterConfig).http.listen == "127.0.0.1:7480"
    assert parse(f'{OWNED}[http]\nlisten = ""', MasterConfig).http.listen == ""


def test_a_master_tells_how_it_stands(site: Site) -> None:
    port = free_port()
    site.write(f'[http]\nlisten = "127.0.0.1:{port}"')

    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        assert [get(port, path)[0] for path in ("/healthz", "/readyz", "/active", "/status")] == [200] * 4
        until(lambda: json.loads(get(port, "/status.json")[2])["services"] == site.status()["services"])
        told = json.loads(get(port, "/status.json")[2])
        assert (told["role"], told["director"], "reload" in told) == ("active", os.uname().nodename, False)
        site.config.write_text("nonsense")
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: json.loads(get(port, "/status.json")[2]).get("reload", {}).get("good") is False)
        assert b"the last reload was refused" in get(port, "/status")[2]

    run(site, work)


def test_the_page_has_a_past_and_asks_the_sync_daemon(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "STEP_SECONDS", 0.2)
    monkeypatch.setattr(past, "LOOK_SECONDS", 0.0)
    port, role = free_port(), RoleFile(site.directory / "role.json")
    site.write(f'role = "{site.directory}/role.json"\n[http]\nlisten = "127.0.0.1:{port}"\nsync = "/nowhere/sync.sock"')
    role.write(RoleSaid(Role.ACTIVE, "d2 is dead", "d2", 2))

    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        until(lambda: get(port, "/status")[2].count(b"<svg") >= 4)  # shares and open connections of both
        page = get(port, "/status")[2].decode()
        assert "share, last 15 min: 50 to 50 %, now 50 %" in page
        assert "/nowhere/sync.sock: no daemon answers: is `feedback sync` running?" in page

    run(site, work)


def test_a_port_that_is_taken_costs_the_pages_and_nothing_else(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        site.write(f'[http]\nlisten = "127.0.0.1:{other.getsockname()[1]}"')
        run(site, lambda: until(lambda: site.weights() == [100, 100]))
    assert "pages-failed" in capfd.readouterr().err
