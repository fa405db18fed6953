"""Nothing that a daemon starts beside its loop dies unseen: a fault in each is one line of the log, and then whoever
waits for it is told, or it is begun again."""

from __future__ import annotations

import ast
import asyncio
import importlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from feedback.config.probe import Check
from feedback.ipvs import FakeKernel
from feedback.master.cuts.course import Cut, Do
from feedback.master.shell import daemon as master
from feedback.master.shell import probes, raw
from feedback.master.shell.cutter import Cutter
from feedback.master.shell.steering import Steering
from feedback.model import Destination, DestinationKey, ServiceKey
from feedback.ops import pair, runner
from feedback.ops.control import ask
from feedback.sync import daemon as sync
from feedback.sync.addresses import routes
from feedback.sync.addresses.routes import Routes
from feedback.sync.conntrack import reader, tracking
from feedback.sync.conntrack.tracking import Tracking
from feedback.sync.election.transitions import PrepareHandover
from feedback.sync.replication import kernel as replication
from feedback.sync.replication.kernel import Replication
from tests.master.test_daemon import Site, run, site, until
from tests.master.test_probes import came_of
from tests.sync.conntrack.test_tracking import Remembering, full, made

__all__ = ["site"]  # the fixture

ROOT = Path(__file__).parents[1]
HERE = "tests.test_supervision"
CARRIER = "tests.sync.replication.test_carrier"

# Where a daemon starts something, and the test that raises in it.
HELD = {
    ("master/shell/cutter.py", "cutter"): f"{HERE}::test_a_fault_of_the_cutter_is_logged_and_the_next_cut_goes_on",
    ("master/shell/daemon.py", "name"): f"{HERE}::test_steering_that_ended_by_a_fault_is_begun_again",
    ("master/shell/daemon.py", "steering"): f"{HERE}::test_steering_that_ended_by_a_fault_is_begun_again",
    ("master/shell/probes.py", "probes"): f"{HERE}::test_a_fault_in_a_check_says_nothing_of_the_server",
    (
        "master/shell/probes.py",
        "f'check of {probe.target}'",
    ): f"{HERE}::test_a_fault_in_a_check_says_nothing_of_the_server",
    ("master/shell/programs.py", "programs"): (
        "tests.master.test_probes::test_a_runner_that_says_what_nobody_understands_leaves_nobody_waiting"
    ),
    ("ops/runner.py", "create_task"): f"{HERE}::test_a_fault_of_the_runner_leaves_no_check_waiting",
    ("ops/tasks.py", "create_task"): "tests.ops.test_tasks::test_an_owner_hears_an_exception_and_nothing_of_other_ends",
    ("web/server.py", "ThreadPoolExecutor"): (
        "tests.web.test_server::test_a_page_that_cannot_be_made_is_said_and_costs_only_itself"
    ),
    ("sync/addresses/routes.py", "routes"): f"{HERE}::test_a_fault_in_the_routes_is_a_problem_until_it_is_over",
    ("sync/conntrack/reader.py", "ThreadPoolExecutor"): f"{HERE}::test_a_fault_in_one_reading_does_not_end_reading",
    ("sync/conntrack/tracking.py", "tracking"): f"{HERE}::test_a_fault_in_tracking_does_not_stop_the_takeover",
    ("sync/daemon.py", "adjustments"): f"{HERE}::test_a_fault_in_one_reading_does_not_end_reading",
    ("sync/daemon.py", "handover"): f"{HERE}::test_a_fault_in_a_handover_is_its_reason",
    ("sync/replication/carrier.py", "mirror"): f"{CARRIER}::test_a_fault_in_a_turn_of_the_mirror_does_not_end_it",
    (
        "sync/replication/kernel.py",
        "learn connections",
    ): f"{HERE}::test_a_fault_in_learning_is_logged_and_it_is_tried_anew",
    ("sync/replication/outbound.py", "session"): (
        f"{CARRIER}::test_a_fault_in_a_session_ends_it_with_a_reason_and_the_next_one_is_complete"
    ),
}
WAITED_FOR = {("ipvs/namespace.py", "f'netns {netns}'")}  # joined at once, and what it raised is raised there


