"""The shell of the pages: sockets, limits, and a thread that renders. It can slow down only its own clients.

h11 reads the requests; one request a connection. Limits: connections (the oldest is cut off for a new one, so that slow
clients cannot keep others out), the size of a request's head, the time from connect to the last byte. Whole pages are
made in one worker thread that rests as long as it worked: the loop that decides shares its interpreter lock.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import h11

from feedback.model import parse_endpoint
from feedback.web.site import COMMON, Request, Response, page, probe, refusal
from feedback.web.view import View

CONNECTIONS_MAX = 32
HEAD_BYTES_MAX = 8192
EXCHANGE_SECONDS = 10.0
CHUNK_BYTES = 64 * 1024

Look = Callable[[], View]
Complain = Callable[[str], None]


class Server:
    """Serves the pages of what `look` tells; `complain` hears of a page that could not be made. Open and close it
    inside a running loop."""

    def __init__(self, look: Look, complain: Complain) -> None:
        self._look, self._complain = look, complain
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._worker = ThreadPoolExecutor(1, "pages")
        self._rendering = asyncio.Lock()
        self._rests_until = 0.0

    async def open(self, listen: str) -> tuple[str, int]:
        """Listen at ADDRESS:PORT. Returns the address as bound. Raises OSError or ValueError."""
        address, port = parse_endpoint(listen)
        self._server = await asyncio.start_server(self._accept, str(address), port, limit=HEAD_BYTES_MAX)
        host, bound = self._server.sockets[0].getsockname()[:2]
        return str(host), int(bound)

    def close(self) -> None:
        """Close at once. A client that is being answered is cut off."""
        if self._server is not None:
            self._server.close()
        for task, writer in self._clients.items():
            writer.transport.abort()
            task.cancel()
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= CONNECTIONS_MAX:
            oldest = next(iter(self._clients))
            self._clients.pop(oldest).transport.abort()
            oldest.cancel()
        task = asyncio.current_task()
        assert task is not None
        self._clients[task] = writer
        writer.transport.set_write_buffer_limits(0)  # drain() then waits for the last byte, under the deadline
        try:
            async with asyncio.timeout(EXCHANGE_SECONDS):
                await self._exchange(reader, writer)
        except (TimeoutError, OSError, asyncio.CancelledError):
            writer.transport.abort()  # too slow, gone, or somebody else's turn
        finally:
            self._clients.pop(task, None)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        try:
            request = await _request(connection, reader)
        except h11.RemoteProtocolError as error:
            await _send(connection, writer, refusal(error.error_status_hint, "not a request that can be answered"))
            return
        if request is not None:
            response = await self._answer(request)
            await _send(connection, writer, response, with_body=request.method != "HEAD")

    async def _answer(self, request: Request) -> Response:
        view = self._look()
        quick = probe(request, view)
        if quick is not None:
            return quick
        async with self._rendering:
            await asyncio.sleep(self._rests_until - time.monotonic())
            began, loop = time.monotonic(), asyncio.get_running_loop()
            try:
                return await loop.run_in_executor(self._worker, page, request, view, time.time())
            except Exception as error:  # a page is never worth the master
                self._complain(f"{request.target}: {error!r}")
                return refusal(500, "this page could not be made: see the master's log")
            finally:
                self._rests_until = 2 * time.monotonic() - began


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    """The head of a request, or None where the client went away. Raises h11.RemoteProtocolError."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(HEAD_BYTES_MAX))
            continue
        if not isinstance(event, h11.Request):
            return None
        accept = b",".join(value for name, value in event.headers if name == b"accept")
        return Request(event.method.decode(), event.target.decode(), accept.decode("latin-1"))


async def _send(
    connection: h11.Connection, writer: asyncio.StreamWriter, response: Response, with_body: bool = True
) -> None:
    if connection.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
        return
    headers = [
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        ("Connection", "close"),
        *COMMON,
        *response.headers,
    ]
    writer.write(connection.send(h11.Response(status_code=response.status, headers=headers)) or b"")
    body = memoryview(response.body if with_body else b"")
    for start in range(0, len(body), CHUNK_BYTES):
        writer.write(body[start : start + CHUNK_BYTES])
        await writer.drain()
    await writer.drain()
