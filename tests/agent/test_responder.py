"""The agent-check port of a real agent: a real HAProxy's weights follow it; strangers and floods get nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from feedback.agent.responder import CONNECTIONS_PER_SECOND, Responder
from feedback.agent.signals.files import SignalError
from feedback.config import AgentConfig, ConfigError, parse
from tests.agent import trees
from tests.agent.test_daemon import Place, end, place, processes, run, until
from tests.ops.exhausted import exhausted
from tests.patience import thread_seconds
from tests.ports import free_port

__all__ = ["place", "processes"]  # the fixtures

HAPROXY = shutil.which("haproxy") or next((p for p in ("/usr/sbin/haproxy",) if Path(p).exists()), None)
LOOPBACK = (ip_network("127.0.0.0/8"),)


@contextlib.contextmanager
def responder(allow: str = "127.0.0.0/8", listen: str = "127.0.0.1:0") -> Iterator[tuple[Responder, select.poll]]:
    made, poll = Responder(listen, (ip_network(allow),), lambda question, now: b"answer to " + question), select.poll()
    made.attach(poll)
    try:
        yield made, poll
    finally:
        made.close()


def serve(made: Responder, poll: select.poll, seconds: float) -> int:
    """As the agent's loop does, for so long as the host lets it. Returns how often it came round."""
    ends, turns = thread_seconds() + seconds, 0
    while (left := ends - thread_seconds()) > 0:
        found = poll.poll(max(0, min(left, made.due() - time.monotonic())) * 1000)
        made.turn([d for d, _ in found if made.owns(d)], time.monotonic())
        turns += 1
    return turns


def connect(made: Responder, said: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", made.port))
    client.settimeout(0.01)
    client.send(said)
    return client


def heard(client: socket.socket) -> bytes | None:
    """What it was told; None if it is still waiting."""
    with contextlib.suppress(ConnectionResetError):
        try:
            return b"".join(iter(lambda: client.recv(100), b""))
        except TimeoutError:
            return None
    return b""


@pytest.mark.parametrize("said, expected", [(b"80\n", b"answer to 80\n"), (b"", b"answer to ")])
def test_a_question_is_answered_at_once_and_silence_soon(said: bytes, expected: bytes) -> None:
    with responder() as (made, poll), connect(made, said) as client:
        serve(made, poll, 0.2)
        assert heard(client) == expected


def test_who_is_not_on_the_list_gets_not_a_byte() -> None:
    with responder(allow="192.0.2.0/24") as (made, poll), connect(made, b"80\n") as client:
        serve(made, poll, 0.2)
        assert heard(client) == b""


def test_an_ipv6_port_answers_ipv6() -> None:
    with responder("::1/128", "[::1]:0") as (made, poll), socket.create_connection(("::1", made.port)) as client:
        client.settimeout(0.2)
        client.send(b"80\n")
        serve(made, poll, 0.2)
        assert heard(client) == b"answer to 80\n"


def test_a_flood_is_answered_in_part_and_costs_no_busy_loop() -> None:
    with responder() as (made, poll), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(made, b"80\n")) for _ in range(60)]
        turns = serve(made, poll, 0.2)
        clients += [stack.enter_context(connect(made, b"80\n")) for _ in range(60)]
        turns += serve(made, poll, 0.3)
        answers = [heard(c) for c in clients]
        assert sum(bool(a) for a in answers) == CONNECTIONS_PER_SECOND
        assert answers[-50:] == [None] * 50  # they wait in the kernel until the next second
        assert turns < 60
        serve(made, poll, 1.0)
        assert [heard(c) for c in clients[-50:]] == [b"answer to 80\n"] * 50