def started() -> Iterator[tuple[str, str]]:
    """Each place in the daemons' code where a task, a thread or a pool of threads is started, with its name."""
    for path in sorted((ROOT / "feedback").rglob("*.py")):
        place = str(path.relative_to(ROOT / "feedback"))
        if place.partition("/")[0] not in {"lab", "simulate", "cli"}:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and (name := begun(node)) is not None:
                    yield place, name


def begun(call: ast.Call) -> str | None:
    function = ast.unparse(call.func)
    kind = function.rpartition(".")[2]
    if function.endswith("_tasks.start") or kind in {"_spawn", "spawn"}:
        return word(call.args[1])
    if kind == "Thread":
        return next(word(k.value) for k in call.keywords if k.arg == "name")
    return kind if kind in {"ThreadPoolExecutor", "create_task", "ensure_future"} else None


def word(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ast.unparse(node)


def test_each_thing_that_runs_beside_a_loop_has_a_test_that_raises_in_it() -> None:
    assert set(started()) == HELD.keys() | WAITED_FOR
    for test in HELD.values():
        module, _, name = test.partition("::")
        assert callable(getattr(importlib.import_module(module), name)), test


def breaks(*_: Any, **__: Any) -> Any:
    raise KeyError("a fault")


# --- the master ------------------------------------------------------------------------------------------------------


def test_steering_that_ended_by_a_fault_is_begun_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, turns = Steering._turn, list[Steering]()

    async def once(self: Steering) -> None:
        turns.append(self)
        if len(turns) == 1:
            breaks()
        await real(self)

    monkeypatch.setattr(Steering, "_turn", once)
    monkeypatch.setattr(master, "ERROR_LOG_SECONDS", 0.05)

    def work() -> None:
        until(lambda: site.status()["counters"].get("faults") == 1)
        until(lambda: ask(site.control, {"command": "steer"})["settled"] is True)

    run(site, work)
    assert "event=fault component=master task=steering" in capsys.readouterr().err


def test_a_fault_in_a_check_says_nothing_of_the_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probes, "_checked", breaks)
    assert asyncio.run(came_of(Check(type="tcp"), 9, 2)) == [None, None]
    assert capsys.readouterr().err.count("event=fault") == 2


@pytest.mark.parametrize("step", ["_take", "_hear", "_poke"])
def test_a_fault_of_the_cutter_is_logged_and_the_next_cut_goes_on(
    step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(raw, "senders", dict)
    monkeypatch.setattr(sys, "setswitchinterval", lambda seconds: None)
    listed = threading.Event()
    made = Cutter(None, lambda told: None)
    monkeypatch.setattr(Cutter, "_list", lambda self, cuts: listed.set())
    monkeypatch.setattr(Cutter, step, breaks)
    if step == "_hear":
        made._hearing = [SimpleNamespace(fileno=lambda: made._woken, close=lambda: None)]  # type: ignore[list-item]
    made._stir()
    until(lambda: "event=fault" in capsys.readouterr().err)
    made._hearing = []
    monkeypatch.undo()
    monkeypatch.setattr(Cutter, "_list", lambda self, cuts: listed.set())
    made.do([Cut(Do.LIST, ServiceKey.parse("tcp:10.0.0.100:80"), Destination(DestinationKey.parse("10.0.0.11:80")))])
    assert listed.wait(10)
    made.close()


def test_a_fault_of_the_runner_leaves_no_check_waiting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: list[runner.Answer] = []
    monkeypatch.setattr(runner.Runner, "_program", breaks)
    monkeypatch.setattr(runner, "_answer", answers.append)
    monkeypatch.setattr(runner.Runner, "_sweep", lambda _: None)  # all children of this process would be its own

    async def scenario() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(json.dumps([7, ["/bin/true"]]).encode() + b"\n")
        serving = asyncio.create_task(runner.Runner().serve(reader))
        await asyncio.sleep(0.01)
        reader.feed_eof()
        await serving

    asyncio.run(scenario())
    assert [(answer.number, answer.errno) for answer in answers] == [(7, 5)]
    assert "event=fault component=programs" in capsys.readouterr().err


# --- the sync daemon -------------------------------------------------------------------------------------------------


def test_a_fault_in_the_routes_is_a_problem_until_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Routes, "_work", breaks)
    monkeypatch.setattr(routes, "MEND_SECONDS", 0.01)
    found = Routes([(ip_network("192.0.2.0/24"), 100)], tmp_path / "routes")
    found.open()
    found.follow(True)
    until(lambda: "KeyError" in found.problem)  # which `feedback sync doctor` shows
    time.sleep(0.1)
    assert capsys.readouterr().err.count("event=routes-failed") == 1
    monkeypatch.setattr(Routes, "_work", lambda self, wanted: "")
    until(lambda: found.problem == "")
    found.close()


