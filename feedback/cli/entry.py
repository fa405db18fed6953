"""The `feedback` program. An agent's daemon starts from here without click, which would take 5 MB of its 24 MB of
memory. Everything else is a command of main.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

AGENT_TOML = Path("/etc/feedback/agent.toml")


def main() -> None:
    path = agents_configuration(sys.argv[1:])
    if path is None:
        from feedback.cli.main import main as commands

        commands()
    else:
        from feedback.agent import daemon

        reason = daemon.run(path)
        if reason is not None:
            from feedback.cli.errors import Failure

            Failure(reason).show()
            sys.exit(Failure.exit_code)


def agents_configuration(words: list[str]) -> Path | None:
    """The file that `feedback agent` is to run with, or None for any other command."""
    if words == ["agent"]:
        return AGENT_TOML
    if len(words) == 3 and words[0] == "agent" and words[1] in {"--config", "-c"}:
        return Path(words[2])
    return None
