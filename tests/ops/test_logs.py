from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

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
def test_a_line_is_that_of_structlogs_renderer(
    fields: dict[str, object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    render = structlog.processors.LogfmtRenderer(key_order=["level", "event"], bool_as_flag=False)
    logs.setup()
    ours = line(capsys, **fields)
    monkeypatch.setattr(
        logs._state,
        "emit",
        lambda level, given: sys.stderr.write(f"{render(None, level, {'level': level, **given})}\n"),
    )
    assert line(capsys, **fields) == ours
    assert ours.startswith("level=warning event=master-refuses component=agent")
    assert ours.count("\n") == 1


def test_a_terminal_gets_colours(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    logs.setup()
    assert "\x1b[" in line(capsys, reason="plain")


def test_the_journal_gets_its_priority(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1234")
    logs.setup()
    assert line(capsys).startswith("<4>level=warning ")


def test_what_is_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup()
    Log("agent").debug("detail")
    assert capsys.readouterr().err == ""
    logs.setup("debug")
    Log("agent").debug("detail")
    assert "detail" in capsys.readouterr().err


def test_the_agent_loads_nothing_heavy() -> None:
    code = (
        "import sys; import feedback.agent.daemon; from feedback.ops import logs; logs.setup();"
        "print([m for m in ('click', 'structlog', 'rich', 'asyncio', 'pyroute2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_line_that_cannot_be_written_is_lost_and_ends_nobody() -> None:
    program = """
from feedback.ops import logs
logs.setup()
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
