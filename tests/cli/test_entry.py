"""How `feedback` starts: daemons without click, every other command with it."""

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
    ("words", "chosen"),
    [
        (["agent"], ("agent", "/etc/feedback/agent.toml")),
        (["agent", "--config", "/x"], ("agent", "/x")),
        (["sync", "-c", "/x"], ("sync", "/x")),
        (["master"], ("master", "/etc/feedback/master.toml")),
        (["agent", "check"], None),
        (["sync", "status"], None),
        (["agent", "--help"], None),
        (["master", "--verbose"], None),
        (["agent", "--config", "/x", "check"], None),
        (["show"], None),
        ([], None),
    ],
)
def test_only_daemons_start_without_click(words: list[str], chosen: tuple[str, str] | None) -> None:
    assert entry.daemon(words) == (None if chosen is None else (chosen[0], Path(chosen[1])))


def test_an_agent_has_nothing_in_memory_that_it_does_not_need() -> None:
    done = subprocess.run([sys.executable, "-c", BESIDE, *HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("daemon", entry.DAEMONS)
def test_no_daemon_imports_what_only_commands_and_terminals_need(daemon: str) -> None:
    """A standby's start would take twice as long."""
    words = ["click", "structlog", "rich", "pyroute2", "matplotlib", "feedback.cli.main"]
    code = (
        "import sys; import feedback.cli.entry as entry; from pathlib import Path; from importlib import import_module;"
        f"module = import_module(entry.DAEMONS[{daemon!r}][0]); reason = module.run(Path('/nowhere/x.toml'));"
        f"print(reason is not None, [name for name in {words} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"


@pytest.mark.parametrize("daemon", entry.DAEMONS)
def test_a_start_that_fails_is_one_line_and_exit_status_1(daemon: str, tmp_path: Path) -> None:
    code = "from feedback.cli.entry import main; main()"
    path = tmp_path / f"{daemon}.toml"
    done = subprocess.run(
        [sys.executable, "-c", code, daemon, "--config", path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"feedback: {path}: no such file: see examples/ for one to start from\n"


def test_the_garbage_collector_works_again_when_a_daemon_runs_and_leaves_the_imports_alone() -> None:
    code = (
        "import gc, sys; from types import ModuleType; from feedback.cli import entry;"
        "probe = ModuleType('probe'); probe.run = lambda path: print(gc.isenabled(), gc.get_freeze_count() > 1000);"
        "sys.modules['feedback.sync.daemon'] = probe; sys.argv[1:] = ['sync']; entry.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True True"
