"""HTTP: requests to the pages, on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from feedback.web.server import Server
from feedback.web.view import View
from tests.fuzz.target import Take, Target
from tests.web.documents import document

STATUSES = {b"200", b"400", b"404", b"405", b"414", b"431", b"501", b"503"}


@contextmanager
def pages() -> Iterator[Take]:
    complaints: list[str] = []

    async def exchange(address: tuple[str, int], data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(data)
            writer.write_eof()
            return await asyncio.wait_for(reader.read(), 5)
        except ConnectionError:
            return b""  # refused before all of it was sent
        finally:
            writer.transport.abort()

    async def closed() -> None:
        server.close()
        await asyncio.sleep(0.01)

    with asyncio.Runner() as runner:
        server = Server(lambda: View(0.0, 0.0, "active", document), complaints.append)
        address = runner.run(server.open("127.0.0.1:0"))

        def take(data: bytes) -> None:
            answer = runner.run(exchange(address, data))
            assert not complaints, complaints
            if answer:
                assert answer[:9] == b"HTTP/1.1 " and answer[9:12] in STATUSES, answer[:80]

        yield take
        runner.run(closed())


TARGETS = (
    Target(
        name="http-request",
        opened=pages,
        tokens=(b"\r\n\r\n", b"GET /status?why=", b"/" * 2000, b"%ff", b"Host: x\r\n",
                b"Transfer-Encoding: chunked\r\n", b"Content-Length: 99999999999999999999\r\n",
                b"//[", b"Accept: \xff\r\n", b"\0", b"a: b\r\n" * 1500),
        cpu_seconds=1.0,
        costs=4,
    ),
)  # fmt: skip
