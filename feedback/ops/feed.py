"""Feed: lines for one lasting reader, with a bounded buffer.

The writer never waits: a reader that is too slow is told so and loses the rest.
Invariant: lines arrive in order and without a gap, or the feed has ended and says why.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

BYTES_MAX = 8 * 1024 * 1024
BATCH_SECONDS = 0.2  # lines are sent together


class Feed:
    """`open` is false once it has ended, or nobody reads any more."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self.open = True
        self._bytes_max = bytes_max
        self._lines: list[bytes] = []
        self._bytes = 0
        self._reason = ""
        self._news = asyncio.Event()

    def put(self, line: bytes) -> None:
        """`line` with its newline."""
        if not self.open:
            return
        if self._bytes + len(line) > self._bytes_max:
            self.end("the reader is too slow")
            return
        self._lines.append(line)
        self._bytes += len(line)
        self._news.set()

    def end(self, reason: str) -> None:
        self.open, self._reason = False, self._reason or reason
        self._news.set()

    def close(self) -> None:
        """Nobody reads any more."""
        self.open = False
        self._lines.clear()

    async def batches(self) -> AsyncIterator[bytes]:
        """Whole lines; the last is `{"end": REASON}`."""
        while True:
            await self._news.wait()
            if self.open:
                await asyncio.sleep(BATCH_SECONDS)
            self._news.clear()
            data, self._bytes = b"".join(self._lines), 0
            self._lines.clear()
            if data:
                yield data
            if not self.open:
                yield json.dumps({"end": self._reason}).encode() + b"\n"
                return
