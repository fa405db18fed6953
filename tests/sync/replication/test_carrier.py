"""Both ends of replication in one process: a relay that is a pair of lists, and kernels that are models.

What needs the kernel's sync threads is in test_replication.py and test_daemon.py; here are the session's order, the
services, the state file and the change of roles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from feedback.ipvs import FakeKernel, text
from feedback.ipvs.difference import of_snapshot
from feedback.sync.replication import carrier as module
from feedback.sync.replication import messages
from feedback.sync.replication.carrier import LINGER_SECONDS, Carrier

RULES = "-A -t 10.0.0.100:80 -s sed\n-a -t 10.0.0.100:80 -r 10.0.0.11:80 -g -w 5\n"
CHANGE = "-e -t 10.0.0.100:80 -r 10.0.0.11:80 -g -w 9\n"
DEADLINE_SECONDS = 60.0


class Wire:
    """Messages between two carriers, as the relay carries them: in order, or not at all."""

    def __init__(self) -> None:
        self.ends: dict[str, Carrier] = {}
        self.cut = False
        self.queue: list[Callable[[], None]] = []

    def end(self, name: str, peer: str) -> _End:
        return _End(self, name, peer)

    def deliver(self) -> None:
        queue, self.queue = self.queue, []
        for message in queue:
            message()


class _End:
    def __init__(self, wire: Wire, name: str, peer: str) -> None:
        self.wire, self.name, self.peer, self.endpoint = wire, name, peer, None

    def follow(self, endpoint: str | None) -> None:
        self.endpoint = endpoint

    def ask(self, message: bytes) -> bool:
        if self.endpoint is None or self.wire.cut:
            return False
        self.wire.queue.append(lambda: self.wire.ends[self.peer].on_request(self.name.encode(), message))
        return True

    def answer(self, route: bytes, message: bytes) -> bool:
        if self.wire.cut:
            return False
        self.wire.queue.append(lambda: self.wire.ends[self.peer].on_stream(message))
        return True


class Site:
    def __init__(self, directory: Path, rules: str = RULES) -> None:
        self.wire = Wire()
        self.now = 100.0
        self.heard: dict[str, tuple[bool, bytes]] = {}
        self.kernels = {"d1": FakeKernel(), "d2": FakeKernel()}
        assert self.kernels["d1"].apply(text.parse(rules)) == ()
        self.states = {name: directory / f"{name}.json" for name in self.kernels}
        for name, kernel in self.kernels.items():
            peer = "d2" if name == "d1" else "d1"
            made = Carrier(
                name,
                kernel,
                None,
                mirror=True,
                master_state=self.states[name],
                hear_tracking=partial(self._hear, name),
                clock=lambda: self.now,
            )
            self.wire.ends[name] = made
            made.open(self.wire.end(name, peer))
        self.d1, self.d2 = self.wire.ends["d1"], self.wire.ends["d2"]

    def _hear(self, name: str, tracks: bool, data: bytes) -> None:
        self.heard[name] = tracks, data

    async def turn(self, seconds: float = 0.02) -> None:
        self.now += seconds
        for end in self.wire.ends.values():
            end.turn(self.now)
        self.wire.deliver()
        await asyncio.sleep(0.001)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():
                await self.turn()

    def state(self, name: str) -> str:
        return str(self.wire.ends[name].status(self.now)["state"])

    def table(self, name: str) -> object:
        return of_snapshot(self.kernels[name].snapshot())

    async def replicated(self) -> None:
        self.d1.lead()
        self.d2.follow("tcp://d1")
        await self.until(lambda: self.state("d2") == "complete")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIRROR_SECONDS", 0.01)


def run(directory: Path, scenario: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
    async def all_of_it() -> None:
        site = Site(directory)
        try:
            await scenario(site)
        finally:
            for end in site.wire.ends.values():
                end.close()

    asyncio.run(all_of_it())


def test_the_standby_gets_services_and_state_and_follows_their_changes(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        site.states["d1"].write_text("learned")
        await site.replicated()
        assert site.table("d2") == site.table("d1")
        assert site.states["d2"].read_text() == "learned"
        assert site.kernels["d1"].apply(text.parse(CHANGE)) == ()
        await site.until(lambda: site.table("d2") == site.table("d1"))
        site.states["d1"].unlink()
        site.states["d1"].write_text("learned more")
        await site.until(lambda: site.states["d2"].read_text() == "learned more")

    run(tmp_path, scenario)


def test_each_director_hears_of_the_others_connection_tracking(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        await site.replicated()
        assert site.heard == {"d1": (False, b""), "d2": (False, b"")}
        site.d1.tell_tracking(True, b"some")
        await site.until(lambda: site.heard["d2"] == (True, b"some"))
        site.d2.tell_tracking(True, b"none of its own")
        await site.until(lambda: site.heard["d1"] == (True, b""))
        await site.until(lambda: site.state("d2") == "complete")
        assert site.d2.status(site.now)["sessions"] == 2  # it is said at the beginning of one
        assert site.heard["d2"] == (True, b"some")

    run(tmp_path, scenario)


def test_whoever_sees_complete_is_told_how_long_it_took(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        await site.replicated()
        assert site.d2.status(site.now)["took_seconds"] is not None

    run(tmp_path, scenario)


def test_an_edit_on_the_standby_is_undone_and_counted(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        await site.replicated()
        assert site.kernels["d2"].apply(text.parse(CHANGE)) == ()
        await site.until(lambda: site.table("d2") == site.table("d1"))
        assert site.d2.status(site.now)["counters"]["mirror_mended"] >= 1

    run(tmp_path, scenario)


def test_a_cut_wire_is_behind_and_a_new_session_makes_it_complete_again(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        await site.replicated()
        site.wire.cut = True
        await site.until(lambda: site.state("d2") == "behind")
        assert site.kernels["d1"].apply(text.parse(CHANGE)) == ()
        site.wire.cut = False
        await site.until(lambda: site.state("d2") == "complete")
        assert site.table("d2") == site.table("d1")
        assert site.d2.status(site.now)["sessions"] >= 2

    run(tmp_path, scenario)


def test_who_is_not_active_serves_nobody(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        site.d2.follow("tcp://d1")
        for _ in range(20):
            await site.turn()
        assert site.state("d2") == "behind" and "not the active one" in site.d2.status(site.now)["reason"]
        assert site.table("d2") == {}

    run(tmp_path, scenario)


def test_after_a_takeover_nothing_of_the_old_active_one_changes_the_table(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        await site.replicated()
        site.d2.lead()
        assert site.kernels["d1"].apply(text.parse(CHANGE)) == ()
        before = site.table("d2")
        for _ in range(10):
            await site.turn()
        assert site.table("d2") == before
        await site.turn(LINGER_SECONDS)
        await site.turn()
        assert site.state("d2") == "original" and site.d2.following is None
        site.d1.follow("tcp://d2")
        await site.until(lambda: site.state("d1") == "complete")
        assert site.table("d1") == before

    run(tmp_path, scenario)


def test_a_resync_is_for_the_standby(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        await site.replicated()
        assert site.d1.resync() == "this director follows nobody: ask the standby"
        assert site.d2.resync() is None
        await site.until(lambda: site.state("d2") == "complete" and site.d2.status(site.now)["sessions"] == 2)

    run(tmp_path, scenario)


def test_a_handover_waits_until_the_standby_has_everything(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        assert await site.d1.settle() == "no standby follows"
        await site.replicated()
        settled = asyncio.create_task(site.d1.settle())
        await site.until(settled.done)
        assert settled.result() is None

    run(tmp_path, scenario)


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, messages.encode(messages.Hello(99, "x", 1))[:-1], bytes(5000)])
def test_noise_has_no_effect_and_is_counted(tmp_path: Path, data: bytes) -> None:
    async def scenario(site: Site) -> None:
        await site.replicated()
        site.d1.on_request(b"d2", data)
        site.d2.on_stream(data)
        for _ in range(5):
            await site.turn()
        assert site.state("d2") == "complete"
        for end in (site.d1, site.d2):
            assert sum(n for kind, n in end.status(site.now)["counters"].items() if kind.startswith("refused_")) == 1

    run(tmp_path, scenario)


def test_a_peer_of_another_version_is_told_apart(tmp_path: Path) -> None:
    async def scenario(site: Site) -> None:
        site.d1.lead()
        site.d1.on_request(b"d2", messages.encode(messages.Hello(99, "x", 1)))
        assert site.d1.status(site.now)["counters"] == {"refused_version": 1}

    run(tmp_path, scenario)


class Breaks:
    """A kernel that raises what nobody expects, as often as it is told to."""

    def __init__(self, kernel: FakeKernel) -> None:
        self.kernel, self.times = kernel, 0

    def snapshot(self) -> object:
        if self.times:
            self.times -= 1
            raise KeyError("a fault")
        return self.kernel.snapshot()


def test_a_fault_in_a_session_ends_it_with_a_reason_and_the_next_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(site: Site) -> None:
        breaks = Breaks(site.kernels["d1"])
        monkeypatch.setattr(site.d1._out, "_kernel", breaks)
        breaks.times = 1
        site.d1.lead()
        site.d2.follow("tcp://d1")
        await site.until(lambda: "a fault of this director: KeyError" in str(site.d2.status(site.now)["reason"]))
        assert site.d1.status(site.now)["counters"]["faults"] == 1
        await site.until(lambda: site.state("d2") == "complete")

    run(tmp_path, scenario)


def test_a_fault_in_a_turn_of_the_mirror_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(site: Site) -> None:
        await site.replicated()
        breaks = Breaks(site.kernels["d1"])
        monkeypatch.setattr(site.d1._out, "_kernel", breaks)
        breaks.times = 3
        await site.until(lambda: breaks.times == 0)
        assert site.kernels["d1"].apply(text.parse(CHANGE)) == ()
        await site.until(lambda: site.table("d1") == site.table("d2"))
        assert site.d1.status(site.now)["counters"]["mirror_failed"] >= 3

    run(tmp_path, scenario)
