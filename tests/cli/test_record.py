"""`feedback record` at a real master with real reports; and the day replayed with the same law and with another."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest
import zmq
from click.testing import CliRunner, Result

from feedback.cli.main import main
from feedback.master.shell.daemon import RECORDERS_MAX
from feedback.ops.control import ControlError, ask, follow
from feedback.ops.feed import Feed
from tests.master import test_daemon
from tests.master.builders import VIRTUAL, rip
from tests.master.test_daemon import Site, run, until

site = test_daemon.site  # a fixture


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.mark.parametrize("name", ["day.jsonl", "day.jsonl.gz"])
def test_what_the_master_was_told_is_recorded_and_replayed(site: Site, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    answers: list[Result] = []

    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        record = ["record", "-o", path, "--for", "3.5s", "--control", site.control, "--json"]
        recorder = threading.Thread(target=lambda: answers.append(command(*record)))
        recorder.start()
        with zmq.Context() as context:
            site.report(context)
        recorder.join()

    run(site, work)
    assert answers[0].exit_code == 0, answers[0].output
    told = json.loads(answers[0].stdout)
    assert told["entries"] > 40
    assert told["bytes"] == path.stat().st_size
    assert told["ended_early"] == ""

    answer = command("simulate", "--replay", path, "--law", "capacity", "--law", "static", "--json")
    assert answer.exit_code == 0, answer.output
    laws = json.loads(answer.stdout.splitlines()[-1])["laws"]
    keys = [f"{VIRTUAL} {rip(i)}" for i in (1, 2)]
    first, second = (laws["recorded"]["weights"][k][-1][1] for k in keys)
    assert second / first == pytest.approx(3, rel=0.3)
    again, other = ([laws[law]["weights"][k][-1][1] for k in keys] for law in ("capacity", "static"))
    assert again[1] / again[0] == pytest.approx(second / first, rel=0.15)
    assert other[0] == other[1]
    # Half of the flow on a server of a quarter of the capacity: what static weights would have made of this day.
    assert laws["static"]["hottest"] > 1.5 * laws["capacity"]["hottest"]


def test_nothing_is_written_where_nobody_answers_or_the_file_is_there(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    answer = command("record", "-o", path, "--control", site.control)
    assert (answer.exit_code, path.exists()) == (3, False)
    path.write_text("mine")

    def work() -> None:
        answer = command("record", "-o", path, "--control", site.control)
        assert (answer.exit_code, path.read_text()) == (1, "mine")
        assert "already exists" in answer.output

    run(site, work)


def test_a_full_tape_ends_the_recording_and_what_is_there_can_be_replayed(site: Site, tmp_path: Path) -> None:
    import feedback.cli.record as module

    path = tmp_path / "day.jsonl"

    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        module.MEGABYTE, before = 5000, module.MEGABYTE
        try:
            answer = command("record", "-o", path, "--for", "20s", "--max-size", "1", "--control", site.control)
        finally:
            module.MEGABYTE = before
        assert answer.exit_code == 1
        assert "ended early: it would be larger" in answer.output

    run(site, work)
    assert 0 < path.stat().st_size <= 5000
    assert command("simulate", "--replay", path).exit_code == 0


def test_so_many_record_at_once_and_no_more(site: Site) -> None:
    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        feeds = [follow(site.control, {"command": "record"}) for _ in range(RECORDERS_MAX)]
        assert all(next(feed).startswith(b'{"at"') for feed in feeds)
        with pytest.raises(ControlError, match="already"):
            ask(site.control, {"command": "record"})
        for feed in feeds:
            feed.close()  # type: ignore[attr-defined]
        until(lambda: _records(site))

    run(site, work)


def _records(site: Site) -> bool:
    try:
        feed = follow(site.control, {"command": "record"})
        return next(feed).startswith(b'{"at"')
    except ControlError:
        return False


def test_a_reader_who_is_too_slow_is_told_so_and_delays_nobody() -> None:
    async def slow() -> list[bytes]:
        feed = Feed(bytes_max=10)
        for _ in range(5):
            feed.put(b"123\n")
        assert not feed.open
        return [batch async for batch in feed.batches()]

    assert asyncio.run(slow()) == [b"123\n123\n", b'{"end": "the reader is too slow"}\n']


@pytest.mark.parametrize(("text", "status"), [("90s", 1), ("soon", 2), ("0", 2), ("-1m", 2)])
def test_a_duration_is_refused_before_anything_is_done(text: str, status: int, tmp_path: Path) -> None:
    answer = command("record", "-o", tmp_path / "x", "--for", text, "--control", tmp_path / "none.sock")
    assert answer.exit_code == (3 if status == 1 else 2)
