"""The same over real sockets: a master whose servers are a listening port and agents that speak agent-check."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from feedback.model import CHECK_MARKS
from feedback.ops.role import Role, RoleFile, RoleSaid
from tests.master.test_daemon import Site, run, site, until
from tests.ports import free_port

__all__ = ["site"]  # the fixture

FAST = "interval_seconds = 0.2\nrise = 1\nfall = 2\n"


def written(site: Site, asks: str) -> None:
    """Two servers on loopback: 127.0.0.11 and 127.0.0.12."""
    text = site.config.read_text().replace("10.0.0.11", "127.0.0.11").replace("10.0.0.12", "127.0.0.12")
    head, _, destinations = text.partition("[[service.destination]]")
    site.config.write_text(f"{head}[[service.destination]]{destinations}\n{asks}")


def weights(site: Site) -> list[int]:
    services = site.kernel.snapshot().services
    found = {str(e.destination.key.address): e.destination.weight for s in services for e in s.destinations}
    return [found.get(f"127.0.0.{10 + i}", -1) for i in (1, 2)]


@contextmanager
def agent(address: str, port: int, line: list[bytes]) -> Iterator[None]:
    """An agent in the manner of the field: it says its line to whoever connects, and closes."""
    with socket.create_server((address, port)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.sendall(line[0])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def test_a_port_that_closes_is_taken_out_and_comes_back(site: Site) -> None:
    port = free_port()
    written(site, f"[service.check]\nport = {port}\n{FAST}")

    def work() -> None:
        with socket.create_server(("127.0.0.11", port)):
            with socket.create_server(("127.0.0.12", port)):
                until(lambda: weights(site) == [100, 100])
            until(lambda: weights(site) == [100, 0])
            told = site.status()["services"][0]["destinations"][1]
            assert (told["state"], told["check"]["up"]) == ("barred", False)
            assert "tcp: connection refused" in told["check"]["text"]
            with socket.create_server(("127.0.0.12", port)):
                until(lambda: weights(site) == [100, 100])

    run(site, work)


def test_a_failure_waits_for_no_turn(site: Site) -> None:
    port = free_port()
    written(site, f"[service.check]\nport = {port}\n{FAST}")
    slow = re.sub("^interval_seconds = .*", "interval_seconds = 30.0", site.config.read_text(), count=1, flags=re.M)
    site.config.write_text(slow)

    def work() -> None:
        with socket.create_server(("127.0.0.11", port)):
            with socket.create_server(("127.0.0.12", port)):
                until(lambda: checked() == [True, True])
            closed = time.monotonic()
            until(lambda: weights(site) == [100, 0])
            assert time.monotonic() - closed < 30  # 0.4 s; two turns would be a minute

    def checked() -> list[bool]:
        return [d["check"]["up"] for s in site.status()["services"] for d in s["destinations"]]

    run(site, work)


def test_what_checks_need_in_the_kernel_is_there_while_the_master_runs(site: Site) -> None:
    written(site, f'[service.check]\nthrough = "service"\nport = {free_port()}\n{FAST}')
    site.config.write_text(site.config.read_text().replace("10.0.0.100", "127.0.0.100"))

    def marks() -> list[int]:
        return [s.service.key.fwmark for s in site.kernel.snapshot().services if s.service.key.fwmark in CHECK_MARKS]

    def work() -> None:
        until(lambda: len(marks()) == 2)

    run(site, work)
    assert marks() == [] and len(site.kernel.snapshot().services) == 1


def test_a_director_that_stands_by_takes_away_what_its_checks_needed(site: Site) -> None:
    role = RoleFile(site.directory / "role.json")
    role.write(RoleSaid(Role.ACTIVE, "alone", "d2", 1))
    written(site, f'[service.check]\nthrough = "service"\nport = {free_port()}\n{FAST}')
    text = site.config.read_text().replace("10.0.0.100", "127.0.0.100")
    site.config.write_text(f'role = "{site.directory}/role.json"\n{text}')

    def marked() -> int:
        return sum(s.service.key.fwmark in CHECK_MARKS for s in site.kernel.snapshot().services)

    def work() -> None:
        until(lambda: marked() == 2)
        role.write(RoleSaid(Role.STANDBY, "yielded", "d2", 2))
        until(lambda: marked() == 0)
        assert len(site.kernel.snapshot().services) == 1

    run(site, work)


def test_agents_that_speak_agent_check_set_the_weights(site: Site) -> None:
    port = free_port()
    written(site, f"[service.agent_check]\nport = {port}\ninterval_seconds = 0.2\n")
    first, second = [b"100%\n"], [b"up ready 25%\n"]

    def work() -> None:
        with agent("127.0.0.11", port, first):
            with agent("127.0.0.12", port, second):
                until(lambda: 3.5 < ratio() < 4.5)
                second[0] = b"maint\n"
                until(lambda: weights(site)[1] == 0)
                second[0] = b"ready 100%\n"
                until(lambda: weights(site)[1] > 0)
            until(lambda: site.status()["services"][0]["destinations"][1]["state"] == "stale")
            assert weights(site)[1] > 0  # gone is not down

    def ratio() -> float:
        one, two = weights(site)
        return one / two if two > 0 else 0.0

    run(site, work)
