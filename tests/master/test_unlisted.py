"""A service that left the file: it is said, removed where that is asked for, and never taken for ours if it is not."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from feedback.config import ConfigError, MasterConfig, parse
from feedback.ipvs import FakeKernel
from feedback.master import Controller
from feedback.master.state import State, decode, encode
from feedback.model import AddDestination, AddService, Destination, RemoveService, Service, ServiceKey
from feedback.ops.control import ask
from tests.master.builders import VIRTUAL, rip
from tests.master.test_daemon import Site, run, until
from tests.ports import free_port

OTHER = ServiceKey.parse("udp:10.0.0.100:53")
STRANGE = ServiceKey.parse("tcp:10.0.0.200:80")


def config(*keys: ServiceKey, extra: str = "", ownership: str = "table") -> MasterConfig:
    services = "".join(
        f'[[service]]\nvirtual = "{key}"\n[[service.destination]]\naddress = "{rip(1).address}"\n' for key in keys
    )
    return parse(f'ownership = "{ownership}"\n{extra}\n{services}', MasterConfig)


class Director:
    def __init__(self, *keys: ServiceKey, extra: str = "", ownership: str = "table") -> None:
        self.kernel, self.now = FakeKernel(), 1000.0
        self.kernel.apply([AddService(Service(STRANGE)), AddDestination(STRANGE, Destination(rip(1)))])
        self.controller = Controller(config(*keys, extra=extra, ownership=ownership))
        self.turn()

    def turn(self, times: int = 3) -> None:
        for _ in range(times):
            self.now += 0.2
            self.controller.receive_kernel(self.kernel.snapshot(), self.now)
            self.kernel.apply(self.controller.decide(self.now).edits)

    def services(self) -> set[ServiceKey]:
        return {entry.service.key for entry in self.kernel.snapshot().services}

    def restart(self, *keys: ServiceKey, extra: str = "") -> None:
        state = decode(encode(self.controller.state()))
        self.controller = Controller(config(*keys, extra=extra))
        self.controller.restore(state)
        self.turn()


def test_it_stays_with_its_weights_and_is_named_until_somebody_removes_it() -> None:
    director = Director(VIRTUAL, OTHER)
    director.controller.reconfigure(config(VIRTUAL))
    director.turn()
    assert director.services() == {VIRTUAL, OTHER, STRANGE}
    assert director.controller.left == (OTHER,)
    director.restart(VIRTUAL)
    assert director.controller.left == (OTHER,)
    director.kernel.apply([RemoveService(OTHER)])
    director.turn()
    assert director.controller.left == ()


@pytest.mark.parametrize("restarted", [False, True])
def test_remove_unlisted_removes_what_was_ours_and_nothing_else(restarted: bool) -> None:
    director = Director(VIRTUAL, OTHER)
    if restarted:
        director.restart(VIRTUAL, extra="remove_unlisted = true")
    else:
        director.controller.reconfigure(config(VIRTUAL, extra="remove_unlisted = true"))
        director.turn()
    assert director.services() == {VIRTUAL, STRANGE}
    director.kernel.apply([AddService(Service(OTHER))])  # somebody else's, from now on
    director.turn()
    assert OTHER in director.services()


def test_what_comes_back_into_the_file_is_no_longer_left() -> None:
    director = Director(VIRTUAL, OTHER)
    director.controller.reconfigure(config(VIRTUAL))
    director.turn()
    director.controller.reconfigure(config(VIRTUAL, OTHER, extra="remove_unlisted = true"))
    director.turn()
    assert (director.controller.left, director.services()) == ((), {VIRTUAL, OTHER, STRANGE})


def test_what_was_adopted_was_never_ours() -> None:
    director = Director(VIRTUAL, ownership="weights")
    assert director.controller.state().made == ()
    director.controller.reconfigure(config(VIRTUAL, extra="remove_unlisted = true"))
    director.turn()
    assert director.services() == {VIRTUAL, STRANGE}


def test_what_is_handed_to_another_owner_is_his() -> None:
    director = Director(VIRTUAL, OTHER)
    director.controller.reconfigure(config(VIRTUAL, ownership="weights"))
    director.controller.reconfigure(config(VIRTUAL, extra="remove_unlisted = true"))
    director.turn()
    assert director.services() == {VIRTUAL, OTHER, STRANGE}


def test_a_state_of_before_names_nothing_as_ours() -> None:
    director = Director(VIRTUAL, extra="remove_unlisted = true")
    director.controller.restore(decode(encode(State())))
    director.turn()
    assert director.services() == {VIRTUAL, STRANGE}


def test_a_made_service_that_does_not_parse_is_dropped_alone() -> None:
    assert decode(b'{"made": ["tcp:10.0.0.1:80", "nonsense", 7]}').made == ("tcp:10.0.0.1:80",)
    assert decode(b'{"made": 7}').made == ()


def test_removing_what_another_owner_made_is_refused() -> None:
    with pytest.raises(ConfigError, match="remove_unlisted: is for ownership"):
        config(VIRTUAL, extra="remove_unlisted = true", ownership="weights")


def test_the_daemon_says_it_at_the_reload_with_the_command_and_removes_it_where_asked(tmp_path: Path) -> None:
    site = Site(tmp_path, free_port(), FakeKernel())
    one = site.config.read_text()
    two = one + f'[[service]]\nvirtual = "{OTHER}"\n[[service.destination]]\naddress = "{rip(1).address}"\n'
    site.config.write_text(two)

    def events(kind: str) -> list[dict[str, object]]:
        return [e for e in ask(site.control, {"command": "events"})["events"] if e["kind"] == kind]

    def work() -> None:
        until(lambda: len(site.kernel.snapshot().services) == 2)
        site.config.write_text(one)
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: bool(events("service-left")))
        said = events("service-left")
        assert [(e["service"], e["mend"]) for e in said] == [(str(OTHER), "ipvsadm -D -u 10.0.0.100:53")]
        until(lambda: site.status()["left"] == [str(OTHER)])
        site.config.write_text("remove_unlisted = true\n" + one)
        os.kill(os.getpid(), signal.SIGHUP)
        until(lambda: len(site.kernel.snapshot().services) == 1)
        until(lambda: [e["service"] for e in events("service-removed")] == [str(OTHER)])
        until(lambda: site.status()["left"] == [])

    run(site, work)
