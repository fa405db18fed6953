"""`feedback events` follows two daemons: in order, each event once, through restarts, and what was missed is said."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from feedback.cli import events as module
from feedback.cli.events import Source
from feedback.cli.main import main
from feedback.master.shell.events import Ring
from feedback.ops.control import serve


class Daemons:
    """The control sockets of a master and a sync daemon, with events that a test makes."""

    def __init__(self, directory: Path) -> None:
        self.master, self.sync = directory / "master.sock", directory / "sync.sock"
        self.ring = Ring("first", kept=5)
        self.transitions: list[dict[str, Any]] = []

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        return self.ring.since(request.get("since", 0), request.get("stream", ""))

    def sync_answer(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"events": [e for e in self.transitions if e["number"] > request.get("since", -1)]}

    def run(self, *words: str) -> list[dict[str, Any]]:
        arguments = ["events", "--control", str(self.master), "--sync-control", str(self.sync), *words]
        answer = CliRunner().invoke(main, arguments)
        assert answer.exit_code == 0, answer.output
        return [json.loads(line) for line in answer.stdout.splitlines()]


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    made, loop, ready = Daemons(tmp_path), asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def both() -> None:
        async with await serve(made.master, made.answer), await serve(made.sync, made.sync_answer):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(both()))
    thread.start()
    assert ready.wait(5)
    yield made
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def test_the_pairs_transitions_are_merged_by_their_time(daemons: Daemons) -> None:
    daemons.ring.add("started", 10.0, {})
    daemons.ring.add("role", 12.0, {"role": "active"})
    daemons.transitions = [{"number": 1, "at": 11.0, "kind": "transition", "old": "standby", "new": "active"}]
    found = daemons.run()
    assert [(e["source"], e["kind"]) for e in found] == [
        ("master", "started"),
        ("sync", "transition"),
        ("master", "role"),
    ]
    assert {e["schema"] for e in found} == {1}
    assert [e["kind"] for e in daemons.run("--kind", "role")] == ["role"]


def test_what_was_not_kept_is_said(daemons: Daemons) -> None:
    for i in range(8):
        daemons.ring.add("role", float(i), {})
    gone = [e for e in daemons.run() if e["kind"] == "gone"]
    assert [e["count"] for e in gone] == [3]


def test_following_gives_each_event_once_and_goes_on_through_a_restart(daemons: Daemons) -> None:
    source = Source("master", daemons.master)
    daemons.ring.add("started", 1.0, {})
    assert [e["kind"] for e in source.news()] == ["started"]
    assert source.news() == []
    daemons.ring.add("role", 2.0, {})
    assert [e["kind"] for e in source.news()] == ["role"]
    daemons.ring = Ring("second")
    daemons.ring.add("started", 3.0, {})
    assert [e["at"] for e in source.news()] == [3.0]


def test_a_daemon_that_is_away_is_waited_for(daemons: Daemons, tmp_path: Path) -> None:
    source = Source("sync", tmp_path / "none.sock")
    assert source.news() == []
    assert "is `feedback sync` running?" in source.problem
    source._path = daemons.sync
    daemons.transitions = [{"number": 1, "at": 11.0, "kind": "notice"}]
    assert [e["kind"] for e in source.news()] == ["notice"]
    source._path = tmp_path / "none.sock"
    source.news()
    source._path = daemons.sync  # restarted: its numbers begin anew
    assert [e["number"] for e in source.news()] == [1]


def test_follow_goes_on_until_it_is_interrupted(daemons: Daemons, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = iter(range(3))

    def turn(seconds: float) -> None:
        if next(rounds, None) is None:
            raise KeyboardInterrupt
        daemons.ring.add("role", 5.0, {})

    monkeypatch.setattr(module.time, "sleep", turn)
    assert [e["number"] for e in daemons.run("--follow")] == [1, 2, 3]
