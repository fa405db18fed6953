"""Words on sessions on real sockets: from one agent's application over a master to where another one's reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
import zmq

from feedback import wire
from feedback.agent.desk import SPEAKERS_MAX, Desk
from feedback.agent.signals.files import SignalError
from feedback.config import MasterLink
from feedback.master.shell.link import Link
from feedback.master.standins import StandIns
from feedback.ops import keys
from feedback.ops.logs import Log
from feedback.sessions import KEPT_SECONDS, Sessions

DEADLINE_SECONDS = 60.0
PLAN = {(ip_address("10.0.0.11"), 80): frozenset({ip_address("10.0.0.14")})}
RIPS = {"rs1": "10.0.0.11", "rs2": "10.0.0.12", "rs4": "10.0.0.14"}


class Site:
    """A master's link and the desks of its agents."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.words = directory / "words"
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.desks: list[Desk] = []
        for name in ("master", *RIPS):
            keys.create(directory / name)
        for name, rip in RIPS.items():
            keys.enroll(directory / "agents", name, keys.read_public(directory / f"{name}.key"), (rip,))

    @contextlib.asynccontextmanager
    async def link(self, endpoint: str = "tcp://127.0.0.1:0") -> AsyncIterator[Link]:
        pair = keys.load_secret(self.directory / "master.key_secret")
        hear = StandIns(PLAN).hear
        link = Link(
            [endpoint], pair, self.directory / "agents", lambda reports: [None for _ in reports], on_sessions=hear
        )
        link.open()
        try:
            yield link
        finally:
            link.close()

    def desk(self, link: Link, key: str, own: Sessions | None = None, *, name: str = "", words: bool = False) -> Desk:
        master = MasterLink(endpoint=link.endpoints[0], public_key=keys.read_public(self.directory / "master.key"))
        pair = keys.load_secret(self.directory / f"{key}.key_secret")
        directory = self.words if words else None
        self.desks.append(Desk(name or key, (master,), pair, self.context, Log("test"), own, directory))
        return self.desks[-1]

    def read(self, port: int = 80) -> dict[str, str]:
        path = self.words / f"{port}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    async def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"never happened: {what}"
            for desk in self.desks:
                desk.turn(time.monotonic())
            await asyncio.sleep(0.01)

    def close(self) -> None:
        for desk in self.desks:
            desk.close()
        self.context.term()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def test_a_stand_in_reads_the_last_word_of_each_session(site: Site) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            own = Sessions()
            site.desk(link, "rs1", own)
            site.desk(link, "rs4", words=True)
            for i in range(3):
                own.hear(80, "u7", str(i), time.monotonic())
                await site.until(lambda i=i: site.read() == {"u7": str(i)}, f"word {i}")
            own.hear(80, "u8", "\u00e4", time.monotonic())
            await site.until(lambda: site.read() == {"u7": "2", "u8": "\u00e4"}, "a second session")

    asyncio.run(scenario())


def test_who_comes_after_the_server_has_died_is_told_all(site: Site) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            own = Sessions()
            desk = site.desk(link, "rs1", own)
            for i in range(120):  # more than one message
                own.hear(80, f"u{i}", "x" * 200, time.monotonic())
            await site.until(lambda: link.counters["sessions"] >= 4, "that it is there, and three messages of words")
            desk.close()
            site.desks.clear()
            site.desk(link, "rs4", words=True)
            await site.until(lambda: len(site.read()) == 120, "all of them")

    asyncio.run(scenario())


def test_a_master_that_comes_back_is_told_and_tells(site: Site) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            endpoint = link.endpoints[0]
            own = Sessions()
            site.desk(link, "rs1", own)
            site.desk(link, "rs4", words=True)
            own.hear(80, "u7", "1", time.monotonic())
            await site.until(lambda: site.read() == {"u7": "1"}, "the first word")
        async with site.link(endpoint):
            own.hear(80, "u7", "2", time.monotonic())
            await site.until(lambda: site.read() == {"u7": "2"}, "the second word, from another life of the master")

    asyncio.run(scenario())