def test_a_fault_in_tracking_does_not_stop_the_takeover(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = Remembering()
    monkeypatch.setattr(kernel, "write", breaks)
    found = made(monkeypatch, full(5), kernel)
    found.take_over()
    assert "event=tracking-unwritten" in (told := capsys.readouterr().err) and "KeyError" in told


@pytest.mark.parametrize("where", ["needed", "read"])
def test_a_fault_in_one_reading_does_not_end_reading(
    where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reads: list[int] = []

    def read() -> list[Any]:
        reads.append(len(reads))
        return breaks() if where == "read" and len(reads) < 3 else []

    def needed() -> bool:
        reads.append(len(reads))
        return bool(breaks()) if where == "needed" and len(reads) < 3 else True

    found: Tracking = made(monkeypatch, full(1), Remembering())
    monkeypatch.setattr(tracking, "READ_SECONDS", 0.001)
    monkeypatch.setattr(reader, "needed", needed)
    monkeypatch.setattr(reader.Reader, "read_here", lambda self: read())

    async def for_a_moment() -> None:
        attending = asyncio.create_task(found.attend(lambda: True))
        await asyncio.to_thread(until, lambda: len(reads) > 8)
        assert not attending.done()
        attending.cancel()

    asyncio.run(for_a_moment())
    found.close()
    assert capsys.readouterr().err.count("event=adjustments-unread") == 1


def test_a_fault_in_a_handover_is_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = pair.create(tmp_path / "pair.key")
    path = tmp_path / "sync.toml"
    path.write_text(
        f'name = "d1"\npeer = "d2"\nsecret = "{secret}"\n[[link]]\nlocal = "10.9.1.1:7434"\npeer = "10.9.1.2:7434"\n'
        '[[address]]\naddress = "10.0.0.100/32"\ninterface = "eth0"\n'
    )

    async def scenario() -> dict[str, Any]:
        daemon = sync.Daemon(path)
        daemon._carrier = SimpleNamespace(settle=breaks)  # type: ignore[assignment]
        daemon._handover = {"state": "under way", "reason": ""}
        daemon._perform(PrepareHandover("asked"), 0.0)
        await asyncio.sleep(0.01)
        assert daemon._counters["faults"] == 1
        return daemon._answer({"command": "handover-state"})

    assert asyncio.run(scenario())["reason"].startswith("a fault of this director: KeyError")
    assert "event=handover-stuck" in capsys.readouterr().err


def test_a_fault_in_learning_is_logged_and_it_is_tried_anew(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service = SimpleNamespace(
        destinations=[SimpleNamespace(active=replication.LEARN_AT_ONCE + 1, inactive=0, persistent=0)]
    )
    kernel: Any = SimpleNamespace(snapshot=lambda: SimpleNamespace(services=[service]))
    learning: list[Callable[[], Any]] = [breaks, lambda: {"malformed": 3}]
    monkeypatch.setattr(Replication, "learn", lambda self: learning.pop(0)())
    made = Replication(kernel=FakeKernel())
    made._begin_learning(kernel)
    assert made.know() == {"malformed": 3}
    assert "event=table-unread" in capsys.readouterr().err
