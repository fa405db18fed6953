"""Programs of checks, as the master sees them: one process (ops/runner.py) runs them all, without its capability.

It is started for the first check, and again if it has ended; a check that ended with it says nothing about its server.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
from collections.abc import Sequence

import msgspec

from feedback.ops.logs import Log
from feedback.ops.runner import LINE_BYTES_MAX, Answer, Request
from feedback.ops.tasks import Tasks

LOG = Log("probes")

GONE = "the process that runs programs has ended"
END_SECONDS = 5.0  # for the process to end what runs
_RUNNER = (sys.executable, "-m", "feedback.ops.runner")
_MANAGERS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY")  # no business of a check


class Gone(Exception):  # noqa: N818 - an outcome, not a fault
    """The process that runs programs went, or cannot be started."""


class Programs:
    """Use it in one loop. `close` ends all that runs."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._tasks = Tasks(LOG)
        self._starts = asyncio.Lock()

    async def run(self, words: Sequence[str]) -> tuple[int, str]:
        """Exit status, and the first line that was said. Cancelled, it ends the program. Raises Gone, and OSError where
        the program cannot be started."""
        process = await self.start()
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._send(process, Request(number, tuple(words)))
            found = await answer
        except asyncio.CancelledError:
            with contextlib.suppress(Gone):
                self._send(process, Request(number, None))
            raise
        finally:
            self._waiting.pop(number, None)
        if found.errno:
            raise OSError(found.errno, os.strerror(found.errno))
        return found.status, found.said

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        process.stdin.close()  # it ends what runs, and then itself
        try:
            await asyncio.wait_for(process.wait(), END_SECONDS)
        except TimeoutError:
            process.kill()
        await self._tasks.close()

    async def start(self) -> asyncio.subprocess.Process:
        """The process, begun where there is none. Raises Gone. `run` does it too, in its own time."""
        async with self._starts:
            if self._process is None:
                environment = {name: value for name, value in os.environ.items() if name not in _MANAGERS}
                process = await asyncio.create_subprocess_exec(
                    *_RUNNER,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    start_new_session=True,
                    env=environment,
                    limit=LINE_BYTES_MAX,
                )
                assert process.stdout is not None
                if not await process.stdout.readline():  # it says when it is there
                    raise Gone(f"{' '.join(_RUNNER)} ended with status {await process.wait()}")
                self._process = process
                self._tasks.start(self._listen(process), "programs")
            return self._process

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Hand out the answers; when there are no more, for whatever reason, whoever still waits is told."""
        assert process.stdout is not None and process.stdin is not None
        try:
            while line := await process.stdout.readline():
                answer = msgspec.json.decode(line, type=Answer)
                if (waits := self._waiting.get(answer.number)) is not None and not waits.done():
                    waits.set_result(answer)
        finally:
            process.stdin.close()  # nobody listens to it any more: what runs there ends
            if self._process is process:
                self._process = None
            for waits in self._waiting.values():
                if not waits.done():
                    waits.set_exception(Gone(GONE))

    @staticmethod
    def _send(process: asyncio.subprocess.Process, request: Request) -> None:
        assert process.stdin is not None
        if process.stdin.is_closing():
            raise Gone(GONE)
        process.stdin.write(msgspec.json.encode(request) + b"\n")
