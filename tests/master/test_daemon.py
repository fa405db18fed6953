"""The shell around the pipeline: real sockets, real keys, a real agent's frames, and a kernel that is a model."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from feedback.ipvs import FakeKernel, NoIpvs
from feedback.master.shell.daemon import Daemon
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationEntry,
    Service,
    ServiceKey,
    SetDestination,
)
from feedback.ops import keys
from feedback.ops.control import ControlError, ask
from feedback.ops.role import Role, RoleFile, RoleSaid
from feedback.wire import encode
from tests.master.builders import VIRTUAL, report, rip
from tests.ports import free_port

DEADLINE_SECONDS = 60.0


class Site:
    """A director's files in a directory, with two enrolled agents, and the sockets of these agents."""

    def __init__(self, directory: Path, port: int, kernel: FakeKernel) -> None:
        self.directory, self.port, self.kernel = directory, port, kernel
        self.control = directory / "s.sock"
        self.config = directory / "master.toml"
        _, self.secret, self.public = keys.create(directory / "master")
        for i in (1, 2):
            _, _, public = keys.create(directory / f"rs{i}")
            keys.enroll(directory / "agents", f"rs{i}", public, (str(rip(i).address),))
        self.write()

    def write(self, extra: str = "") -> None:
        self.config.write_text(
            f'listen = ["tcp://127.0.0.1:{self.port}"]\nkey = "{self.secret}"\nenrolled = "{self.directory}/agents"\n'
            f'control = "{self.control}"\nstate = "{self.directory}/state.json"\ninterval_seconds = 0.05\n{extra}\n'
            f'[[service]]\nvirtual = "{VIRTUAL}"\n'
            + "".join(f'[[service.destination]]\naddress = "{rip(i).address}"\n' for i in (1, 2))
        )

    def weights(self) -> list[int]:
        entry = self.kernel.snapshot().entry(VIRTUAL)
        return [entry.entry(rip(i)).destination.weight for i in (1, 2)] if entry else []  # type: ignore[union-attr]

    def status(self) -> dict[str, Any]:
        return ask(self.control, {"command": "status"})

    def answers(self) -> bool:
        """The socket's file is there a moment before anybody listens."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.control)) == 0

    def report(self, context: zmq.Context[Any], seconds: float = 3.0) -> None:
        """Two servers, one three times as fast, at half their capacity."""
        sockets = []
        for i in (1, 2):
            pair = keys.load_secret(self.directory / f"rs{i}.key_secret")
            s = context.socket(zmq.DEALER)
            s.linger = 0
            s.curve_publickey, s.curve_secretkey = pair.public.encode(), pair.secret
            s.curve_serverkey = self.public.encode()
            s.connect(f"tcp://127.0.0.1:{self.port}")
            sockets.append(s)
        for k in range(1, round(seconds / 0.1)):
            for i, s in enumerate(sockets, 1):
                speed = 100 if i == 1 else 300
                s.send(encode(report(i, at=k / 10, sequence=k, busy=k * 0.05, opened=k * speed // 20)))
            time.sleep(0.1)
        for s in sockets:
            s.close()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, free_port(), FakeKernel())


def run(site: Site, work: Callable[[], None]) -> None:
    """The daemon in this thread's loop, the work beside it; then SIGTERM, as systemd would."""

    async def both() -> None:
        daemon = asyncio.create_task(Daemon(site.config, lambda netns: site.kernel).run())
        try:
            await asyncio.to_thread(until, site.answers)
            await asyncio.to_thread(work)
        finally:
            if not daemon.done():
                os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(daemon, DEADLINE_SECONDS)

    asyncio.run(both())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def test_reports_become_weights_and_stopping_leaves_them(site: Site) -> None:
    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        with zmq.Context() as context:
            site.report(context)
        assert site.weights()[1] / site.weights()[0] == pytest.approx(3, rel=0.3)
        destinations = site.status()["services"][0]["destinations"]
        assert [d["state"] for d in destinations] == ["fresh", "fresh"]
        assert site.status()["counters"]["link_accepted"] > 20

    run(site, work)
    assert site.weights()[1] / site.weights()[0] == pytest.approx(3, rel=0.3)
    assert not site.control.exists()


def test_a_bad_configuration_at_reload_changes_nothing_and_a_good_one_is_taken(site: Site) -> None:
    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        site.config.write_text("nonsense")
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.3)
        assert len(site.status()["services"]) == 1
        site.write()
        site.config.write_text(site.config.read_text() + '[[service]]\nvirtual = "udp:10.0.0.100:53"\n')
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: len(site.kernel.snapshot().services) == 2)
        assert site.weights() == [100, 100]

    run(site, work)


def test_somebody_elses_zero_stays_and_is_counted(site: Site) -> None:
    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        destination = site.kernel.snapshot().entry(VIRTUAL).entry(rip(1)).destination  # type: ignore[union-attr]
        zero = type(destination)(destination.key, 0, destination.forward)
        site.kernel.apply([SetDestination(VIRTUAL, zero)])
        until(lambda: site.status()["counters"].get("foreign_edits", 0) > 0)
        time.sleep(0.3)
        assert site.weights() == [0, 100]
        assert site.status()["counters"]["foreign_edits"] == 1
        assert site.status()["services"][0]["destinations"][0]["state"] == "quiesced"

    run(site, work)


