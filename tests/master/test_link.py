"""The link on real sockets: who gets in, what is refused, and that nothing old arrives."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from socket import IPPROTO_TCP, SO_KEEPALIVE, SOL_SOCKET, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL
from socket import socket as tcp_socket
from typing import Any

import msgspec
import psutil
import pytest
import zmq

from feedback import wire
from feedback.agent.uplink import State, Uplink
from feedback.config import MasterLink
from feedback.master.shell.admission import BURST
from feedback.master.shell.link import Link
from feedback.ops import curve, keys
from feedback.ops.curve import CurveError
from feedback.ops.keys import KeyPair
from feedback.ops.logs import Log
from feedback.ops.process import die_with_parent
from feedback.ops.sessions import KEY_SESSIONS
from tests.ops.exhausted import exhausted

DEADLINE_SECONDS = 60.0
REPORT = wire.Report(
    version=wire.PROTOCOL,
    agent="rs1",
    boot="a",
    sequence=0,
    sampled_at=1.0,
    interval_seconds=0.2,
    addresses=("10.0.0.11",),
    cpu=wire.Cpu(cores=2, busy_seconds=100.0),
    memory=wire.Memory(total=2**33, available=2**32),
)


def report(sequence: int, **changes: Any) -> bytes:
    return wire.encode(msgspec.structs.replace(REPORT, sequence=sequence, **changes))


class Site:
    """A director's and some agents' keys, and what the link delivered."""

    def __init__(self, directory: Path) -> None:
        self.enrolled = directory / "agents"
        self.master = self.make(directory / "master")
        self.rs1 = self.make(directory / "rs1")
        self.rs2 = self.make(directory / "rs2")
        self.stranger = self.make(directory / "stranger")
        self.enroll("rs1", self.rs1, "10.0.0.11")
        self.enroll("rs2", self.rs2, "10.0.0.12")
        self.got: list[wire.Report] = []

    @staticmethod
    def make(path: Path) -> KeyPair:
        return keys.load_secret(keys.create(path)[1])

    def enroll(self, name: str, pair: KeyPair, *addresses: str) -> None:
        keys.enroll(self.enrolled, name, pair.public, addresses)

    @asynccontextmanager
    async def link(
        self, endpoint: str = "tcp://127.0.0.1:0", clock: Callable[[], float] = time.monotonic
    ) -> AsyncIterator[Link]:
        link = Link(
            [endpoint], self.master, self.enrolled, lambda reports: [self.got.append(r) for r, _ in reports], clock
        )
        link.open()
        try:
            yield link
        finally:
            link.close()

    def public(self, endpoint: str) -> MasterLink:
        return MasterLink(endpoint=endpoint, public_key=self.master.public)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


class Peers:
    """A context, and the sockets made with it, all closed at the end."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []
        self._uplinks: list[Uplink] = []

    def socket(self) -> zmq.Socket[bytes]:
        self._sockets.append(self.context.socket(zmq.DEALER))
        return self._sockets[-1]

    def uplink(self, link: MasterLink, pair: KeyPair) -> Uplink:
        self._uplinks.append(Uplink(self.context, link, pair, Log("test")))
        return self._uplinks[-1]

    def close(self) -> None:
        for uplink in self._uplinks:
            uplink.close()
        for socket in self._sockets:
            socket.close(linger=0)
        self.context.term()


@pytest.fixture
def peers() -> Iterator[Peers]:
    made = Peers()
    yield made
    made.close()


def dealer(peers: Peers, site: Site, link: Link, pair: KeyPair) -> zmq.Socket[bytes]:
    """A peer that does as it likes: no CONFLATE, no manners."""
    socket = peers.socket()
    socket.curve_publickey, socket.curve_secretkey = pair.public.encode(), pair.secret
    socket.curve_serverkey = site.master.public.encode()
    socket.connect(link.endpoints[0])
    return socket


def try_to_send(socket: zmq.Socket[bytes], data: bytes) -> None:
    """Of a peer whose handshake is refused, perhaps already: then it has nowhere to send, and would wait for ever."""
    with contextlib.suppress(zmq.Again):
        socket.send(data, zmq.NOBLOCK)


async def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        await asyncio.sleep(0.01)


