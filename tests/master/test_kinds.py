"""What is said to servers and what answer is good: words, datagrams, DNS, certificates; real servers and hostile."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dns import flags, message, rcode, rrset

from feedback.config import ConfigError, MasterConfig, parse
from feedback.config.probe import Check
from feedback.master.claims.health import Outcome
from feedback.master.shell import certificate
from feedback.master.shell.nameserver import DNS_BYTES_MAX
from tests.master.test_probes import came_of, outcome
from tests.ports import free_port

Reply = Callable[[bytes], bytes | None]

# --- words over TCP --------------------------------------------------------------------------------------------------

GREETING = b"220 mail.example ESMTP\r\n"


@pytest.mark.parametrize(
    "keys, answer, good, text",
    [
        ({"expect": "220 "}, GREETING, True, "tcp: said '220 ', "),
        ({"send": "PING\r\n", "expect": "+PONG"}, b"+PONG\r\n", True, "said '+PONG'"),
        (
            {"send": "PING\r\n", "expect": "+PONG"},
            b"-LOADING Redis\r\n",
            False,
            "closed without '+PONG': '-LOADING Redis",
        ),
        ({"expect": "220 ", "send": "x"}, b"", False, "closed without '220 ': ''"),
        ({"expect": "220 ", "timeout_seconds": 0.2}, None, False, "tcp: '220 ' did not come within 0.2 s"),
        ({"expect": "220 "}, b"y" * 100_000, False, "is not in its first 4 KiB"),
        ({"expect": "\u00ff\u0000", "send": "\u0000"}, b"a\xff\x00", True, "said"),
        ({"send": "x"}, None, True, "tcp: connected"),
    ],
)
def test_words_over_tcp(keys: dict[str, Any], answer: bytes | None, good: bool, text: str) -> None:
    made = outcome(Check(**keys), answer)
    assert (made.good, text in made.text) == (good, True), made
    assert made.text.isprintable()


def test_who_expected_a_greeting_takes_leave() -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        heard.append(await reader.read(100))
        writer.close()

    async def scenario() -> Any:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        made = (await came_of(Check(expect="220 ", quit="QUIT\r\n"), server.sockets[0].getsockname()[1]))[0]
        server.close()
        return made

    assert asyncio.run(scenario()).good and heard == [b"QUIT\r\n"]


# --- datagrams -------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def datagrams(reply: Reply) -> AsyncIterator[int]:
    class Answers(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: Any) -> None:
            if (said := reply(data)) is not None:
                self.transport.sendto(said, address)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Answers, local_addr=("127.0.0.1", 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


@contextlib.asynccontextmanager
async def lengths(reply: Reply) -> AsyncIterator[int]:
    """DNS over TCP: each message has its length in front; the reply is taken as it is."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2))
        if (said := reply(await reader.readexactly(size))) is not None:
            writer.write(said)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()


def asked(check: Check, reply: Reply) -> Outcome:
    async def scenario() -> Any:
        async with (lengths if check.transport == "tcp" else datagrams)(reply) as port:
            return (await came_of(check, port))[0]

    made: Outcome = asyncio.run(scenario())
    assert made.text.isprintable()
    return made


@pytest.mark.parametrize(
    "keys, answer, good, text",
    [
        ({}, b"hello", True, "udp: answered"),
        ({"expect": "ell"}, b"hello", True, "said 'ell'"),
        ({"expect": "bye"}, b"hello\x1b", False, "answered 'hello\\x1b', without 'bye'"),
        ({"timeout_seconds": 0.2}, None, False, "no answer within 0.2 s"),
        ({"timeout_seconds": 0.2, "reply": False}, None, True, "not refused"),
        ({"reply": False}, b"hello", True, "answered"),
    ],
)
def test_datagrams(keys: dict[str, Any], answer: bytes | None, good: bool, text: str) -> None:
    made = asked(Check(type="udp", send="hi", **keys), lambda data: answer if data == b"hi" else b"else")
    assert (made.good, text in made.text) == (good, True), made


@pytest.mark.parametrize("reply", [True, False])
def test_a_datagram_that_is_refused_is_a_failure(reply: bool) -> None:
    made = asyncio.run(came_of(Check(type="udp", send="hi", reply=reply), free_port()))[0]
    assert (made.good, made.text) == (False, "udp: connection refused")


# --- DNS -------------------------------------------------------------------------------------------------------------


def answer_with(*records: str, code: rcode.Rcode = rcode.NOERROR, **changes: Any) -> Reply:
    """An answer to whatever is asked, with these records of its name."""

    def reply(data: bytes) -> bytes:
        question = message.from_wire(data)
        made = message.make_response(question)
        made.set_rcode(code)
        for record in records:
            made.answer.append(rrset.from_text(question.question[0].name, 60, "IN", *record.split(" ", 1)))
        for name, value in changes.items():
            setattr(made, name, value)
        return made.to_wire(max_size=65535)

    return reply


