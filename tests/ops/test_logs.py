from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.ops import logs
from feedback.ops.logs import Budget, Log


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    before = (logs._state.emit, logs._state.threshold)
    yield
    logs._state.emit, logs._state.threshold = before


def line(capsys: pytest.CaptureFixture[str], **fields: object) -> str:
    Log("agent").warning("master-refuses", **fields)
    return capsys.readouterr().err


FIELDS = [
    {},
    {"reason": "plain"},
    {"reason": "two words"},
    {"reason": 'a "quoted" = sign'},
    {"reason": "back\\slash and\nnew line"},
    {"old": 1, "new": 2.5, "on": True, "off": False, "none": None},
    {"empty": ""},
]


@pytest.mark.parametrize("fields", FIELDS)
def test_the_lean_writer_and_structlog_write_the_same_line(
    fields: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    logs.setup(lean=True)
    lean = line(capsys, **fields)
    logs.setup()
    assert line(capsys, **fields) == lean
    assert lean.startswith("level=warning event=master-refuses component=agent")
    assert lean.count("\n") == 1


@pytest.mark.parametrize("lean", [True, False])
def test_the_journal_gets_its_priority(
    lean: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1234")
    logs.setup(lean=lean)
    assert line(capsys).startswith("<4>level=warning ")


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup(lean=True)
    Log("agent").debug("detail")
    assert capsys.readouterr().err == ""
    logs.setup(lean=True, level="debug")
    Log("agent").debug("detail")
    assert "detail" in capsys.readouterr().err


def test_the_agent_loads_nothing_heavy() -> None:
    code = (
        "import sys; import feedback.agent.daemon; from feedback.ops import logs; logs.setup(lean=True);"
        "print([m for m in ('click', 'structlog', 'rich', 'asyncio', 'pyroute2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("lean", [True, False])
def test_a_line_that_cannot_be_written_is_lost_and_ends_nobody(lean: bool) -> None:
    program = f"""
from feedback.ops import logs
logs.setup(lean={lean})
for _ in range(3):
    logs.Log("agent").error("disk-full", reason="x" * 10_000)
print("goes on")
"""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", program], stderr=full, stdout=subprocess.PIPE, check=False)
    assert done.stdout == b"goes on\n"


def test_a_budget_lets_so_many_lines_through_and_tells_how_many_it_left_out() -> None:
    budget = Budget(2, 10.0)
    assert [budget.take(at) for at in (0.0, 1.0, 2.0, 3.0)] == [0, 0, None, None]
    assert [budget.take(at) for at in (10.0, 10.1, 10.2, 20.0)] == [2, 0, None, 1]
