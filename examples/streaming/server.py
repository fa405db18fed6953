"""A streaming server whose sessions continue on another server when this one dies.

    python3 server.py PORT [AGENT-SOCKET] [SESSIONS-DIRECTORY]

A client says `SESSION\\n` and hears `OFFSET\\n`, and then the stream from that offset on. Ten times a second the server
tells the agent how far each client has come. A stand-in reads that in the directory that its own agent writes, and so
begins where the other server ended. It needs nothing but Python's standard library.
"""

import asyncio
import contextlib
import fcntl
import itertools
import json
import socket
import struct
import sys
import termios
from pathlib import Path

BYTES_PER_SECOND = 250_000
STEPS_PER_SECOND = 50
TELLS_PER_SECOND = 10


def content(offset: int, size: int) -> bytes:
    """The stream: every four bytes are their own number, so that a client notices what is missing or wrong."""
    first, last = offset // 4, (offset + size + 3) // 4
    return struct.pack(f">{last - first}I", *range(first, last))[offset % 4 :][:size]


def acknowledged(writer: asyncio.StreamWriter, sent: int) -> int:
    """How far the client has certainly come. Bytes that wait in this process or its kernel do not count."""
    raw = writer.get_extra_info("socket")
    waiting = struct.unpack("i", fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
    return max(0, sent - waiting - writer.transport.get_write_buffer_size())


class Server:
    def __init__(self, port: int, agent: str, directory: str) -> None:
        self.port, self.agent, self.directory = port, agent, directory
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def begins(self, session: str) -> int:
        """How far the previous server came; 0 for an unknown session."""
        with contextlib.suppress(OSError, ValueError):
            return int(json.loads(Path(self.directory, f"{self.port}.json").read_text()).get(session, 0))
        return 0

    def tell(self, session: str, offset: int) -> bool:
        """False if the agent accepts nothing now. Then report again soon."""
        word = {"port": self.port, "session": session, "value": str(offset)}
        try:
            self.socket.sendto(json.dumps(word).encode(), self.agent)
        except OSError:
            return False
        return True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, ValueError):
            session = (await reader.readline()).decode().strip()
            if not session:  # a health check
                return
            sent = self.begins(session)
            writer.write(f"{sent}\n".encode())
            told = False
            for step in itertools.count():
                chunk = content(sent, BYTES_PER_SECOND // STEPS_PER_SECOND)
                writer.write(chunk)
                sent += len(chunk)
                await writer.drain()
                if self.agent and (not told or step % (STEPS_PER_SECOND // TELLS_PER_SECOND) == 0):
                    told = self.tell(session, acknowledged(writer, sent))
                await asyncio.sleep(1 / STEPS_PER_SECOND)


async def main(port: int, agent: str = "", directory: str = "") -> None:
    server = Server(port, agent, directory)
    async with await asyncio.start_server(server.serve, None, port) as listening:
        await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:4]))