def test_strangers_do_not_use_up_what_the_allowed_may_ask() -> None:
    with responder(allow="127.0.0.1/32") as (made, poll), contextlib.ExitStack() as stack:
        for number in range(6 * CONNECTIONS_PER_SECOND):
            stack.enter_context(
                socket.create_connection(("127.0.0.1", made.port), source_address=(f"127.0.0.{number % 50 + 2}", 0))
            )
            if number % CONNECTIONS_PER_SECOND == 0:
                serve(made, poll, 0.02)
        with connect(made, b"80\n") as client:
            serve(made, poll, 0.3)
            assert heard(client) == b"answer to 80\n"


def test_strangers_are_bounded_too() -> None:
    with responder(allow="192.0.2.0/24") as (made, poll), contextlib.ExitStack() as stack:
        made._strangers, made._budget, made._budget_at = 3, CONNECTIONS_PER_SECOND, time.monotonic() + 9
        for _ in range(5):
            stack.enter_context(connect(made))
        serve(made, poll, 0.2)
        assert (made._strangers, made._listens) == (0, False)


def test_a_client_that_goes_away_is_forgotten() -> None:
    with responder() as (made, poll):
        for _ in range(CONNECTIONS_PER_SECOND - 1):
            connect(made).close()
        serve(made, poll, 0.3)
        with connect(made, b"1\n") as client:
            serve(made, poll, 0.1)
            assert heard(client) == b"answer to 1\n"


def test_a_port_that_is_taken_is_said() -> None:
    with responder() as (made, _), pytest.raises(SignalError, match=r"agent_check.listen.*address already in use"):
        Responder(f"127.0.0.1:{made.port}", LOOPBACK, lambda question, now: b"")


@pytest.mark.parametrize(
    "keys, error",
    [
        ('listen = "10.0.0.11:3333"', "agent_check: required field `allow` is missing"),
        ('listen = "10.0.0.11:3333"\nallow = []', "length >= 1"),
        ('listen = "3333"\nallow = ["10.0.1.1"]', "agent_check.listen: '3333': expected ADDRESS:PORT"),
        (
            'listen = "10.0.0.11:3333"\nallow = ["10.0.1.1/24"]',
            r"agent_check.allow\[0\]: 10.0.1.1/24 has host bits set",
        ),
    ],
)
def test_address_and_list_are_checked(keys: str, error: str) -> None:
    text = 'name = "rs1"\naddresses = ["10.0.0.11"]\n[[master]]\nendpoint = "tcp://10.0.1.1:7433"\n'
    with pytest.raises(ConfigError, match=error):
        parse(f'{text}public_key = "{"k" * 40}"\n[agent_check]\n{keys}', AgentConfig)


class Haproxy:
    """A real one with a server whose weight the agent tells."""

    def __init__(self, directory: Path, agent_port: int, send: str = "") -> None:
        self.socket = directory / "h.sock"
        config = directory / "haproxy.cfg"
        asks = f"agent-check agent-port {agent_port} agent-inter 100ms {send}"
        config.write_text(
            f"global\n  stats socket {self.socket} mode 600 level admin\n"
            "defaults\n  mode tcp\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\n"
            f"listen web\n  bind 127.0.0.1:{free_port()}\n  server s1 127.0.0.1:9 weight 200 {asks}\n"
        )
        assert HAPROXY is not None
        self.process = subprocess.Popen([HAPROXY, "-f", config, "-db"], stderr=subprocess.PIPE, text=True)

    def server(self) -> tuple[str, int]:
        """Status and weight of the server."""
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.socket))
            except OSError:
                return "", -1
            client.sendall(b"show stat\n")
            lines = b"".join(iter(lambda: client.recv(65536), b"")).decode().splitlines()
        names = lines[0].lstrip("# ").split(",")
        row = next(dict(zip(names, line.split(","), strict=True)) for line in lines if line.startswith("web,s1,"))
        return row["status"], int(row["weight"])

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate()


