"""The shell of the exporters against servers on loopback: the kept connection, and each way to be no exporter."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from feedback.config import Exporter
from feedback.config.strict import ConfigError
from feedback.master.claims.asking import Probe, Target
from feedback.master.shell import scrapes
from feedback.master.shell.scrapes import Scrapes
from feedback.master.sources.reading import Unread
from feedback.wire import Report
from tests.master.sources.pages import NODE
from tests.ports import free_port

LOOPBACK = ip_address("127.0.0.1")


def ok(page: bytes = NODE, head: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (head, len(page), page)


class Site:
    """An exporter: `answer` is what it says to each request, `requests` what it was asked, `connections` how many
    there were."""

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.closing = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(request)
                answer = self.answer(request)
                if answer is None:
                    await reader.read()  # it says nothing
                    break
                writer.write(answer)
                if self.closing:
                    break
        writer.close()

    async def end(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def standing(
    answer: Callable[[bytes], bytes | None], tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Site, int]]:
    site = Site(answer)
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield site, int(server.sockets[0].getsockname()[1])
        await site.end()


def scraped(
    answer: Callable[[bytes], bytes | None], times: int = 1, under: ssl.SSLContext | None = None, **keys: Any
) -> tuple[list[Report | Unread], Site]:
    async def scenario() -> tuple[list[Report | Unread], Site]:
        asked = Scrapes()
        async with standing(answer, under) as (site, port):
            of = Exporter(**{"port": port, "timeout_seconds": 30.0} | keys)
            made = [await asked.read(of, Probe(Target(LOOPBACK, port), of)) for _ in range(times)]
            asked.close()
        return made, site

    return asyncio.run(scenario())


def reason(answer: bytes | None, **keys: Any) -> str:
    (made,), _ = scraped(lambda request: answer, **keys)
    assert isinstance(made, Unread), made
    assert made.reason.isprintable()
    return made.reason


def test_one_connection_is_kept_for_all_pages() -> None:
    made, site = scraped(lambda request: ok(), times=5)
    assert all(isinstance(each, Report) for each in made[:1])
    assert (site.connections, len(site.requests)) == (1, 5)
    assert b"GET /metrics?collect[]=cpu&collect[]=meminfo&" in site.requests[0]


def test_a_page_in_chunks_is_a_page() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(NODE), NODE)
    made, site = scraped(lambda request: chunked, times=3)
    assert isinstance(made[0], Report)
    assert site.connections == 1


def test_what_the_server_has_closed_meanwhile_is_opened_anew() -> None:
    async def scenario() -> tuple[list[Report | Unread], int]:
        asked = Scrapes()
        async with standing(lambda request: ok()) as (site, port):
            of = Exporter(port=port)
            made = [await asked.read(of, Probe(Target(LOOPBACK, port), of))]
            site.closing = True  # the next answer is the last of its connection
            made += [await asked.read(of, Probe(Target(LOOPBACK, port), of)) for _ in range(3)]
            asked.close()
        return made, site.connections

    made, connections = asyncio.run(scenario())
    assert all(isinstance(each, Report) for each in made)
    assert connections == 3


def test_an_exporter_that_has_not_all_collectors_is_asked_for_all_it_has() -> None:
    def answer(request: bytes) -> bytes:
        return ok() if b"GET /metrics HTTP" in request else b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"

    made, site = scraped(answer, times=3)
    assert all(isinstance(each, Report) for each in made)
    assert (len(site.requests), site.connections) == (4, 1)  # once it is known, it is not tried again
    assert "status 400" in reason(b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n", path="/mine?x")


@pytest.mark.parametrize(
    "answer, why",
    [
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "status 401"),
        (b"HTTP/1.1 301 There\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "status 301"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 1_200_000, "over 1024 KiB"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", "no node_cpu_seconds_total in it"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000, "not HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
        (b"\x1b[31m\r\n\r\n", "not HTTP"),
        (None, "no page within 2 s"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun", "no page within 2 s"),
    ],
)
def test_what_is_no_page_is_said_and_moves_nothing(answer: bytes | None, why: str) -> None:
    assert why in reason(answer, timeout_seconds=2)


def test_who_closes_says_nothing() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def scenario() -> Report | Unread:
        asked = Scrapes()
        async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
            port = int(server.sockets[0].getsockname()[1])
            return await asked.read(of := Exporter(port=port), Probe(Target(LOOPBACK, port), of))

    assert str(asyncio.run(scenario())) == "closed without an answer"


def test_a_port_where_nobody_listens_is_refused_and_asked_again() -> None:
    async def scenario() -> list[str]:
        asked, port = Scrapes(), free_port()
        of = Exporter(port=port)
        return [str(await asked.read(of, Probe(Target(LOOPBACK, port), of))) for _ in range(2)]

    assert asyncio.run(scenario()) == ["connection refused"] * 2


def test_after_a_page_that_was_cut_short_nothing_of_it_is_taken_for_the_next() -> None:
    pages = iter([ok()[:-10], ok(), ok()])
    made, site = scraped(lambda request: next(pages), times=3, timeout_seconds=2)
    assert str(made[0]) == "no page within 2 s"
    assert isinstance(made[1], Report) and isinstance(made[2], Report)
    assert site.connections == 2


def test_a_password_goes_in_each_request_and_is_read_from_its_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("open sesame\n")
    _, site = scraped(lambda request: ok(), username="scraper", password_file=secret)
    assert b"authorization: Basic c2NyYXBlcjpvcGVuIHNlc2FtZQ==\r\n" in site.requests[0].replace(b"Auth", b"auth")
    assert "no such file" in reason(ok(), username="scraper", password_file=tmp_path / "none")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=rs1"]
    names = ["-addext", "subjectAltName=DNS:rs1,IP:127.0.0.1", "-keyout", path, "-out", path.with_suffix(".crt")]
    subprocess.run([*command, *names], check=True, capture_output=True)
    return path


def test_tls_is_verified_against_the_authority_that_was_named(certificate: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    public = certificate.with_suffix(".crt")
    tls.load_cert_chain(public, certificate)
    for keys in ({"ca": public}, {"ca": public, "host": "rs1"}, {"verify": False}):
        (made,), _ = scraped(lambda request: ok(), under=tls, **{"tls": True} | keys)
        assert isinstance(made, Report), made
    assert "CERTIFICATE_VERIFY_FAILED" in reason_over(tls, ca=None)
    assert "CERTIFICATE_VERIFY_FAILED" in reason_over(tls, ca=public, host="rs2")


def reason_over(tls: ssl.SSLContext, **keys: Any) -> str:
    (made,), _ = scraped(lambda request: ok(), under=tls, **{"tls": True} | keys)
    return str(made)


def test_who_is_asked_no_more_keeps_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> int:
        asked = Scrapes()
        async with standing(lambda request: ok()) as (_, port):
            for path in ("/a", "/b"):  # as after a reload
                monkeypatch.setattr(scrapes, "UNUSED_SECONDS", 1e9 if path == "/a" else 0.0)
                of = Exporter(port=port, path=path)
                await asked.read(of, Probe(Target(LOOPBACK, port), of))
                await asyncio.sleep(0.01)
            kept = len(asked._kept)
            asked.close()
        return kept

    assert asyncio.run(scenario()) == 1


@pytest.mark.parametrize(
    "keys, why",
    [
        ({"kind": "snmp"}, "kind: 'snmp': expected one of"),
        ({"kind": "custom", "port": 1}, "custom needs gauge and limit, or busy and total"),
        ({"kind": "custom", "gauge": "a", "limit": 1}, "port: custom needs one"),
        ({"kind": "custom", "port": 1, "gauge": "a"}, "gauge and limit belong together"),
        ({"kind": "custom", "port": 1, "busy": "a", "limit": 1.0, "total": "b"}, "custom needs gauge"),
        ({"kind": "custom", "port": 1, "busy": "a"}, "busy and total belong together"),
        ({"kind": "custom", "port": 1, "busy": "a b", "total": "c"}, "busy: 'a b': expected NAME"),
        ({"gauge": "a"}, 'are for kind = "custom"'),
        ({"username": "me"}, "username and password_file belong together"),
        ({"username": "a:b", "password_file": Path("/x")}, "without a colon"),
        ({"path": "metrics"}, "must begin with /"),
        ({"path": "/a b"}, "without spaces"),
        ({"ca": Path("/x")}, "is for tls = true"),
    ],
)
def test_a_configuration_that_asks_for_nothing_sensible_is_refused(keys: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=r"^where") as refused:
        Exporter(**keys).check("where")
    assert why in str(refused.value)