def framed(reply: Reply) -> Reply:
    return lambda data: (said := reply(data) or b"") and len(said).to_bytes(2) + said


A = "A 10.0.0.1"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    "keys, reply, good, text",
    [
        ({}, answer_with(A), True, "dns: web.example A: 10.0.0.1, "),
        ({"answer": "10.0.0.2"}, answer_with(A, "A 10.0.0.2"), True, "web.example A: 10.0.0.2"),
        ({"answer": "10.0.0.3"}, answer_with(A), False, "web.example A: 10.0.0.1, not 10.0.0.3"),
        ({}, answer_with(), False, "web.example A: without a record"),
        ({}, answer_with("TXT x"), False, "without a record"),
        ({}, answer_with(A, code=rcode.SERVFAIL), False, "web.example A: SERVFAIL"),
        ({"record": "TXT"}, answer_with('TXT "\\027[31m"'), True, '"\\027[31m"'),
        ({}, lambda data: data[:2] + b"\xff" * 30, False, "65535 records"),
        ({}, answer_with(A, flags=flags.RD), False, "not the answer to this query"),
        ({}, lambda data: data[:2] + b"\x80\x00\x00\x01\x00\x20" + b"\xc0\x0c" * 200, False, "not DNS"),
    ],
)
def test_dns(transport: str, keys: dict[str, Any], reply: Reply, good: bool, text: str) -> None:
    check = Check(type="dns", name="web.example", transport=transport, **keys)
    made = asked(check, framed(reply) if transport == "tcp" else reply)
    assert (made.good, text in made.text) == (good, True), made


def test_a_datagram_with_another_questions_number_is_no_answer() -> None:
    check = Check(type="dns", name="web.example", timeout_seconds=0.2)
    made = asked(check, lambda data: bytes([data[0] ^ 1]) + (answer_with(A)(data) or b"")[1:])
    assert (made.good, made.text) == (False, "dns: no answer within 0.2 s")


@pytest.mark.parametrize(
    "said, text",
    [
        ((65535).to_bytes(2), f"an answer of 65535 bytes: {DNS_BYTES_MAX} are taken"),
        (b"\0", "closed without an answer"),
        (b"\0\x40abc", "closed without an answer"),
        (b"\0\0", "not DNS"),
    ],
)
def test_dns_over_tcp_takes_so_much_and_no_more(said: bytes, text: str) -> None:
    made = asked(Check(type="dns", name="web.example", transport="tcp"), lambda data: said)
    assert (made.good, text in made.text) == (False, True), made


def test_an_answer_that_is_made_to_be_slow_is_not_read() -> None:
    """Records of names with as many labels as there may be take dnspython milliseconds each: so many and no more."""

    def reply(data: bytes, count: int, more: int) -> bytes:
        record = b"\xc0\x0c\x00\x06\x00\x01\x00\x00\x00\x01\x00\x18\xc0\x0c\xc0\x0c" + bytes(20)  # SOA
        head = data[:2] + b"\x80\x00\x00\x01" + count.to_bytes(2) + more.to_bytes(2) + bytes(2)
        return head + data[12:] + record * (count + more)

    check = Check(type="dns", name="a." * 120, record="SOA")
    for count, more, good, text in ((32, 60, True, "a.a."), (33, 0, False, "an answer of 33 records: 32 are taken")):
        began = time.process_time()
        made = asked(check, lambda data, count=count, more=more: reply(data, count, more))
        assert (made.good, text in made.text) == (good, True), made
        assert time.process_time() - began < 1.5  # 0.2 s, and 100 records 0.5 s


