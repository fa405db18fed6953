"""Tests that run elsewhere and are told here: whatever their outcome is, pytest tells it as if they had run here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from feedback.lab.part import divided

ROOT = Path(__file__).parents[2]

# A pytest of its own, whose lab is a process of this host: all is real but the kernel.
CONFTEST = """
import sys
from feedback.lab.kernel.launch import Launch
from feedback.lab.suite import GuestSuite

class Here:
    name, own_run_namespace, own_time, patience = "here", True, True, 1.0

    def unavailable(self):
        return None

    def launch(self, job, output, scratch):
        command = [sys.executable, "-m", "feedback.lab.guest", str(job)]
        return Launch(command, {"TMPDIR": str(scratch), "PYTHONPATH": ROOT})

def pytest_configure(config):
    config.addinivalue_line("markers", "lab: not here")
    if config.getoption("elsewhere", False):
        config.pluginmanager.register(GuestSuite(config, Here()), "lab-guest")

def pytest_addoption(parser):
    parser.addoption("--elsewhere", action="store_true")

def pytest_runtest_logreport(report):
    for name, value in report.user_properties:
        print("PROPERTY", report.when, name, repr(value))
"""

OUTCOMES = """
import os, sys
from pathlib import Path
import pytest

pytestmark = pytest.mark.lab

@pytest.fixture
def broken():
    print("said in the fixture")
    raise RuntimeError("no setup")

@pytest.fixture
def untidy():
    yield
    raise RuntimeError("no teardown")

@pytest.mark.skip(reason="never")
def test_skipped():
    pass

def test_skips_itself():
    pytest.skip("not today")

@pytest.mark.skipif("True", reason="a condition")
def test_skipped_by_a_condition():
    pass

@pytest.mark.xfail(reason="known")
def test_known_to_fail():
    assert 1 == 2

@pytest.mark.xfail(reason="was known")
def test_known_to_fail_and_passes():
    pass

@pytest.mark.xfail(reason="was known", strict=True)
def test_strictly_known_to_fail_and_passes():
    pass

def test_fails_in_setup(broken):
    pass

def test_fails_in_teardown(untidy):
    pass

def test_fails_with_a_chain():
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error
    except ValueError:
        print("said before")
        print("and to the other", file=sys.stderr)
        raise OSError("third")

def test_fails_in_a_group():
    raise ExceptionGroup("several", [ValueError("one"), TypeError("two")])

@pytest.mark.parametrize("value", ["é\\n", (1, 2)])
def test_fails_with_arguments(value):
    assert value is None

def test_says_something_of_itself(record_property):
    record_property("pair", ("a", 1))
    record_property("path", Path("/x"))
    record_property("text", "é")

def test_passes():
    pass

def test_runs(record_property):
    record_property("inside", "FEEDBACK_LAB_INSIDE" in os.environ)
"""


LINES = (
    "SKIPPED [1] test_outcomes.py:18: never",
    "SKIPPED [1] test_outcomes.py:23: not today",
    "XFAIL test_outcomes.py::test_known_to_fail - known",
    "XPASS test_outcomes.py::test_known_to_fail_and_passes - was known",
    "FAILED test_outcomes.py::test_strictly_known_to_fail_and_passes - [XPASS(strict)] was known",
    "ERROR test_outcomes.py::test_fails_in_setup - RuntimeError: no setup",
    "ERROR test_outcomes.py::test_fails_in_teardown - RuntimeError: no teardown",
    "FAILED test_outcomes.py::test_fails_with_a_chain - OSError: third",
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
    "said in the fixture",
    "and to the other",
    "PROPERTY teardown pair ('a', 1)",
)


def told(project: Path, *arguments: str) -> tuple[int, str]:
    """Status and output of a pytest, without what differs between any two runs."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-ra", "-s", "--capture=fd", *arguments]
    environment = {**os.environ, "COLUMNS": "150"}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, re.sub(r"in [0-9.]+s", "", done.stdout)


def test_every_outcome_is_told_as_if_the_test_had_run_here(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.replace("ROOT", repr(str(ROOT))))
    (tmp_path / "test_outcomes.py").write_text(OUTCOMES)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    here, elsewhere = told(tmp_path), told(tmp_path, "--elsewhere")
    assert here[0] == elsewhere[0] == 1
    for line in LINES:
        assert line in here[1].splitlines() and line in elsewhere[1].splitlines()
    assert "inside False" in here[1] and "inside True" in elsewhere[1]
    # What no pytest can send becomes its text.
    assert elsewhere[1].replace("inside True", "inside False") == here[1].replace("PosixPath('/x')", "'/x'")


MEETING = """
import time
from pathlib import Path
import pytest

def meet(own, other):
    Path(__file__).with_name(own).touch()
    deadline = time.monotonic() + 60
    while not Path(__file__).with_name(other).exists():
        assert time.monotonic() < deadline, f"{other} does not come"
        time.sleep(0.02)
"""
BESIDE = {
    "a": "@pytest.mark.lab(seconds=9)\ndef test_meets():\n    meet('a', 'b')\n",
    "b": "@pytest.mark.lab\ndef test_meets():\n    meet('b', 'c')\n",
    "c": "@pytest.mark.lab(on='host')\ndef test_meets():\n    meet('c', 'a')\n",
}


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: there is one guest")
def test_guests_with_a_time_of_their_own_run_beside_each_other_and_the_host(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.replace("ROOT", repr(str(ROOT))))
    for name, text in BESIDE.items():
        (tmp_path / f"test_{name}.py").write_text(MEETING + text)
    status, said = told(tmp_path, "--elsewhere")
    assert (status, "3 passed" in said) == (0, True), said


def test_a_guest_that_dies_fails_what_it_has_not_reported_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.replace("ROOT", repr(str(ROOT))))
    mark = "import os, pytest\npytestmark = pytest.mark.lab\n"
    dies = "def test_before(): pass\ndef test_dies(): os._exit(3)\ndef test_after(): pass\n"
    (tmp_path / "test_a.py").write_text(mark + dies)
    (tmp_path / "test_b.py").write_text(mark + "def test_other(): pass\n")
    status, said = told(tmp_path, "--elsewhere")
    others = len(os.sched_getaffinity(0)) > 1
    assert (status, f"2 failed, {1 + others} passed" in said) == (1, True), said
    assert (
        said.count("not run in the lab's guest: the guest ended before its job") == 4
    )  # where it fails, and in the summary


def test_a_session_that_is_divided_boots_nothing_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.replace("ROOT", repr(str(ROOT))))
    (tmp_path / "test_a.py").write_text("import pytest\n@pytest.mark.lab\ndef test_a(): pass\ndef test_b(): pass\n")
    status, said = told(tmp_path, "--elsewhere", "-n", "1")
    assert (status, "1 failed, 1 passed" in said) == (1, True), said
    assert "run them without -n" in said


@pytest.mark.parametrize(
    ("weights", "count", "groups"),
    [
        ({"a": 9, "b": 5, "c": 4}, 2, [["a"], ["b", "c"]]),
        ({"a": 1, "b": 1}, 4, [["a"], ["b"]]),
        ({"a": 1, "b": 2}, 1, [["b", "a"]]),
        ({}, 2, [[]]),
    ],
)
def test_files_are_divided_about_equally(weights: dict[str, float], count: int, groups: list[list[str]]) -> None:
    assert divided(weights, count) == groups
