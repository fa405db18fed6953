"""The shell of the exporters: one kept connection to each, one page at a time. It decides nothing.

A server's page is hostile: a bounded number of bytes is read, the connection is dropped at the deadline, and no
redirection is followed. What the page means is in feedback/master/sources. There is no limit on how many go at once,
since each exporter is asked one thing at a time: a server that hangs blocks only its own place.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from base64 import b64encode
from functools import cache
from pathlib import Path

import h11

from feedback.config.exporter import Exporter
from feedback.master.claims.asking import Probe, Target
from feedback.master.shell.kinds import dial
from feedback.master.sources.reading import Reader, Unread
from feedback.model import format_endpoint
from feedback.refusals import printable
from feedback.wire import Report

PAGE_BYTES_MAX = 1024 * 1024
READ_BYTES = 64 * 1024
PASSWORD_BYTES_MAX = 4096
UNUSED_SECONDS = 180.0  # three times the longest interval
REASON_SIGNS_MAX = 200


class _Refused(Exception):  # noqa: N818 - an outcome, not a fault
    """The answer is no page: what it is."""


class _Gone(Exception):  # noqa: N818
    """A kept connection that the server had closed before it answered."""


class Scrapes:
    """Of one loop."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Exporter, Target], _Kept] = {}
        self._swept_at = time.monotonic()

    async def read(self, exporter: Exporter, probe: Probe) -> Report | Unread:
        """One page, as a report."""
        self._sweep()
        kept = self._kept.get((exporter, probe.target))
        if kept is None:
            kept = self._kept[exporter, probe.target] = _Kept(exporter, probe)
        return await kept.read()

    def close(self) -> None:
        for kept in self._kept.values():
            kept.drop()

    def _sweep(self) -> None:
        """Nobody asks those any more that a reload took out of the configuration."""
        now = time.monotonic()
        if now - self._swept_at < UNUSED_SECONDS:
            return
        self._swept_at = now
        for key, kept in list(self._kept.items()):
            if now - kept.used_at > UNUSED_SECONDS:
                kept.drop()
                del self._kept[key]


class _Kept:
    """One exporter of one server: its connection, while there is one, and its stream."""

    def __init__(self, exporter: Exporter, probe: Probe) -> None:
        self._exporter, self._probe = exporter, probe
        self._reader = Reader(exporter, probe.target.address)
        self._path = exporter.asked_path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._protocol = h11.Connection(h11.CLIENT)
        self._headers: list[tuple[str, str]] = []
        self.used_at = time.monotonic()

    def drop(self) -> None:
        """Abort, not close: a peer that does not end its TLS must not hold our end."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def read(self) -> Report | Unread:
        self.used_at = time.monotonic()
        try:
            async with asyncio.timeout(self._exporter.timeout_seconds):
                page, at = await self._page()
        except TimeoutError:
            reason = f"no page within {self._exporter.timeout_seconds:g} s"
        except ssl.SSLError as error:
            reason = error.reason or "TLS fails"
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
        except h11.ProtocolError as error:
            reason = f"not HTTP: {error}"
        except (_Refused, _Gone, ValueError) as error:  # and names that cannot be sent
            reason = str(error)
        else:
            return self._reader.read(page, at)
        finally:
            if self._protocol.our_state is not h11.IDLE:  # something of this page is still to come
                self.drop()
        return Unread(printable(reason)[:REASON_SIGNS_MAX])

    async def _page(self) -> tuple[bytes, float]:
        """The page, and when the server made it as far as can be told from here."""
        status, page, at = await self._answer()
        if status == 400 and self._exporter.path is None and "?" in self._path:  # it has not all collectors
            self._path = self._path.partition("?")[0]
            status, page, at = await self._answer()
        if status != 200:
            raise _Refused(f"status {status} at {self._path}")
        return page, at

    async def _answer(self) -> tuple[int, bytes, float]:
        kept = self._streams is not None
        try:
            return await self._exchange()
        except _Gone:
            self.drop()
            if not kept:
                raise
            return await self._exchange()

    async def _exchange(self) -> tuple[int, bytes, float]:
        if self._streams is None or self._streams[1].is_closing() or self._streams[0].at_eof():
            self.drop()
            await self._connect()
        assert self._streams is not None
        reader, writer = self._streams
        protocol, asked_at = self._protocol, time.monotonic()
        request = h11.Request(method="GET", target=self._path, headers=self._headers)
        writer.write((protocol.send(request) or b"") + (protocol.send(h11.EndOfMessage()) or b""))
        status, parts, size, answered_at = 0, list[bytes](), 0, 0.0
        while True:
            event = protocol.next_event()
            if event is h11.NEED_DATA:
                data = await _received(reader)
                if not data and not answered_at:
                    raise _Gone("closed without an answer")
                answered_at = answered_at or time.monotonic()
                protocol.receive_data(data)
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > PAGE_BYTES_MAX:
                    raise _Refused(f"a page of over {PAGE_BYTES_MAX // 1024} KiB: ask for less by its path")
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                break
            elif not isinstance(event, h11.InformationalResponse):
                raise _Refused("closed in the middle of the page")
        if protocol.their_state is h11.DONE:
            protocol.start_next_cycle()
        else:
            self.drop()
        return status, b"".join(parts), (asked_at + answered_at) / 2

    async def _connect(self) -> None:
        of, target = self._exporter, self._probe.target
        name = of.host or format_endpoint(target.address, target.port)
        self._headers = [("Host", name), ("User-Agent", "feedback-master"), ("Accept", "text/plain;version=0.0.4")]
        if of.password_file is not None:
            self._headers.append(("Authorization", _basic(of.username, of.password_file)))
        context = _context(of.verify, of.ca) if of.tls else None
        client = await dial(self._probe)
        self._protocol = h11.Connection(h11.CLIENT)
        server = (of.host or str(target.address)) if context else None
        self._streams = await asyncio.open_connection(sock=client, ssl=context, server_hostname=server)


async def _received(reader: asyncio.StreamReader) -> bytes:
    """b"" at the end, however it came."""
    try:
        return await reader.read(READ_BYTES)
    except ConnectionError:
        return b""


def _basic(username: str, password: Path) -> str:
    """Read for each connection: it may be changed. Raises OSError and ValueError."""
    with password.open("rb") as file:
        secret = file.read(PASSWORD_BYTES_MAX).strip()
    return "Basic " + b64encode(username.encode() + b":" + secret).decode("ascii")


@cache
def _context(verify: bool, ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
