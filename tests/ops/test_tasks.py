"""Every task's end is heard by its owner."""

from __future__ import annotations

import asyncio

import pytest

from feedback.ops.logs import Log
from feedback.ops.tasks import Tasks


def test_an_owner_hears_an_exception_and_nothing_of_other_ends(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[tuple[str, str]] = []

    async def fails() -> None:
        raise ValueError("no \x1b[31mway")

    async def ends() -> None:
        await asyncio.sleep(0)

    async def stays() -> None:
        await asyncio.sleep(60)

    async def scenario() -> None:
        tasks = Tasks(Log("test"), lambda name, reason: heard.append((name, reason)))
        for work in (fails, ends, stays):
            tasks.start(work(), work.__name__)
        await asyncio.sleep(0.01)
        await tasks.close()

    asyncio.run(scenario())
    ((name, reason),) = heard
    assert name == "fails"
    assert reason.startswith("ValueError: no ") and " at fails:" in reason and reason.isprintable()
    told = capsys.readouterr().err
    assert "event=fault" in told and "task=fails" in told and told.count("event=") == 1
