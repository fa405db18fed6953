"""The kinds of checks: the request to a server, and which answer is good. A shell: it decides nothing about servers.

TCP and TLS: a connection, with an exchange of text if wanted. UDP: a datagram. DNS: one question (nameserver.py). HTTP
and HTTPS: one GET, by h11. The caller sets the deadline. A server's answer is hostile: a bounded number of bytes is
read, and only the answer to the question counts.

Every function raises OSError and ssl.SSLError as they come, Blocked where it could not ask, and Nonsense where the
answer is not of the protocol.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from functools import cache

import h11

from feedback.config.probe import Check
from feedback.master.claims.asking import Probe
from feedback.master.claims.health import Outcome, Unasked
from feedback.master.shell import certificate, weight
from feedback.master.shell.nameserver import DNS_BYTES_MAX, judged, question
from feedback.master.shell.way import Ports, Ways
from feedback.model import Address, format_endpoint

BODY_BYTES_MAX = 64 * 1024
ANSWER_BYTES_MAX = 4096  # of words, and of a datagram
SHOWN_BYTES_MAX = 60
SILENCE_PART = 0.9  # of the timeout, before a silence that counts as good is taken for one

WAYS, PORTS = Ways(), Ports.of_host()
UNIT = "systemctl cat feedback-master: AmbientCapabilities=CAP_NET_ADMIN"
Ask = Callable[[Check, Probe], Awaitable[Outcome]]


class Nonsense(Exception):  # noqa: N818 - an outcome, not a fault
    """The answer is not of the protocol: what was wrong."""


class Blocked(Exception):  # noqa: N818 - an outcome, not a fault
    """Something on this host keeps the check from being made."""

    def __init__(self, why: Unasked) -> None:
        super().__init__(why.reason)
        self.why = why


async def dial(to: Probe, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A connected socket, which is the caller's to close. Raises Blocked."""
    address, port = to.target.connect_to
    client = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        if to.target.through is not None:
            _send_through(client, to, to.target.through.vip)
        await asyncio.get_running_loop().sock_connect(client, (str(address), port))
    except BaseException:
        client.close()
        raise
    return client


def _send_through(client: socket.socket, to: Probe, vip: Address) -> None:
    """By the mark that IPVS forwards to this server, and from an address to which it can answer: by itself the kernel
    would take the VIP, which the server has too. At the end a reset: after a FIN the director would remember each check
    for two minutes, after a reset for ten seconds."""
    way = WAYS.to(to.target.address, vip)
    if way.obstacle is not None:
        raise Blocked(way.obstacle)
    try:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, to.mark)
    except PermissionError:
        raise Blocked(Unasked("marking a packet needs CAP_NET_ADMIN", UNIT)) from None
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    PORTS.bind(client, way.source)


async def tcp(check: Check, to: Probe) -> Outcome:
    client = await dial(to)
    if not check.send and not check.expect:
        client.close()  # a third of a stream's cost
        return Outcome(True, "connected")
    reader, writer = await asyncio.open_connection(sock=client)
    try:
        return await _talk(check, reader, writer)
    finally:
        writer.transport.close()


async def tls(check: Check, to: Probe) -> Outcome:
    reader, writer = await _secured(check, to)
    # abort, not close: a peer that does not end its TLS must not hold our end
    try:
        return certificate.noted(await _talk(check, reader, writer), writer, check.expiry_days)
    finally:
        writer.transport.abort()


async def _secured(check: Check, to: Probe) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    name = check.host or str(to.target.connect_to[0])
    return await asyncio.open_connection(sock=await dial(to), ssl=_context(check.verify), server_hostname=name)


