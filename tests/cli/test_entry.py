"""How `feedback agent` starts: the daemon without click, every other command with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from feedback.cli import entry

# Imports what an agent imports, and says what came along.
BESIDE = """
import sys
import feedback.cli.entry, feedback.agent.daemon
print([name for name in sys.argv[1:] if name in sys.modules])
"""
HEAVY = ["click", "asyncio", "logging", "structlog", "hashlib", "tempfile", "rich", "feedback.model", "feedback.master"]


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (["agent"], "/etc/feedback/agent.toml"),
        (["agent", "--config", "/x"], "/x"),
        (["agent", "-c", "/x"], "/x"),
        (["agent", "check"], None),
        (["agent", "--help"], None),
        (["agent", "--config", "/x", "check"], None),
        (["master"], None),
        ([], None),
    ],
)
def test_only_the_agents_daemon_starts_without_click(words: list[str], path: str | None) -> None:
    assert entry.agents_configuration(words) == (None if path is None else Path(path))


def test_an_agent_has_nothing_in_memory_that_it_does_not_need() -> None:
    done = subprocess.run([sys.executable, "-c", BESIDE, *HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_start_that_fails_is_one_line_and_exit_status_1(tmp_path: Path) -> None:
    code = "from feedback.cli.entry import main; main()"
    path = tmp_path / "agent.toml"
    done = subprocess.run(
        [sys.executable, "-c", code, "agent", "--config", path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"feedback: {path}: no such file: see examples/ for one to start from\n"