@pytest.mark.skipif(HAPROXY is None, reason="Debian's package haproxy is absent")
def test_a_real_haproxys_weights_follow_the_agent(place: Place, processes: list[subprocess.Popen[str]]) -> None:
    """The cgroup's counters stand still, so that what the application says is all there is."""
    tree, port = trees.cgroup(place.directory / "cg", "100000 100000", memory_max="1000000"), free_port()
    check = (
        f'cgroup = "{tree}"\n[agent_check]\nlisten = "127.0.0.1:{port}"\nallow = ["127.0.0.1"]\nsmoothing_seconds = 0.2'
    )

    async def scenario() -> None:
        async with place.link() as link:
            place.write(link.endpoints[0], more=check)
            processes.append(agent := place.start())
            whole, service = (
                Haproxy(place.directory, port),
                Haproxy(place.directory / "agents", port, "agent-send 80\\n"),
            )
            try:
                await until(lambda: place.heard and whole.server()[1] == 200, "a report and HAProxy")
                for words, expected in STEPS:
                    with speaking(place.socket, words):
                        await until(lambda e=expected: (whole.server(), service.server()) == e, f"{words}: {expected}")
                agent.kill()  # no answer changes nothing
                await asyncio.sleep(0.5)
                assert whole.server() == STEPS[-1][1][0]
            finally:
                whole.close()
                service.close()

    run(scenario())


STEPS = [  # what applications say -> status and weight of 200, of the whole server and of port 80's service
    ([{"port": 80, "utilisation": 0.25}], (("no check", 150), ("no check", 150))),
    ([{"port": 80, "utilisation": 0.25, "drain": True}, {"port": 443}], (("no check", 150), ("DRAIN (agent)", 150))),
    ([{"port": 80, "utilisation": 1.0}, {"port": 443}], (("no check", 2), ("no check", 2))),
    ([{"port": 80, "utilisation": 0.5}, {"port": 443}], (("no check", 100), ("no check", 100))),
]


@contextlib.contextmanager
def speaking(path: Path, words: list[dict[str, object]]) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
        for word in words:
            speaker.sendto(json.dumps(word).encode(), str(path))
        yield


@pytest.mark.skipif(HAPROXY is None, reason="Debian's package haproxy is absent")
def test_a_reload_opens_and_closes_the_port(place: Place, processes: list[subprocess.Popen[str]]) -> None:
    port = free_port()

    def reachable() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    async def scenario() -> None:
        async with place.link() as link:
            place.write(link.endpoints[0])
            processes.append(agent := place.start())
            await until(lambda: place.heard, "a report")
            assert not reachable()
            for more, wanted in (
                (f'[agent_check]\nlisten = "127.0.0.1:{port}"\nallow = ["127.0.0.1"]', True),
                ("", False),
            ):
                place.write(link.endpoints[0], more=more)
                agent.send_signal(1)
                await until(lambda w=wanted: reachable() is w, f"reachable: {wanted}")
            assert end(agent)[0] == 0

    run(scenario())


@pytest.mark.skipif(HAPROXY is None, reason="Debian's package haproxy is absent")
def test_the_example_is_taken_by_haproxy(tmp_path: Path) -> None:
    example = (Path(__file__).parents[2] / "contrib" / "haproxy" / "agent-check.cfg").read_text()
    times = "defaults\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\n"
    front = "frontend front\n  mode http\n  bind 127.0.0.1:8080\n  default_backend web\n"
    (tmp_path / "haproxy.cfg").write_text(times + example + front)
    done = subprocess.run([HAPROXY, "-c", "-f", tmp_path / "haproxy.cfg"], capture_output=True, text=True, check=False)  # type: ignore[list-item]
    assert (done.returncode, "WARNING" in done.stdout + done.stderr) == (0, False)


def test_without_descriptors_the_port_rests_and_who_waited_is_answered_later() -> None:
    with responder() as (made, poll), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(5)]
        with exhausted():
            for client in clients:
                client.connect(("127.0.0.1", made.port))
            turns = serve(made, poll, 1.5)
        serve(made, poll, 1.5)
        for client in clients:
            client.settimeout(0.5)
        answers = [heard(client) for client in clients]
    assert turns < 20
    assert answers == [b"answer to "] * 5
