"""Tests marked `lab`, run in guests; the host's pytest reports their outcomes.

Two halves. In a guest, `run_inside` runs pytest on the chosen tests and writes each report to a file. On the host,
`GuestSuite` boots the guests and gives out their reports in place of running the tests. Where the running kernel has
IPVS and we are root, neither is used. A part of a session that pytest-xdist has divided boots none, and fails them.

Guests that have a time of their own do not mind what runs beside them. So there is one for each core, with whole files
of tests, from the session's first test on. Where they have none there is one guest, once everything else has run.

`@pytest.mark.lab(on="host")` stays on the host: tests of the lab itself, which boot guests of their own.
`@pytest.mark.lab(seconds=20)` says about how long each takes, so that the guests end together; nothing depends on it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

import pytest

from feedback.lab.error import LabError
from feedback.lab.job import Job
from feedback.lab.kernel import Kernel
from feedback.lab.kernel.native import Native
from feedback.lab.kernel.uml import Uml
from feedback.lab.outcomes import REPORTS, Writer
from feedback.lab.part import Part, divided, failed

GUESTS_MAX = 4
TEST_SECONDS = 0.5  # of a test that does not say
PREFIX = "feedback-suite-"
INSIDE = "FEEDBACK_LAB_INSIDE"  # set for the guest's pytest: here the tests are to run


def run_inside(job: Job, output: Path) -> None:
    """In the guest, in the project's directory. A test that fails is no failure of the job."""
    os.environ[INSIDE] = "1"
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # half of pytest's start, and on an emulated processor seconds
    os.chdir(job.directory)  # names of tests are relative to it
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = tempfile.mkdtemp(prefix="hypothesis-")
    arguments = ["-p", "no:cacheprovider", "-q", *job.arguments]
    status = pytest.main(arguments, plugins=[Writer(output / REPORTS)])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise LabError(f"pytest in the guest ended with {status!r}: see {output / 'console.log'}")


def on_host(item: pytest.Item) -> bool:
    mark = item.get_closest_marker("lab")
    return mark is None or mark.kwargs.get("on") == "host"


def weight(item: pytest.Item) -> float:
    mark = item.get_closest_marker("lab")
    return float(mark.kwargs.get("seconds", TEST_SECONDS)) if mark else 0.0


class GuestSuite:
    """The host's half, a pytest plugin; register it in a conftest.py. Without `kernel` it is the running one, or a
    user-mode one where that has no IPVS."""

    def __init__(self, config: pytest.Config, kernel: Kernel | None = None) -> None:
        self.config = config
        self.runs_here = INSIDE in os.environ or (kernel is None and Native().unavailable() is None)
        self.kernel = kernel or Uml()
        self.divided = hasattr(config, "workerinput")  # by pytest-xdist
        self.beside = False  # guests run beside all else
        self.parts: list[Part] = []
        self.part: dict[str, Part] = {}  # by the test's name
        _remove_stale()
        self.directory = tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if not self.runs_here:
            # Those that boot guests of their own come first: where guests have no time of their own, they run alone.
            items.sort(key=lambda item: not on_host(item))  # sort() keeps the rest in order

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if self.config.option.collectonly or self.runs_here or self.divided:
            return
        files: dict[str, list[pytest.Item]] = defaultdict(list)
        for item in session.items:
            if not on_host(item):
                files[str(item.path)].append(item)
        if not files:
            return
        try:
            self.beside = self.kernel.own_time
        except LabError:  # it will say so again where a guest is to be started
            self.beside = False
        weights = {file: sum(map(weight, items)) for file, items in files.items()}
        count = min(GUESTS_MAX, len(os.sched_getaffinity(0))) if self.beside else 1
        for number, group in enumerate(reversed(divided(weights, count))):
            tests = [item.nodeid for file, items in files.items() if file in group for item in items]
            output = Path(self.directory.name) / str(number)
            self.parts.append(Part(tests, output, self.config))
            self.part |= dict.fromkeys(tests, self.parts[-1])

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        if self.beside:
            for part in self.parts:  # the heaviest last: guests that come later share cores with the lightest
                part.start(self.kernel)
        lost = self.divided and item.get_closest_marker("lab") is not None
        if self.runs_here or (on_host(item) and not lost):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        if lost:
            reports = iter([failed(item, "tests marked lab share guests: run them without -n")])
        else:
            self.part[item.nodeid].start(self.kernel)
            reports = self.part[item.nodeid].reports_of(item)
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_sessionfinish(self) -> None:
        for part in self.parts:
            part.stop()
        self.directory.cleanup()


def _remove_stale() -> None:
    """What a session killed by SIGKILL has left; its guest has gone by itself."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid = path.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(path, ignore_errors=True)
