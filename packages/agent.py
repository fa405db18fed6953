"""What an agent's package holds: the modules that its commands import, however late, and nothing else.

    python -m packages.agent            prints them
    python -m packages.agent DIRECTORY  copies them there, as a tree that Python can import

Nobody keeps a list: the imports are followed in the source from the commands that a real server needs. All that is
found must be valid for Python 3.9 (pyproject.toml, `make check`).
"""

from __future__ import annotations

import ast
import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "feedback"
# `feedback agent`, `feedback keys` and `feedback completion`; main.py finds its commands by name.
COMMANDS = tuple(f"feedback.cli.{name}" for name in ("entry", "main", "agent", "keys", "completion"))
# Of the project's dependencies, those that these modules import; a test holds that there are no others.
LIBRARIES = {"pyzmq": "zmq", "psutil": "psutil", "msgspec": "msgspec", "msgpack": "msgpack", "click": "click"}
# For a Python before this version: TOML, which came with 3.11, and the last releases that run there.
OLDER = {(3, 11): "tomli>=1.1", (3, 10): "click<8.2"}


def modules() -> dict[str, Path]:
    """Every module of the agent's, by its name."""
    found: dict[str, Path] = {}
    waiting = list(COMMANDS)
    while waiting:
        name = waiting.pop()
        path = source(name)
        if path is None or name in found:
            continue
        found[name] = path
        parent = name.rpartition(".")[0]
        waiting += [parent] if parent else []
        waiting += imported(ast.parse(path.read_text(encoding="utf-8")))
    return dict(sorted(found.items()))


def source(name: str) -> Path | None:
    """The file of a module of ours, None for what is no module."""
    base = ROOT.joinpath(*name.split("."))
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.exists():
            return path
    return None


def imported(node: ast.AST) -> Iterator[str]:
    """What may be modules of ours among the names that a source imports; types alone do not count."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (a.name for a in child.names if a.name.partition(".")[0] == PACKAGE)
        elif isinstance(child, ast.ImportFrom) and child.module and child.module.partition(".")[0] == PACKAGE:
            yield child.module
            yield from (f"{child.module}.{a.name}" for a in child.names)
        yield from imported(child)


def requirements(python: str | None = None) -> list[str]:
    """For pip: the project's own lower bounds. For the interpreter that runs this, or that of another version."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    version = tuple(map(int, python.split("."))) if python is not None else sys.version_info[:2]
    return [text for text in declared if text.partition(">=")[0] in LIBRARIES] + [
        text for before, text in OLDER.items() if version < before
    ]


def link_libraries(target: Path) -> None:
    """The libraries of this very environment, as links: to try the agent with nothing else than its package has."""
    for name in LIBRARIES:
        made = distribution(name)
        tops = {Path(file.parts[0]) for file in made.files or () if file.parts[0] not in {"..", "__pycache__"}}
        for top in tops:
            (target / top).symlink_to(Path(str(made.locate_file(top))))


def copy(target: Path) -> None:
    for path in modules().values():
        to = target / path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)


if __name__ == "__main__":
    if sys.argv[1:]:
        copy(Path(sys.argv[1]))
    else:
        print("\n".join(str(path.relative_to(ROOT)) for path in modules().values()))