async def _talk(check: Check, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Outcome:
    """What is sent, and whether the expected comes back: anywhere in the first bytes."""
    writer.write(check.sent)
    expected, heard = check.expected, b""
    while expected not in heard:
        more = await reader.read(ANSWER_BYTES_MAX)
        if not more:
            return Outcome(False, f"closed without {_shown(expected)}: {_shown(heard)}")
        heard += more
        if len(heard) > ANSWER_BYTES_MAX:
            return Outcome(False, f"{_shown(expected)} is not in its first 4 KiB: {_shown(heard)}")
    writer.write(check.parting)
    return Outcome(True, f"said {_shown(expected)}" if expected else "connected")


def _shown(data: bytes) -> str:
    return repr(data[:SHOWN_BYTES_MAX].decode("latin-1"))


async def udp(check: Check, to: Probe) -> Outcome:
    """A refusal comes as ICMP, and as an OSError here."""
    loop = asyncio.get_running_loop()
    with await dial(to, socket.SOCK_DGRAM) as client:
        await loop.sock_sendall(client, check.sent)
        if not check.reply:
            try:
                async with asyncio.timeout(check.timeout_seconds * SILENCE_PART):
                    await loop.sock_recv(client, ANSWER_BYTES_MAX)
            except TimeoutError:
                return Outcome(True, "not refused")
            return Outcome(True, "answered")
        heard = await loop.sock_recv(client, ANSWER_BYTES_MAX)
    if check.expected not in heard:
        return Outcome(False, f"answered {_shown(heard)}, without {_shown(check.expected)}")
    return Outcome(True, f"said {_shown(check.expected)}" if check.expected else "answered")


async def dns(check: Check, to: Probe) -> Outcome:
    asked = question(check)
    ask = _dns_over_tcp if check.transport == "tcp" else _dns_over_udp
    return judged(check, asked, await ask(asked.to_wire(), to))


async def _dns_over_udp(asked: bytes, to: Probe) -> bytes:
    """The first datagram with the question's number: the socket takes them from that server only."""
    loop = asyncio.get_running_loop()
    with await dial(to, socket.SOCK_DGRAM) as client:
        await loop.sock_sendall(client, asked)
        while (heard := await loop.sock_recv(client, DNS_BYTES_MAX))[:2] != asked[:2]:
            pass
    return heard


async def _dns_over_tcp(asked: bytes, to: Probe) -> bytes:
    reader, writer = await asyncio.open_connection(sock=await dial(to))
    try:
        writer.write(len(asked).to_bytes(2) + asked)
        size = int.from_bytes(await reader.readexactly(2))
        if size > DNS_BYTES_MAX:
            raise Nonsense(f"an answer of {size} bytes: {DNS_BYTES_MAX} are taken")
        return await reader.readexactly(size)
    except asyncio.IncompleteReadError:
        raise Nonsense("closed without an answer") from None
    finally:
        writer.transport.abort()


async def http(check: Check, to: Probe) -> Outcome:
    if check.type == "https":
        reader, writer = await _secured(check, to)
    else:
        reader, writer = await asyncio.open_connection(sock=await dial(to))
    try:
        outcome = await _get(check, check.host or format_endpoint(*to.target.connect_to), reader, writer)
        return certificate.noted(outcome, writer, check.expiry_days) if check.type == "https" else outcome
    except h11.ProtocolError as error:
        raise Nonsense(f"not HTTP: {error}") from None
    finally:
        writer.transport.abort()


async def _get(check: Check, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Outcome:
    connection = h11.Connection(h11.CLIENT)
    headers = [("Host", host), ("User-Agent", "feedback-check"), ("Connection", "close")]
    writer.write(connection.send(h11.Request(method="GET", target=check.path, headers=headers)) or b"")
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    status, body, said = 0, b"", weight.NOT_ASKED
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(BODY_BYTES_MAX))
        elif isinstance(event, h11.Response):
            status = event.status_code
            if status not in check.status:
                return Outcome(False, f"status {status}")
            said = weight.in_header(check, event.headers)
            if not check.body and not check.weight_json:
                return said.onto(Outcome(True, f"status {status}"))
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
            if not check.weight_json and check.body.encode() in body:
                return said.onto(Outcome(True, f"status {status} with the text"))
            if len(body) > BODY_BYTES_MAX:
                return _ended(check, status, body, f"status {status}, and the text is not in its first 64 KiB")
        elif not isinstance(event, h11.InformationalResponse):
            return _ended(check, status, body, f"status {status} without the text")


def _ended(check: Check, status: int, body: bytes, without: str) -> Outcome:
    """Of a body that was read to its end, or to ours."""
    if check.body.encode() not in body:
        return Outcome(False, without)
    said = weight.in_body(check, body)
    return said.onto(Outcome(True, f"status {status}" + (" with the text" if check.body else "")))


@cache
def _context(verify: bool) -> ssl.SSLContext:
    """Real servers are asked by address and often have certificates for their own use."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


KINDS: dict[str, Ask] = {"tcp": tcp, "tls": tls, "udp": udp, "dns": dns, "http": http, "https": http}