def test_nobody_says_words_of_another_agent(site: Site) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            own = Sessions()
            site.desk(link, "rs2", own, name="rs1")
            site.desk(link, "rs4", words=True)
            own.hear(80, "u7", "forged", time.monotonic())
            await site.until(lambda: link.counters["foreign"], "the refusal")
            await site.until(lambda: link.counters["sessions"], "what the stand-in says")
            assert site.read() == {}

    asyncio.run(scenario())


def test_what_is_revoked_hears_no_more(site: Site) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            own = Sessions()
            site.desk(link, "rs1", own)
            site.desk(link, "rs4", words=True)
            own.hear(80, "u7", "1", time.monotonic())
            await site.until(lambda: site.read() == {"u7": "1"}, "the first word")
            keys.revoke(site.directory / "agents", "rs4")
            link.reload()
            own.hear(80, "u7", "2", time.monotonic())
            before = link.counters["sessions"]
            await site.until(lambda: link.counters["sessions"] > before, "the second word at the master")
            for _ in range(20):
                await site.until(lambda: True, "")
                site.desks[1].turn(time.monotonic())
                await asyncio.sleep(0.01)
            assert site.read() == {"u7": "1"}

    asyncio.run(scenario())


def test_words_from_before_a_start_are_gone_and_old_ones_go(site: Site, tmp_path: Path) -> None:
    site.words.mkdir()
    (site.words / "80.json").write_text('{"u7": "stale"}')
    (site.words / "notes.json").write_text("the operator's")
    desk = Desk("rs4", (), keys.load_secret(tmp_path / "rs4.key_secret"), site.context, Log("test"), None, site.words)
    assert sorted(path.name for path in site.words.iterdir()) == ["notes.json"]
    desk.turn(0.0)
    desk._hear(wire.encode(wire.Sessions(wire.PROTOCOL, "rs1", (wire.Session(80, "u7", "1"),))))
    desk.turn(1.0)
    assert site.read() == {"u7": "1"}
    desk.turn(KEPT_SECONDS + 2)
    assert site.read() == {}
    assert sorted(path.name for path in site.words.iterdir()) == ["80.json", "notes.json"]


def test_a_hostile_master_fills_neither_memory_nor_log(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = Desk("rs4", (), keys.load_secret(tmp_path / "rs4.key_secret"), site.context, Log("test"), None, site.words)
    for data in (b"\x90", b"\x93\x01\xa3rs1\x91", b"\x93\x63\xa3rs1\x90", b"\x93\x01\xa3r\x1bm\x90"):
        desk._hear(data)
    for i in range(100):
        desk._hear(wire.encode(wire.Sessions(wire.PROTOCOL, f"s{i}", (wire.Session(i, "u7", "1"),))))
    assert len(desk._speakers) == SPEAKERS_MAX
    assert capsys.readouterr().err.count("\n") < 10


def test_a_directory_that_cannot_be_made_is_reported(site: Site, tmp_path: Path) -> None:
    with pytest.raises(SignalError, match="no/such: cannot be used for sessions: No such file"):
        Desk("rs4", (), keys.load_secret(tmp_path / "rs4.key_secret"), site.context, Log("test"), None,
             tmp_path / "no" / "such")  # fmt: skip


def test_what_cannot_be_written_is_said_once_and_written_when_it_can_be(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = Desk("rs4", (), keys.load_secret(tmp_path / "rs4.key_secret"), site.context, Log("test"), None, site.words)
    desk._hear(wire.encode(wire.Sessions(wire.PROTOCOL, "rs1", (wire.Session(80, "u7", "1"),))))
    site.words.rmdir()
    for now in (1.0, 2.0, 3.0):
        desk.turn(now)
    assert capsys.readouterr().err.count("sessions-failed") == 1
    site.words.mkdir()
    desk.turn(4.0)
    assert site.read() == {"u7": "1"}
    assert [path.name for path in site.words.iterdir()] == ["80.json"]