# --- TLS and certificates --------------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path) -> Callable[[int], ssl.SSLContext]:
    """A server's TLS, with a certificate of so many days."""

    def make(days: int) -> ssl.SSLContext:
        key, shown = tmp_path / "key", tmp_path / "certificate"
        made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", str(days), "-subj", "/CN=rs1", "-keyout"]
        subprocess.run(["openssl", *made, key, "-out", shown], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(shown, key)
        return context

    return make


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nall well"


@pytest.mark.parametrize(
    "check, answer",
    [
        (Check(type="tls"), None),
        (Check(type="tls", expect="220 "), GREETING),
        (Check(type="https"), OK),
    ],
)
def test_a_certificate_that_expires_soon_is_a_warning_and_no_failure(
    keys: Callable[[int], ssl.SSLContext], check: Check, answer: bytes | None
) -> None:
    for days, warned in ((5, "in 4 days"), (30, "")):
        made = outcome(check, answer, keys(days))
        assert made.good and warned in made.warning and bool(made.warning) is bool(warned), made
        assert made.expires_at == pytest.approx(time.time() + days * certificate.DAY_SECONDS, abs=60)


def test_what_is_no_tls_fails() -> None:
    made = outcome(Check(type="tls", timeout_seconds=0.5), GREETING)
    assert (made.good, made.text.startswith("tls: ")) == (False, True)


@pytest.mark.parametrize(
    "left_days, days, expected",
    [(20, 14, ""), (13.5, 14, "in 13 days"), (0.5, 14, "in 0 days"), (-1, 14, "expired on 2026-11-29")],
)
def test_the_warning_changes_once_a_day(left_days: float, days: int, expected: str) -> None:
    now = 1796083200.0  # 2026-12-01
    now -= certificate.DAY_SECONDS
    said = certificate.warning(now + left_days * certificate.DAY_SECONDS, now, days)
    assert expected in said and bool(said) is bool(expected)


@pytest.mark.parametrize("der", [b"", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"x" * 5000])
def test_a_certificate_that_cannot_be_read_has_no_moment(der: bytes) -> None:
    assert certificate.expiry(der) is None


# --- Debian's real servers -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(*command: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[None]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}: make test installs it")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def test_redis_says_pong(tmp_path: Path) -> None:
    port = free_port()
    with running("redis-server", "--port", str(port), "--save", "", "--dir", str(tmp_path), port=port):
        made = asyncio.run(came_of(Check(send="PING\r\n", expect="+PONG", quit="QUIT\r\n", timeout_seconds=5), port))[0]
        closed = asyncio.run(came_of(Check(send="AUTH x\r\n", expect="+OK", timeout_seconds=0.5), port))[0]
    assert made.good and not closed.good, (made, closed)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_dnsmasq_answers(transport: str) -> None:
    port = free_port()
    options = ("--no-daemon", "--no-resolv", "--no-hosts", "--user=root", "--pid-file=", "--listen-address=127.0.0.1")
    with running(
        "dnsmasq", *options, "--bind-interfaces", f"--port={port}", "--address=/web.example/10.0.0.1", port=port
    ):
        good = Check(type="dns", name="web.example", answer="10.0.0.1", transport=transport, timeout_seconds=5)
        made = asyncio.run(came_of(good, port))[0]
        refused = asyncio.run(came_of(Check(type="dns", name="other.example", transport=transport), port))[0]
    assert made.good, made
    assert (refused.good, "REFUSED" in refused.text) == (False, True), refused


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys, error",
    [
        ('send = "x"\ntype = "http"', r'service\[0\].check.send: is for type = "tcp" or "tls" or "udp"'),
        ('type = "udp"', "check.send: udp needs it"),
        ('type = "udp"\nsend = "x"\nquit = "y"', 'quit: is for type = "tcp" or "tls"'),
        ('type = "udp"\nsend = "x"\nreply = false\nexpect = "y"', "reply: with false nothing is expected"),
        ("reply = false", 'reply: is for type = "udp"'),
        ('expect = "\u20ac"', "each character is a byte"),
        ('type = "dns"', "check.name: dns needs it"),
        ('type = "dns"\nname = "a..b"', "cannot be queried"),
        ('type = "dns"\nname = "a.b"\nrecord = "AXFR"', "'AXFR': is no record type"),
        ('type = "dns"\nname = "a.b"\nrecord = "NO"', "cannot be queried"),
        ('type = "dns"\nname = "a.b"\ntransport = "tls"', "transport: 'tls': expected one of tcp, udp"),
        ('name = "a.b"', 'name: is for type = "dns"'),
        ('type = "tls"\nverify = true', "verify: needs type https or tls, and host"),
        ("expiry_days = 1000", "expiry_days"),
    ],
)
def test_what_does_not_belong_to_a_kind_is_refused_in_one_line(keys: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error) as caught:
        parse(f'[[service]]\nvirtual = "tcp:10.0.0.100:80"\n[service.check]\n{keys}', MasterConfig)
    assert "\n" not in str(caught.value)


def test_without_the_libraries_dns_is_refused_and_expiry_is_not_known(
    keys: Callable[[int], ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dns", None)
    monkeypatch.setattr(certificate, "reads", lambda: False)
    made = outcome(Check(type="tls"), None, keys(5))
    assert (made.good, made.warning, made.expires_at) == (True, "", None)
    text = '[[service]]\nvirtual = "udp:10.0.0.100:53"\n[service.check]\ntype = "dns"\nname = "web.example"\n'
    with pytest.raises(ConfigError, match=r"check.type: dns needs dnspython: pip install 'lvs-feedback\[director\]'"):
        parse(text, MasterConfig)