async def reply(socket: zmq.Socket[bytes]) -> wire.Reply:
    await until(lambda: socket.poll(0), "a reply")
    return wire.decode_reply(socket.recv())


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def test_an_enrolled_agents_report_arrives_and_its_first_is_answered(site: Site, peers: Peers) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            agent = dealer(peers, site, link, site.rs1)
            agent.send(report(0))
            assert (await reply(agent)).accepted
            agent.send(report(1))
            await until(lambda: len(site.got) == 2, "the second report")
            assert not agent.poll(50), "only the first is answered"
            assert link.counters == {"accepted": 2}

    run(scenario())


def test_an_unknown_key_is_refused(site: Site, peers: Peers) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            try_to_send(dealer(peers, site, link, site.stranger), report(0))
            await until(lambda: link.counters["unknown_key"], "the refusal")
            await asyncio.sleep(0.1)
            assert site.got == []

    run(scenario())


def plain(socket: zmq.Socket[bytes]) -> None:
    socket.plain_username, socket.plain_password = b"rs1", b"secret"


@pytest.mark.parametrize("mechanism", [lambda socket: None, plain], ids=["null", "plain"])
def test_mechanisms_other_than_curve_are_refused(
    site: Site, peers: Peers, mechanism: Callable[[zmq.Socket[bytes]], None]
) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            peer = peers.socket()
            mechanism(peer)
            peer.connect(link.endpoints[0])
            try_to_send(peer, report(0))
            await until(lambda: link.counters["handshake"], "the refusal")
            await asyncio.sleep(0.1)
            assert site.got == []

    run(scenario())


def test_another_masters_public_key_is_refused(site: Site, peers: Peers) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            peer = peers.socket()
            peer.curve_publickey, peer.curve_secretkey = site.rs1.public.encode(), site.rs1.secret
            peer.curve_serverkey = site.stranger.public.encode()
            peer.connect(link.endpoints[0])
            try_to_send(peer, report(0))
            await until(lambda: link.counters["handshake"], "the refusal")
            assert site.got == []

    run(scenario())


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (report(0, addresses=("10.0.0.12",)), "foreign"),
        (report(0, agent="rs2", addresses=("10.0.0.12",)), "foreign"),
        (b"x" * (wire.REPORT_BYTES_MAX + 1), "oversized"),
        (b"\xc1 nonsense", "malformed"),
        (report(0, version=99), "version"),
    ],
    ids=["foreign address", "foreign name", "oversized", "malformed", "version"],
)
def test_what_does_not_fit_is_counted_answered_and_has_no_effect(
    site: Site, peers: Peers, frame: bytes, kind: str
) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            agent = dealer(peers, site, link, site.rs1)
            agent.send(frame)
            answer = await reply(agent)
            assert not answer.accepted
            assert answer.reason.startswith(kind)
            assert link.counters == {kind: 1}
            agent.send(report(0))
            await until(lambda: site.got, "a good report afterwards")
            assert (await reply(agent)).accepted

    run(scenario())


def test_several_parts_are_refused_and_leave_the_stream_in_order(site: Site, peers: Peers) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            agent = dealer(peers, site, link, site.rs1)
            agent.send_multipart([report(0), report(1), report(2)])
            agent.send(report(3))
            await until(lambda: site.got, "the good report")
            assert [r.sequence for r in site.got] == [3]
            assert link.counters == {"malformed": 1, "accepted": 1}

    run(scenario())


PARTS = 28_000  # 1 MB on the wire, and more is cut off


def test_parts_without_number_hold_up_nobody(site: Site, peers: Peers) -> None:
    """The loop has its turn all the time while they are thrown away, and the next message is whole again."""

    async def scenario() -> None:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += bool(link._inlet._skipping)

        async with site.link() as link:
            counting = asyncio.create_task(others())
            agent, other = dealer(peers, site, link, site.rs1), dealer(peers, site, link, site.rs2)
            agent.send(report(0))
            await until(lambda: site.got, "a report, after which more may wait")
            agent.send_multipart([b"x"] * PARTS)
            agent.send(report(1))
            other.send(report(0, agent="rs2", addresses=("10.0.0.12",)))
            await until(lambda: len(site.got) == 3, "both reports")
            assert link.counters == {"malformed": 1, "accepted": 3}
            assert turns >= PARTS // (curve.SKIP_AT_ONCE * curve.BATCH)
            counting.cancel()

    run(scenario())


