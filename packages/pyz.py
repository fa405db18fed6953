"""feedback-agent.pyz: the agent as one file, for a host where nothing may be installed by packages of ours.

    python -m packages.pyz [FILE]

Ours and what is pure Python is inside: click, and tomli for a Python without TOML. What is compiled is not, since one
file fits every processor and every Python from 3.9 on: pyzmq, psutil, msgspec and msgpack come from the host's Python,
and the file says which of them are missing. Python's zipapp makes it.
"""

from __future__ import annotations

import re
import sys
import tempfile
import zipapp
from pathlib import Path

from packages import agent, site

PURE = ("click", "tomli")
OLDEST = "3.9"
FILE = Path("dist/feedback-agent.pyz")

MAIN = """\
import sys

NEEDS = {needs!r}


def missing():
    if sys.version_info < {oldest!r}:
        return "Python {oldest_text} or later, and this is " + sys.version.split()[0]
    from importlib.util import find_spec

    words = " ".join("'" + text + "'" for name, text in NEEDS.items() if find_spec(name) is None)
    return words and words + ": from your distribution, or: " + sys.executable + " -m pip install " + words


wants = missing()
if wants:
    sys.exit("feedback-agent.pyz needs " + wants)
from feedback.cli.entry import main

main()
"""

# Wheels for every interpreter and every machine: pure Python.
ANY = (f"--python-version={OLDEST}", "--implementation=py", "--abi=none", "--platform=any")


def make(file: Path) -> None:
    """Raises CalledProcessError where pip finds no wheels."""
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        agent.copy(tree)
        wanted = {re.split("[<>=]", text)[0]: text for text in agent.requirements(OLDEST)}
        site.install([wanted[library] for library in PURE], tree, ANY)
        site.tidy(tree)
        needs = {module: wanted[library] for library, module in agent.LIBRARIES.items() if library not in PURE}
        oldest = tuple(map(int, OLDEST.split(".")))
        (tree / "__main__.py").write_text(MAIN.format(needs=needs, oldest=oldest, oldest_text=OLDEST))
        file.parent.mkdir(parents=True, exist_ok=True)
        zipapp.create_archive(tree, file, "/usr/bin/env python3", compressed=True)
        file.chmod(0o755)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if sys.argv[1:] else FILE)
