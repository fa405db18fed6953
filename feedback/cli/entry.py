"""The `feedback` program. Daemons start from here without click, which would take 5 MB of an agent's 24 MB of memory,
and a tenth of the time in which a standby starts. Everything else is a command of main.py.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from pathlib import Path

# Each daemon's module and configuration. Its `run(path)` returns why it could not start, or None.
DAEMONS = {
    "agent": ("feedback.agent.daemon", "/etc/feedback/agent.toml"),
    "master": ("feedback.master.shell.daemon", "/etc/feedback/master.toml"),
    "sync": ("feedback.sync.daemon", "/etc/feedback/sync.toml"),
}


def main() -> None:
    chosen = daemon(sys.argv[1:])
    if chosen is None:
        _command()
        return
    name, path = chosen
    gc.disable()  # what an import makes stays for ever: looking for garbage in it is a tenth of its time
    try:
        module = import_module(DAEMONS[name][0])
        gc.freeze()
    except ModuleNotFoundError:  # the agent's package has no other daemon, which main.py says
        module = None
    finally:
        gc.enable()
    if module is None:
        _command()
        return
    reason = module.run(path)
    if reason is not None:
        from feedback.cli.errors import Failure

        Failure(reason).show()
        sys.exit(Failure.exit_code)


def _command() -> None:
    from feedback.cli.main import main as command

    command()


def daemon(words: list[str]) -> tuple[str, Path] | None:
    """The daemon that is to run, with its configuration; None for any other command."""
    if not words or words[0] not in DAEMONS:
        return None
    if len(words) == 1:
        return words[0], Path(DAEMONS[words[0]][1])
    if len(words) == 3 and words[1] in {"--config", "-c"}:
        return words[0], Path(words[2])
    return None