def test_a_message_that_does_not_end_is_cut_off_and_takes_no_memory(site: Site) -> None:
    """libzmq keeps its parts and shows them to nobody: they are seen in what the connection has received."""

    async def scenario() -> None:
        async with site.link() as link:
            flood = await asyncio.create_subprocess_exec(
                sys.executable, "-c", ENDLESS, link.endpoints[0], site.master.public, *words(site.rs1)
            )
            try:
                await until(lambda: link.counters["malformed"], "its first word")
                before = psutil.Process().memory_info().rss
                await until(lambda: link.counters["put_out"], "it is put out")
                assert link.counters == {"malformed": 1, "put_out": 1}
                assert psutil.Process().memory_info().rss - before < 60e6
            finally:
                with contextlib.suppress(ProcessLookupError):  # libzmq may abort where it is cut off within a message
                    flood.kill()
                await flood.wait()

    run(scenario())


ENDLESS = """
import sys, time, zmq
endpoint, master, public, secret = sys.argv[1:]
dealer = zmq.Context().socket(zmq.DEALER)
dealer.curve_serverkey = master.encode()
dealer.curve_publickey, dealer.curve_secretkey = public.encode(), secret.encode()
dealer.setsockopt(zmq.RECONNECT_IVL, -1)
dealer.connect(endpoint)
dealer.send(b"a word")
dealer.send_multipart([b"x" * 20_000] * 5_000)  # libzmq sends nothing of a message that has no end
time.sleep(60)
"""


def words(pair: KeyPair) -> tuple[str, str]:
    return str(pair.public), bytes(pair.secret).decode()