def test_an_owner_who_writes_while_we_decide_is_not_overwritten(site: Site) -> None:
    """His zero falls between our look and our write: the look just before the write finds it."""
    site.config.write_text(
        site.config.read_text().split("[[service]]")[0].replace("interval", 'ownership = "weights"\ninterval')
    )
    theirs = [Destination(rip(i), 10) for i in (1, 2)]
    site.kernel.apply([AddService(Service(VIRTUAL, "sed")), *(AddDestination(VIRTUAL, d) for d in theirs)])
    plain, zeroed = site.kernel.destinations, []

    def meanwhile(service: ServiceKey) -> tuple[DestinationEntry, ...]:
        if not zeroed:
            zeroed.append(1)
            site.kernel.apply([SetDestination(VIRTUAL, Destination(rip(1), 0))])
        return plain(service)

    site.kernel.destinations = meanwhile  # type: ignore[method-assign]

    def work() -> None:
        until(lambda: answers(site))
        with zmq.Context() as context:
            site.report(context)
        assert zeroed, "nothing was written at all"
        assert site.weights()[0] == 0
        events = ask(site.control, {"command": "events"})["events"]
        assert [(e["what"], e["theirs"]) for e in events if e["kind"] == "foreign-edit"] == [("weight", 0)]

    run(site, work)


def test_a_standby_writes_nothing_and_goes_on_with_what_the_active_one_left(site: Site) -> None:
    role = RoleFile(site.directory / "role.json")
    site.write(f'role = "{site.directory}/role.json"')

    def work() -> None:
        time.sleep(0.3)
        assert site.kernel.snapshot().services == ()
        with pytest.raises(ControlError, match="ask the active one"):
            site.status()
        # What the sync daemon mirrors from the active one: its services with their weights.
        wanted = [Destination(rip(i), weight) for i, weight in ((1, 500), (2, 1500))]
        mirrored = [AddService(Service(VIRTUAL, "sed")), *(AddDestination(VIRTUAL, d) for d in wanted)]
        assert site.kernel.apply(mirrored) == ()
        role.write(RoleSaid(Role.ACTIVE, "d1 is dead", "d1", 2))
        until(lambda: answers(site))
        time.sleep(0.3)
        assert site.weights()[1] / site.weights()[0] == pytest.approx(3, rel=0.05)
        role.write(RoleSaid(Role.ACTIVE, "d1 is dead", "d1", 2, lacking=9))
        until(lambda: site.status()["connections_lacking"] == 9)
        events = ask(site.control, {"command": "events"})["events"]
        assert [e["role"] for e in events if e["kind"] == "role"] == ["standby", "active"]
        role.write(RoleSaid(Role.STANDBY, "yielded", "d1", 3))
        until(lambda: not answers(site))

    run(site, work)


def test_what_the_peer_wrote_while_it_was_active_for_less_than_a_turn_is_nobodys_foreign_edit(site: Site) -> None:
    role = RoleFile(site.directory / "role.json")
    site.write(f'role = "{site.directory}/role.json"')
    plain, blinks = site.kernel.snapshot, []

    def blink() -> Any:
        found = plain()
        if blinks == [1]:  # once, after a look
            blinks.append(2)
            site.kernel.apply([SetDestination(VIRTUAL, Destination(rip(1), 70))])
            role.write(RoleSaid(Role.ACTIVE, "d2 is dead", "d2", 4))
        return found

    site.kernel.snapshot = blink  # type: ignore[method-assign]

    def work() -> None:
        role.write(RoleSaid(Role.ACTIVE, "d2 is dead", "d2", 2))
        until(lambda: site.weights() == [100, 100])
        blinks.append(1)
        until(lambda: blinks == [1, 2])
        time.sleep(0.3)
        assert "foreign-edit" not in [e["kind"] for e in ask(site.control, {"command": "events"})["events"]]
        assert site.weights()[0] == 70

    run(site, work)


def answers(site: Site) -> bool:
    try:
        return bool(site.status())
    except ControlError:
        return False


def test_an_unknown_command_is_refused(site: Site) -> None:
    def work() -> None:
        with pytest.raises(Exception, match="unknown command 'flush'"):
            ask(site.control, {"command": "flush"})

    run(site, work)


def test_a_kernel_that_fails_for_a_while_is_asked_again(site: Site) -> None:
    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        whole, site.kernel.snapshot = site.kernel.snapshot, fail  # type: ignore[method-assign]
        until(lambda: failed)
        site.kernel.snapshot = whole  # type: ignore[method-assign]
        until(lambda: site.status()["counters"].get("ipvs_errors", 0) > 0)
        with zmq.Context() as context:
            site.report(context)
        assert site.weights()[1] > 2 * site.weights()[0]

    failed = []

    def fail() -> Any:
        failed.append(1)
        raise NoIpvs("gone")

    run(site, work)


def test_a_state_that_cannot_be_read_is_put_aside_and_said(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    path = site.directory / "state.json"
    path.write_text("{nonsense")

    def work() -> None:
        until(lambda: site.weights() == [100, 100])

    run(site, work)
    assert path.with_suffix(".bad").read_text() == "{nonsense"
    assert "state-refused" in capfd.readouterr().err
    assert path.exists()
