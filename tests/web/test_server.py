"""The pages over real sockets: what each path answers, and what slow and hostile clients cannot do."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feedback.web import server as shell
from feedback.web.server import CONNECTIONS_MAX, HEAD_BYTES_MAX, Server
from feedback.web.view import View
from tests.patience import process_seconds, thread_seconds
from tests.web.documents import destination, document, service, troubled


def view(**given: Any) -> View:
    return View(
        **({"turn_age_seconds": 0.1, "decision_age_seconds": 0.1, "role": "active", "document": troubled} | given)
    )


def served(work: Callable[[int], Any], look: Callable[[], View] = view, complaints: list[str] | None = None) -> Any:
    """What `work(port)` returns; it runs beside a server."""

    async def both() -> Any:
        heard: list[str] = [] if complaints is None else complaints
        pages = Server(look, heard.append)
        _, port = await pages.open("127.0.0.1:0")
        try:
            return await asyncio.to_thread(work, port)
        finally:
            pages.close()

    return asyncio.run(both())


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body


def raw(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        client.sendall(data)
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize(
    "path, status, content_type, part",
    [
        ("/", 200, "text/html", b"things to look at"),
        ("/status", 200, "text/html", b"things to look at"),
        ("/status?why=tcp%3A10.0.0.100%3A80%2F10.0.0.11%3A80", 200, "text/html", b"80/s"),
        ("/status.json", 200, "application/json", b'"schema":1'),
        ("/metrics", 200, "text/plain", b"feedback_build_info"),
        ("/healthz", 200, "text/plain", b"ok"),
        ("/readyz", 200, "text/plain", b"ready"),
        ("/active", 200, "text/plain", b"active"),
        ("/nothing", 404, "text/plain", b"known paths: /status"),
        ("//[", 404, "text/plain", b"known paths: /status"),
        ("/" + "x" * 2000, 414, "text/plain", b"too long"),
    ],
)
def test_each_path_answers(path: str, status: int, content_type: str, part: bytes) -> None:
    got, headers, body = served(lambda port: get(port, path))
    assert (got, headers["content-type"].partition(";")[0]) == (status, content_type)
    assert part in body
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path, given, status, word",
    [
        ("/healthz", {"turn_age_seconds": 9.0}, 503, b"9 s ago"),
        ("/readyz", {"decision_age_seconds": None}, 503, b"no decision yet"),
        ("/readyz", {"decision_age_seconds": 30.0}, 503, b"does not answer"),
        ("/readyz", {"decision_age_seconds": None, "role": "standby"}, 200, b"standby"),
        ("/active", {"role": "standby"}, 503, b"standby"),
    ],
)
def test_probes_say_no_with_the_reason(path: str, given: dict[str, Any], status: int, word: bytes) -> None:
    got, _, body = served(lambda port: get(port, path), lambda: view(**given))
    assert got == status
    assert word in body


def test_the_page_forbids_scripts_and_strangers_by_policy() -> None:
    _, headers, body = served(lambda port: get(port, "/status"))
    assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert b"<style>" in body


def test_head_has_no_body_and_writing_is_refused() -> None:
    status, headers, body = served(lambda port: get(port, "/status.json", "HEAD"))
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 100
    status, headers, _ = served(lambda port: get(port, "/status", "DELETE"))
    assert (status, headers["allow"]) == (405, "GET, HEAD")


HOSTILE = [  # refused, or no answer at all
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # a TLS client
    b"GET /metrics HTTP/1.1\r\n\r\n",  # no Host
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * (2 * HEAD_BYTES_MAX) + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000,
    b"POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET http://a/nothing HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
]


ODD = [  # answered once like any other: what is odd in them is never looked at
    b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET /status HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
]


@pytest.mark.parametrize("data, statuses", [(d, {"", "4", "5"}) for d in HOSTILE] + [(d, {"2"}) for d in ODD])
def test_a_hostile_request_is_refused_and_the_next_client_gets_its_page(data: bytes, statuses: set[str]) -> None:
    def work(port: int) -> tuple[bytes, int]:
        try:
            answer = raw(port, data)
        except ConnectionError:
            answer = b""
        return answer, get(port, "/metrics")[0]

    complaints: list[str] = []
    answer, next_status = served(work, complaints=complaints)
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert answer[9:10].decode() in statuses
    assert (next_status, complaints) == (200, [])


def test_what_follows_a_request_on_the_same_connection_is_not_answered() -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    with contextlib.suppress(ConnectionResetError):  # the kernel's answer to what nobody read
        assert served(lambda port: raw(port, one * 50)).count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize("servers", [80, 30_000])  # the answer fits into the stream's buffer, or into no buffer
def test_slow_clients_keep_nobody_out_and_are_cut_off(monkeypatch: pytest.MonkeyPatch, servers: int) -> None:
    """More of them than there are places, in each of the ways to be slow, while the loop's turns go on."""
    monkeypatch.setattr(shell, "EXCHANGE_SECONDS", 2.0)
    many = (destination(f"10.{i // 62500}.{i // 250 % 250}.{i % 250}:80") for i in range(servers))
    big = document(service("tcp:1.2.3.4:80", *many))
    late: list[float] = []

    async def both() -> None:
        pages = Server(lambda: view(document=lambda: big), pytest.fail)
        _, port = await pages.open("127.0.0.1:0")
        assert pages._server is not None
        pages._server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # its connections inherit it
        turns = asyncio.create_task(turn(late))
        try:
            await asyncio.to_thread(attack, port)
        finally:
            turns.cancel()
            pages.close()

    def attack(port: int) -> None:
        before = descriptors()
        clients = [slow(port, b"", 2 * CONNECTIONS_MAX), slow(port, b"GET /status HTTP/1.1\r\nX:", CONNECTIONS_MAX)]
        clients += [
            slow(port, b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % path, 2) for path in (b"status.json", b"status")
        ]
        for group in clients:
            for client in group:
                opened.callback(client.close)
        ours = sum(len(group) for group in clients)
        began = process_seconds()
        assert get(port, "/healthz")[0] == 200
        assert process_seconds() - began < 1.0
        assert descriptors() - before - ours <= CONNECTIONS_MAX + 1
        deadline = time.monotonic() + 60
        while descriptors() - before > ours:
            assert time.monotonic() < deadline, "descriptors are left behind"
            time.sleep(0.05)

    with contextlib.ExitStack() as opened:
        asyncio.run(both())
    assert max(late) < 0.5


def slow(port: int, said: bytes, count: int) -> list[socket.socket]:
    """Clients that say this, and read nothing."""
    clients = [socket.socket() for _ in range(count)]
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.send(said)
    return clients


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def turn(late: list[float]) -> None:
    """How late the loop comes round, in the master's place."""
    while True:
        began = thread_seconds()
        await asyncio.sleep(0.02)
        late.append(thread_seconds() - began - 0.02)


def test_a_page_that_cannot_be_made_is_said_and_costs_only_itself() -> None:
    def broken() -> dict[str, Any]:
        raise KeyError("services")

    complaints: list[str] = []
    answers = served(
        lambda port: [get(port, p)[0] for p in ("/status", "/healthz")], lambda: view(document=broken), complaints
    )
    assert answers == [500, 200]
    assert complaints == ["/status: KeyError('services')"]


def test_the_json_is_the_document() -> None:
    _, _, body = served(lambda port: get(port, "/status.json"))
    assert json.loads(body) == troubled()
