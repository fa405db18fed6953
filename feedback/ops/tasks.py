"""Tasks: everything that a daemon starts beside its loop has an owner, which learns how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from feedback.faults import said
from feedback.ops.logs import Log


class Tasks:
    """The tasks of one owner. Each that ended by an exception is logged, and then `failed` is called in the loop with
    what it was for and why."""

    def __init__(self, log: Log, failed: Callable[[str, str], None] = lambda name, reason: None) -> None:
        self._log, self._failed = log, failed
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """In the running loop."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def cancel(self) -> None:
        """All of them; they are not waited for."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Cancel all of them and wait for their ends."""
        self.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            name, reason = task.get_name(), said(error)
            self._log.error("fault", task=name, reason=reason)
            self._failed(name, reason)
