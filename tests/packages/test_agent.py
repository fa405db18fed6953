"""What an agent's package holds, and that Python 3.9 can run it."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from packages import agent

MODULES = agent.modules()
NAMES = sorted(MODULES)
# Rooms of which a real server has no need, and what they would bring along.
NONE_OF = ("feedback.master", "feedback.sync", "feedback.ipvs", "feedback.lab", "feedback.web", "feedback.model")


def test_it_has_the_agent_and_nothing_that_only_directors_need() -> None:
    assert {"feedback.agent.daemon", "feedback.ops.joining", "feedback.wire", "feedback.cli.keys"} <= MODULES.keys()
    assert [name for name in MODULES if name.startswith(NONE_OF)] == []


def test_it_needs_the_libraries_that_it_declares_and_no_other() -> None:
    found: set[str] = set()
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    foreign = found - sys.stdlib_module_names - {"feedback"}
    # structlog is looked for and done without: ops/logs.py.
    assert foreign == {*agent.LIBRARIES.values(), "tomli", "structlog"}
    assert len(agent.requirements("3.11")) == len(agent.LIBRARIES)
    assert {"tomli>=1.1", "click<8.2"} <= set(agent.requirements("3.9"))


def test_ruff_judges_each_of_its_modules_by_python_3_9() -> None:
    ruff = tomllib.loads((agent.ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    judged = {
        path for pattern in ruff["per-file-target-version"] for p in braces(pattern) for path in agent.ROOT.glob(p)
    }
    assert [name for name, path in MODULES.items() if path not in judged] == []


def braces(pattern: str) -> list[str]:
    """What pathlib's glob does not know."""
    head, _, rest = pattern.replace("**", "**/*").partition("{")
    words, _, tail = rest.partition("}")
    return [f"{head}{word}{tail}" for word in words.split(",")]


def test_no_annotation_that_msgspec_evaluates_needs_a_newer_python() -> None:
    """`int | None` has no value before 3.10, and nothing but a run would tell."""
    found = [
        f"{cls.__module__}.{cls.__name__}.{field}: {text}"
        for name in NAMES
        for cls in vars(importlib.import_module(name)).values()
        if isinstance(cls, type) and issubclass(cls, msgspec.Struct) and cls.__module__ == name
        for field, text in vars(cls).get("__annotations__", {}).items()
        if "|" in str(text)
    ]
    assert found == []


def vermin(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("vermin")), "-t=3.9-", "--no-tips", "--eval-annotations"]
    return subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, check=False)


def test_every_module_is_valid_for_python_3_9() -> None:
    done = vermin(*MODULES.values())
    assert done.returncode == 0, done.stdout


def test_a_module_for_a_newer_python_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text("from enum import StrEnum\n")
    done = vermin(tmp_path / "new.py")
    assert "3.11" in done.stdout
    assert done.returncode != 0


@pytest.mark.skipif(shutil.which("rpmspec") is None, reason="Debian's package rpm is absent")
def test_the_scripts_of_the_rpms_are_shell() -> None:
    """All eight: rpm runs them where nobody looks, and a removal must not fail."""
    spec = agent.ROOT / "packages" / "lvs-feedback.spec"
    command = ["rpmspec", "-P", "--define", f"source {agent.ROOT}", str(spec)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    scripts = re.findall(r"^%(?:pre|post|preun|postun)(?: agent)?\n(.*?)(?=^%)", text, flags=re.MULTILINE | re.DOTALL)
    assert len(scripts) == 8
    for script in scripts:
        done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + script