def test_parts_of_many_connections_together_are_cut_off(
    site: Site, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the master takes them more slowly than they come."""
    monkeypatch.setattr("feedback.ops.door.ALL_BYTES_MAX", 400_000)

    async def scenario() -> None:
        async with site.link() as link:
            assert link._edges is not None and link._router is not None
            link._edges.forget(link._router)  # it takes nothing more
            for pair in (site.rs1, site.rs2) * 3:
                agent = dealer(peers, site, link, pair)
                agent.setsockopt(zmq.RECONNECT_IVL, -1)
                agent.send_multipart([b"x" * 1000] * 100)
            await until(lambda: link.counters["put_out"] == 3, "as many as are too many")
            await asyncio.sleep(0.3)
            assert link.counters == {"put_out": 3}

    run(scenario())


def test_a_report_that_waits_takes_no_more_memory_than_it_has_bytes(site: Site, peers: Peers) -> None:
    """As all do while the master stands still. Each arrives alone, and must not keep what it was read into."""
    connections, reports = 8, 50

    async def scenario() -> None:
        async with site.link() as link:
            agents = [dealer(peers, site, link, pair) for pair in (site.rs1, site.rs2) * (connections // 2)]
            for agent in agents:
                agent.send(b"a word")
            await until(lambda: link.counters["malformed"] == connections, "a word of each")
            assert link._edges is not None and link._router is not None
            link._edges.forget(link._router)  # it takes nothing more
            before = psutil.Process().memory_info().rss
            for _ in range(reports):
                for agent in agents:
                    agent.send(bytes(600))
                await asyncio.sleep(0.005)
            grown = psutil.Process().memory_info().rss - before
            assert grown < 1.5e6  # 3.5e6 were it otherwise

    run(scenario())


def test_a_fleet_that_comes_at_once_is_heard_and_none_of_it_put_out(
    site: Site, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restart of the master. With room for few strangers each would put out another before it is heard."""
    monkeypatch.setattr("feedback.ops.door.STRANGERS", 2)
    fleet = {f"rs{i}": (keys.create(site.enrolled.parent / f"rs{i}")[1], f"10.0.1.{i}") for i in range(3, 33)}
    for name, (secret, address) in fleet.items():
        site.enroll(name, keys.load_secret(secret), address)

    async def scenario() -> None:
        async with site.link() as link:
            for name, (secret, address) in fleet.items():
                agent = dealer(peers, site, link, keys.load_secret(secret))
                agent.send(report(0, agent=name, addresses=(address,)))
            await until(lambda: len(site.got) == len(fleet), "a report of each")
            assert link.counters == {"accepted": len(fleet)}
            assert link._door is not None
            site.enroll("new", site.stranger, "10.0.2.1")
            link.reload()
            assert link._door.sessions.strangers == len(fleet) + 3

    run(scenario())


def test_where_more_waits_than_is_taken_together_the_newest_of_each_agent_counts(site: Site, peers: Peers) -> None:
    """After the master stood still: what is old is not worth its time."""
    fleet = {f"rs{i}": (site.make(site.enrolled.parent / f"rs{i}"), f"10.0.1.{i}") for i in range(3, 33)}
    for name, (pair, address) in fleet.items():
        site.enroll(name, pair, address)
    each = 3 * curve.BATCH // len(fleet)

    async def scenario() -> None:
        async with site.link() as link:
            agents = {name: dealer(peers, site, link, pair) for name, (pair, _) in fleet.items()}
            for name, agent in agents.items():
                agent.send(report(0, agent=name, addresses=(fleet[name][1],)))
            await until(lambda: len(site.got) == len(fleet), "the first of each")
            for sequence in range(1, each + 1):
                for name, agent in agents.items():
                    agent.send(report(sequence, agent=name, addresses=(fleet[name][1],)))
            time.sleep(0.5)  # noqa: ASYNC251 - it stands still
            await until(
                lambda: link.counters["accepted"] + link.counters["superseded"] == (each + 1) * len(fleet), "all"
            )
            assert {said.agent: said.sequence for said in site.got} == dict.fromkeys(fleet, each)
            assert link.counters["accepted"] == len(site.got)
            assert link.counters["superseded"] > curve.BATCH // 2

    run(scenario())


def test_one_key_does_not_keep_an_honest_new_agent_out(
    site: Site, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many connections it makes, silent ones and such that speak."""
    monkeypatch.setattr("feedback.ops.door.STRANGERS", 10)

    async def scenario() -> None:
        async with site.link() as link:
            assert link._door is not None
            sessions, here = link._door.sessions, link.endpoints[0].removeprefix("tcp://")
            for number in range(60):
                socket = peers.socket()
                socket.curve_publickey, socket.curve_secretkey = site.rs1.public.encode(), site.rs1.secret
                socket.curve_serverkey = site.master.public.encode()
                socket.connect(f"tcp://127.0.0.2:0;{here}")
                if number % 3 == 0:
                    socket.send(b"a word")
            await until(lambda: link.counters["put_out"] >= 60, "those that are too many, and they come again")
            new = dealer(peers, site, link, site.rs2)
            new.setsockopt(zmq.RECONNECT_IVL, -1)
            for sequence in range(3):
                new.send(report(sequence, agent="rs2", addresses=("10.0.0.12",)))
                await asyncio.sleep(0.2)
            await until(lambda: len(site.got) == 3, "the honest one's reports, by its first connection")
            assert len(sessions) <= 10 + KEY_SESSIONS + 1

    run(scenario())


def test_tcp_gives_up_a_connection_that_is_cut(site: Site, peers: Peers) -> None:
    """The master sends no heartbeats: nobody else would find out."""

    async def scenario() -> None:
        async with site.link() as link:
            assert link._door is not None
            dealer(peers, site, link, site.rs1).send(report(0))
            await until(lambda: site.got and len(link._door.sessions), "a report")  # type: ignore[union-attr]
            (descriptor,) = link._door.sessions._all
            connection = tcp_socket(fileno=os.dup(descriptor))
            with connection:
                found = [
                    connection.getsockopt(level, option)
                    for level, option in (
                        (SOL_SOCKET, SO_KEEPALIVE),
                        (IPPROTO_TCP, TCP_KEEPIDLE),
                        (IPPROTO_TCP, TCP_KEEPINTVL),
                        (IPPROTO_TCP, TCP_KEEPCNT),
                    )
                ]
            assert found == [1, 10, 5, 3]

    run(scenario())


def test_connections_that_went_are_forgotten(site: Site, peers: Peers) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            assert link._door is not None
            sessions = link._door.sessions
            agent, stranger = dealer(peers, site, link, site.rs1), dealer(peers, site, link, site.stranger)
            agent.send(report(0))
            with tcp_socket() as plain:
                plain.connect(("127.0.0.1", int(link.endpoints[0].rpartition(":")[2])))
                plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
                await until(lambda: site.got and link.counters["unknown_key"], "all have come")
            agent.close(linger=0)
            stranger.close(linger=0)
            await until(lambda: len(sessions) == 0, "all are gone")

    run(scenario())


def test_a_link_closes_while_nobody_has_taken_what_its_monitor_tells(site: Site, peers: Peers) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            port = int(link.endpoints[0].rpartition(":")[2])

            def knock() -> None:
                for _ in range(1500):
                    with contextlib.suppress(OSError), tcp_socket() as plain:
                        plain.connect(("127.0.0.1", port))

            knocking = threading.Thread(target=knock)
            knocking.start()
            knocking.join(3.0)  # the loop stands still meanwhile
        knocking.join()

    run(scenario())


def test_a_message_far_too_large_is_cut_off(site: Site, peers: Peers) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            dealer(peers, site, link, site.rs1).send(b"x" * 2**20)
            other = dealer(peers, site, link, site.rs2)
            other.send(report(0, agent="rs2", addresses=("10.0.0.12",)))
            await until(lambda: site.got, "the other agent's report")
            assert link.counters == {"accepted": 1}

    run(scenario())


def test_a_replay_is_refused(site: Site, peers: Peers) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            agent = dealer(peers, site, link, site.rs1)
            for sequence in (5, 5, 4):
                agent.send(report(sequence))
            await until(lambda: link.counters["replayed"] == 2, "two refusals")
            assert [r.sequence for r in site.got] == [5]

    run(scenario())


@pytest.mark.parametrize("before", [0, 30])
def test_a_flood_is_refused_and_answered_once(before: int, site: Site, peers: Peers) -> None:
    """Whether or not the first reports have been taken when the rest comes together."""

    async def scenario() -> None:
        async with site.link(clock=lambda: 1000.0) as link:  # all in one moment
            agent = dealer(peers, site, link, site.rs1)
            for sequence in range(300):
                if sequence == before:
                    await until(lambda: link.counters.total() == before, "the first ones")
                agent.send(report(sequence))
            time.sleep(0.1)  # noqa: ASYNC251 - the rest comes together
            await until(lambda: link.counters.total() == 300, "all of them")
            assert link.counters["flooded"] == 300 - BURST
            assert link.counters["accepted"] + link.counters["superseded"] == BURST
            answers = [await reply(agent), await reply(agent)]
            assert sorted(a.accepted for a in answers) == [False, True]
            assert not agent.poll(50), "a flood is not answered by a flood"

    run(scenario())


def test_a_revoked_agent_falls_silent_at_once_and_the_others_go_on(site: Site, peers: Peers) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            one, two = dealer(peers, site, link, site.rs1), dealer(peers, site, link, site.rs2)
            one.send(report(0))
            two.send(report(0, agent="rs2", addresses=("10.0.0.12",)))
            await until(lambda: len(site.got) == 2, "both")
            keys.revoke(site.enrolled, "rs1")
            link.reload()
            one.send(report(1))
            two.send(report(1, agent="rs2", addresses=("10.0.0.12",)))
            await until(lambda: link.counters["revoked"], "the refusal")
            await until(lambda: len(site.got) == 3, "the other's report")
            assert site.got[-1].agent == "rs2"

    run(scenario())


def test_what_waits_was_admitted_by_enrolments_that_a_reload_may_have_changed(
    site: Site, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes_on = Link._pass_on
    monkeypatch.setattr(Link, "_pass_on", lambda self, dry: passes_on(self, dry=False))  # as while more waits

    async def scenario() -> None:
        async with site.link() as link:
            link._held_until = float("inf")
            dealer(peers, site, link, site.rs1).send(report(0))
            dealer(peers, site, link, site.rs2).send(report(0, agent="rs2", addresses=("10.0.0.12",)))
            await until(lambda: len(link._held) == 2, "both wait")
            keys.revoke(site.enrolled, "rs1")
            link.reload()
            passes_on(link, dry=True)
            assert site.got == []

    run(scenario())


def test_an_exchanged_key_silences_the_old_one_though_it_is_connected(site: Site, peers: Peers) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            old = dealer(peers, site, link, site.rs1)
            old.send(report(0))
            await until(lambda: site.got, "the first report")
            site.enroll("rs1", site.stranger, "10.0.0.11")
            link.reload()
            old.send(report(1))
            await until(lambda: link.counters["revoked"], "the refusal")
            dealer(peers, site, link, site.stranger).send(report(0, boot="b"))
            await until(lambda: len(site.got) == 2, "the new key's report")

    run(scenario())


def test_an_enrolment_that_is_refused_keeps_out_that_agent_only(site: Site, peers: Peers) -> None:
    async def scenario() -> None:
        (site.enrolled / "broken.toml").write_text("nonsense")
        async with site.link() as link:
            assert len(link.reload()) == 1
            dealer(peers, site, link, site.rs1).send(report(0))
            await until(lambda: site.got, "the good agent's report")

    run(scenario())


def test_a_callback_that_raises_does_not_stop_the_link(site: Site, peers: Peers) -> None:
    async def scenario() -> None:
        raised: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, what: raised.append(what["exception"]))
        got: list[int] = []

        def on_reports(arrived: Sequence[tuple[wire.Report, float]]) -> list[None]:
            got.extend(report.sequence for report, _ in arrived)
            if got == [0]:
                raise RuntimeError("the master's own fault")
            return [None for _ in arrived]

        link = Link(["tcp://127.0.0.1:0"], site.master, site.enrolled, on_reports)
        link.open()
        try:
            agent = dealer(peers, site, link, site.rs1)
            for sequence in range(3):
                agent.send(report(sequence))
                await until(lambda: got == [*range(sequence + 1)], "this one")  # noqa: B023
            assert [str(e) for e in raised] == ["the master's own fault"]
        finally:
            link.close()

    run(scenario())


def test_a_port_in_use_is_one_clear_line(site: Site) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            with pytest.raises(CurveError) as caught:
                async with site.link(link.endpoints[0]):
                    pass
            assert str(caught.value).startswith(f"{link.endpoints[0]}: address already in use: another daemon?")

    run(scenario())


def test_an_address_that_is_not_ours_is_one_clear_line(site: Site) -> None:
    async def scenario() -> None:
        with pytest.raises(CurveError, match=r"no interface here has this address"):
            async with site.link("tcp://192.0.2.1:7433"):
                pass

    run(scenario())


# The agent's end: Uplink


def uplink(peers: Peers, site: Site, endpoint: str, pair: KeyPair) -> Uplink:
    return peers.uplink(site.public(endpoint), pair)


async def stream(up: Uplink, first: int, condition: Callable[[], object], what: str) -> int:
    """Send a report every 20 ms until the condition holds; the next sequence."""
    deadline, sequence = time.monotonic() + DEADLINE_SECONDS, first
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        up.tick(time.monotonic())
        up.send(report(sequence))
        sequence += 1
        await asyncio.sleep(0.02)
    return sequence


def test_after_a_masters_restart_only_fresh_reports_arrive(site: Site, peers: Peers) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            endpoint = link.endpoints[0]
            up = uplink(peers, site, endpoint, site.rs1)
            sequence = await stream(up, 0, lambda: len(site.got) > 3, "reports")
        site.got.clear()
        away = sequence + 25
        sent = [sequence]

        def counted() -> bool:
            sent[0] += 1
            return sent[0] > away

        sequence = await stream(up, sequence, counted, "some while without a master")
        async with site.link(endpoint) as link:
            await stream(up, sequence, lambda: len(site.got) > 3, "reports again")
            assert site.got[0].sequence >= sequence - 1, "what was measured meanwhile was not queued"
            assert set(link.counters) == {"accepted"}
        up.close()

    run(scenario())


def test_an_agent_enrolled_later_gets_in_without_a_restart(
    site: Site, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feedback.agent.uplink.RETRY_SECONDS_MAX", 0.1)

    async def scenario() -> None:
        async with site.link() as link:
            up = uplink(peers, site, link.endpoints[0], site.stranger)
            sequence = await stream(up, 0, lambda: up.state is State.REFUSED, "the refusal")
            keys.revoke(site.enrolled, "rs1")
            site.enroll("rs1", site.stranger, "10.0.0.11")
            link.reload()
            await stream(up, sequence, lambda: site.got and up.state is State.CONNECTED, "the first report")
            up.close()

    run(scenario())


def test_a_refusal_by_reply_is_known_and_told_once(site: Site, peers: Peers, capfd: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> None:
        site.enroll("rs1", site.rs1, "10.0.0.99")
        async with site.link() as link:
            up = uplink(peers, site, link.endpoints[0], site.rs1)
            await stream(up, 0, lambda: up.state is State.REFUSED, "the refusal")
            await stream(up, 500, lambda: link.counters["foreign"] > 20, "many more")
            up.close()

    run(scenario())
    assert capfd.readouterr().err.count("event=master-refuses") == 1


def test_no_descriptor_is_left_behind(site: Site, peers: Peers) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            up = uplink(peers, site, link.endpoints[0], site.rs1)
            await stream(up, 0, lambda: site.got, "a report")
            up.close()

    rounds = 10
    run(scenario())
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(rounds):
        site.got.clear()
        run(scenario())
    # What else this process does may open one or another; what a round left behind would be there ten times.
    assert len(list(Path("/proc/self/fd").iterdir())) < before + rounds / 2


def test_without_descriptors_who_is_connected_is_heard_and_who_comes_new_later(site: Site, peers: Peers) -> None:
    async def scenario() -> None:
        async with site.link() as link:
            agent = dealer(peers, site, link, site.rs1)
            agent.send(report(0))
            await until(lambda: len(site.got) == 1, "the first report")
            port = int(link.endpoints[0].rpartition(":")[2])
            with tcp_socket() as stranger, exhausted():
                stranger.setblocking(False)
                stranger.connect_ex(("127.0.0.1", port))
                await until(lambda: link.counters["no_descriptors"], "the door shuts")
                agent.send(report(1))
                await until(lambda: len(site.got) == 2, "the report of who is connected")
            new = dealer(peers, site, link, site.rs2)
            new.send(wire.encode(msgspec.structs.replace(REPORT, agent="rs2", addresses=("10.0.0.12",))))
            await until(lambda: len(site.got) == 3, "the report of who came later")
            assert link.counters["no_descriptors"] == 1

    run(scenario())


def serve(directory: Path, said: Connection) -> None:
    """A master's link in a process of its own, which counts until it is killed."""
    die_with_parent()
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(0.5))

    async def scenario() -> None:
        site = Site(directory)
        async with site.link() as link:
            said.send((link.endpoints[0], site.master.public, site.rs1.public, site.rs1.secret))
            while True:
                await asyncio.sleep(0.01)
                said.send(link.counters["accepted"])

    run(scenario())


def test_a_master_that_stood_still_goes_on_where_agents_have_left_meanwhile(tmp_path: Path) -> None:
    """Their reports and pings wait in one piece, and then their connection has ended."""
    here, there = multiprocessing.Pipe()
    master = multiprocessing.get_context("spawn").Process(target=serve, args=(tmp_path, there))
    master.start()
    there.close()
    with zmq.Context() as context, context.socket(zmq.DEALER) as agent:
        endpoint, server, public, secret = here.recv()
        agent.curve_publickey, agent.curve_secretkey, agent.curve_serverkey = public.encode(), secret, server.encode()
        agent.setsockopt(zmq.HEARTBEAT_IVL, 20)
        agent.setsockopt(zmq.HEARTBEAT_TIMEOUT, 10_000)
        agent.connect(endpoint)
        agent.send(report(0))
        while not here.recv():
            pass
        os.kill(master.pid or 0, signal.SIGSTOP)
        for sequence in range(1, 40):
            agent.send(report(sequence))
            time.sleep(0.02)
        agent.close(linger=0)
        time.sleep(0.2)
        while here.poll(0.2):
            here.recv()
        os.kill(master.pid or 0, signal.SIGUSR1)  # libzmq's thread goes on first, and sees all of it
        os.kill(master.pid or 0, signal.SIGCONT)
        assert all(here.recv() for _ in range(50))  # EOFError where it died
        master.kill()
        master.join()
