"""The shell of the checks: asks destinations, and hands what came of it to the controller. It decides nothing.

TCP: a connection is made. HTTP and HTTPS: one GET, by h11, status and text compared. exec: a program's exit status, run
elsewhere and without capabilities (programs.py), all of it killed at the deadline. agent-check: one line. Every probe
has a deadline and an end; so many go at once and no more, the rest waits its turn, and a destination is never asked
twice at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import cache

import h11

from feedback.config.probe import AgentSource, Check
from feedback.faults import said
from feedback.master.claims.advice import LINE_BYTES_MAX
from feedback.master.claims.asking import Probe
from feedback.master.claims.health import Outcome
from feedback.master.shell.programs import Gone, Programs
from feedback.ops.descriptors import NONE_LEFT
from feedback.ops.logs import Log
from feedback.ops.tasks import Tasks
from feedback.wire import printable

LOG = Log("probes")

CONNECTIONS_MAX = 512
PROGRAMS_MAX = 16
BODY_BYTES_MAX = 64 * 1024
OUTPUT_BYTES_MAX = 200

Receive = Callable[[Probe, Outcome | bytes | None, float], None]


class Probes:
    """Runs probes in a loop and a thread of their own: thousands a second must not make the master's turns late.
    `receive` gets each result in the loop that made this object."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._home = receive, asyncio.get_running_loop()
        self._tasks = Tasks(LOG)
        self._places = {"exec": asyncio.Semaphore(PROGRAMS_MAX)}
        self._usual = asyncio.Semaphore(CONNECTIONS_MAX)
        self._programs = Programs()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="probes", daemon=True)
        self._thread.start()

    def start(self, probes: list[Probe]) -> None:
        self._loop.call_soon_threadsafe(self._start, probes)

    async def close(self) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._end(), self._loop))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _start(self, probes: list[Probe]) -> None:
        for probe in probes:
            self._tasks.start(self._run(probe), f"check of {probe.target}")

    async def _end(self) -> None:
        await self._tasks.close()
        await self._programs.close()

    async def _run(self, probe: Probe) -> None:
        what = probe.what
        kind = what.type if isinstance(what, Check) else "agent"
        async with self._places.get(kind, self._usual):
            result: Outcome | bytes | None
            try:
                if isinstance(what, Check):
                    result = _printable(await _checked(what, probe, self._programs))
                else:
                    result = await _asked(what, probe)
            except Exception as error:
                LOG.error("fault", check=kind, target=str(probe.target), reason=said(error))
                result = None
        with contextlib.suppress(RuntimeError):  # the master stopped meanwhile
            self._home.call_soon_threadsafe(self._receive, probe, result, time.monotonic())


def _printable(outcome: Outcome | None) -> Outcome | None:
    """What a server or a program said is repeated in it."""
    return None if outcome is None else Outcome(outcome.good, printable(outcome.text))


async def _asked(source: AgentSource, probe: Probe) -> bytes | None:
    """The agent's line, None where it cannot be reached or says none."""
    try:
        async with asyncio.timeout(source.timeout_seconds):
            reader, writer = await asyncio.open_connection(str(probe.target.address), source.port)
            with contextlib.closing(writer.transport):
                if source.send:
                    writer.write(source.send.encode())
                return await _line(reader)
    except (TimeoutError, OSError):
        return None


async def _line(reader: asyncio.StreamReader) -> bytes:
    data = b""
    while len(data) < LINE_BYTES_MAX and b"\n" not in data and b"\r" not in data:
        more = await reader.read(LINE_BYTES_MAX)
        if not more:
            break
        data += more
    return data


async def _checked(check: Check, probe: Probe, programs: Programs) -> Outcome | None:
    """None where it could not be asked for want of descriptors or memory here: that says nothing of the server."""
    address, port = str(probe.target.address), probe.target.port
    began = time.monotonic()
    try:
        if check.type == "exec":
            await programs.start()
            began = time.monotonic()
        async with asyncio.timeout(check.timeout_seconds):
            if check.type == "exec":
                words = [w.replace("{address}", address).replace("{port}", str(port)) for w in check.command]
                status, said = await programs.run(words)
                outcome = Outcome(status == 0, f"exit status {status}" + (f": {said}" if said else ""))
            elif check.type == "tcp":
                outcome = await _connection(address, port)
            else:
                outcome = await _http(check, address, port)
    except Gone as gone:
        LOG.error("check-not-run", program=check.command[0], reason=str(gone))
        return None
    except TimeoutError:
        return Outcome(False, f"{check.type}: no answer within {check.timeout_seconds:g} s")
    except ssl.SSLError as error:
        return Outcome(False, f"{check.type}: {error.reason or 'TLS fails'}")
    except OSError as error:
        if error.errno in NONE_LEFT:
            return None
        reason = os.strerror(error.errno) if error.errno else str(error)  # asyncio's own strerror hides it
        return Outcome(False, f"{check.type}: {reason.lower()}")
    except (h11.ProtocolError, ValueError) as error:  # and names that cannot be sent
        return Outcome(False, f"{check.type}: not HTTP: {error}"[:OUTPUT_BYTES_MAX])
    return Outcome(outcome.good, f"{check.type}: {outcome.text}, {1000 * (time.monotonic() - began):.0f} ms")


async def _connection(address: str, port: int) -> Outcome:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as client:  # a third of a stream's cost
        await asyncio.get_running_loop().sock_connect(client, (address, port))
    return Outcome(True, "connected")


async def _http(check: Check, address: str, port: int) -> Outcome:
    tls = _tls(check.verify) if check.type == "https" else None
    name = (check.host or address) if tls is not None else None
    reader, writer = await asyncio.open_connection(address, port, ssl=tls, server_hostname=name)
    # abort, not close: a peer that does not end its TLS must not hold our end
    try:
        return await _get(check, check.host or _host(address, port), reader, writer)
    finally:
        writer.transport.abort()


async def _get(check: Check, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Outcome:
    connection = h11.Connection(h11.CLIENT)
    headers = [("Host", host), ("User-Agent", "feedback-check"), ("Connection", "close")]
    writer.write(connection.send(h11.Request(method="GET", target=check.path, headers=headers)) or b"")
    writer.write(connection.send(h11.EndOfMessage()) or b"")
    status, body = 0, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(BODY_BYTES_MAX))
        elif isinstance(event, h11.Response):
            status = event.status_code
            if status not in check.status:
                return Outcome(False, f"status {status}")
            if not check.body:
                return Outcome(True, f"status {status}")
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
            if check.body.encode() in body:
                return Outcome(True, f"status {status} with the text")
            if len(body) > BODY_BYTES_MAX:
                return Outcome(False, f"status {status}, and the text is not in its first 64 KiB")
        elif not isinstance(event, h11.InformationalResponse):
            return Outcome(False, f"status {status} without the text")


def _host(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@cache
def _tls(verify: bool) -> ssl.SSLContext:
    """Real servers are asked by address and often have certificates for their own use."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
