"""Clients of the streaming server. When a connection ends they reconnect and continue where they were.

    python3 client.py HOST PORT SECONDS SESSION...

What the server repeats is dropped. At the end there is a JSON line for each session: bytes, those that were wrong or
never came, connections, and the longest time without a new byte. It needs nothing but Python's standard library.
"""

import contextlib
import json
import socket
import sys
import threading
import time

from server import content

TIMEOUT_SECONDS = 8.0  # of a client that hears nothing
AGAIN_SECONDS = 0.02


class Viewer:
    def __init__(self, host: str, port: int, session: str) -> None:
        self.host, self.port, self.session = host, port, session
        self.have = self.wrong = self.connections = 0
        self.longest, self.heard_at = 0.0, time.monotonic()

    def watch(self, end: float) -> None:
        """Run until `end`, a time of the monotonic clock."""
        while time.monotonic() < end:
            self.connections += 1
            with contextlib.suppress(OSError, ValueError):
                self.view(end)
            time.sleep(AGAIN_SECONDS)
        self.longest = max(self.longest, time.monotonic() - self.heard_at)

    def view(self, end: float) -> None:
        """One connection. Raises OSError if it breaks."""
        with socket.create_connection((self.host, self.port), TIMEOUT_SECONDS) as sock:
            sock.sendall(f"{self.session}\n".encode())
            stream = sock.makefile("rb")
            at = int(stream.readline())
            if at > self.have:
                self.wrong, self.have = self.wrong + at - self.have, at  # this gap is never filled
            while time.monotonic() < end and (data := stream.read1(65536)):
                self.take(at, data)
                at += len(data)

    def take(self, at: int, data: bytes) -> None:
        expected = content(at, len(data))
        if data != expected:
            self.wrong += sum(a != b for a, b in zip(data, expected, strict=True))
        if at + len(data) > self.have:
            now = time.monotonic()
            self.longest = max(self.longest, now - self.heard_at)
            self.have, self.heard_at = at + len(data), now

    def told(self) -> str:
        counts = {"bytes": self.have, "wrong_bytes": self.wrong, "connections": self.connections}
        return json.dumps({"session": self.session, **counts, "interrupted_seconds": round(self.longest, 3)})


def main(host: str, port: int, seconds: float, sessions: list[str]) -> None:
    viewers = [Viewer(host, port, session) for session in sessions]
    end = time.monotonic() + seconds
    threads = [threading.Thread(target=viewer.watch, args=(end,)) for viewer in viewers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for viewer in viewers:
        print(viewer.told())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
