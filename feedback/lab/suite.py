"""Tests marked `lab`, run in one guest, their outcomes told by the pytest of the host.

Two halves. In the guest, `run_inside` runs pytest on the chosen tests and writes each report to a file. On the host,
`GuestSuite` boots the guest when its first test is due and gives out its reports in place of running the tests. Where
the running kernel has IPVS and we are root, neither is used. Invariant: a guest that does not come up, dies or hangs
fails every test that it has not reported; nothing is skipped for want of a kernel. A part of a session that
pytest-xdist has divided boots none, and fails them too.

`@pytest.mark.lab(on="host")` stays on the host: tests of the lab itself, which boot guests of their own.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.lab.error import LabError
from feedback.lab.job import Job
from feedback.lab.kernel import Guest, Kernel
from feedback.lab.kernel.native import Native
from feedback.lab.kernel.uml import Uml
from feedback.lab.outcomes import Reader, Writer

REPORTS = "reports"
SILENCE_SECONDS = 180.0  # without any report
POLL_SECONDS = 0.05
PREFIX = "feedback-suite-"
INSIDE = "FEEDBACK_LAB_INSIDE"  # set for the guest's pytest: here the tests are to run


def run_inside(job: Job, output: Path) -> None:
    """In the guest, in the project's directory. A test that fails is no failure of the job."""
    os.environ[INSIDE] = "1"
    os.chdir(job.directory)  # names of tests are relative to it
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = tempfile.mkdtemp(prefix="hypothesis-")
    arguments = ["-p", "no:cacheprovider", "-q", *job.arguments]
    status = pytest.main(arguments, plugins=[Writer(output / REPORTS)])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise LabError(f"pytest in the guest ended with {status!r}: see {output / 'console.log'}")


def on_host(item: pytest.Item) -> bool:
    mark = item.get_closest_marker("lab")
    return mark is None or mark.kwargs.get("on") == "host"


class GuestSuite:
    """The host's half, a pytest plugin; register it in a conftest.py."""

    def __init__(self, config: pytest.Config, kernel: Kernel | None = None) -> None:
        self.config = config
        self.kernel = kernel  # None: the running one, or a user-mode one where that has no IPVS
        self.guest: Guest | None = None
        self.problem = ""
        self.silence_seconds = SILENCE_SECONDS
        self.chosen: tuple[str, ...] = ()
        self.reports: dict[str, list[pytest.TestReport]] = {}
        self.heard = time.monotonic()
        _remove_stale()
        self.directory = tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-")
        self.reader = Reader(self.output / REPORTS, config)

    @property
    def output(self) -> Path:
        return Path(self.directory.name)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if not self._runs_here():
            # Those that boot guests of their own come first and alone: they time things, and two cores are few.
            items.sort(key=lambda item: not on_host(item))  # sort() keeps the rest in order

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if not self.config.option.collectonly and not self._runs_here():
            self.chosen = tuple(item.nodeid for item in session.items if not on_host(item))

    def _runs_here(self) -> bool:
        return INSIDE in os.environ or (self.kernel is None and Native().unavailable() is None)

    def _start(self) -> None:
        directory = str(self.config.rootpath)
        job = Job(task="pytest", output=str(self.output), directory=directory, arguments=self.chosen)
        kernel = self.kernel or Uml()
        try:
            self.silence_seconds = kernel.patience * SILENCE_SECONDS
            self.guest = Guest(kernel, job, cpu=max(os.sched_getaffinity(0)) if kernel.name == "uml" else None)
        except LabError as error:
            self.problem = str(error)
        self.heard = time.monotonic()

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        divided = item.get_closest_marker("lab") is not None and hasattr(self.config, "workerinput")
        if not divided and (on_host(item) or self._runs_here()):
            return None
        if divided:
            self.problem = "tests marked lab share one guest and time things: run them without -n"
        elif self.guest is None and not self.problem:
            self._start()
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports_of(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_sessionfinish(self) -> None:
        if self.guest:
            self.guest.stop()
        self.directory.cleanup()

    def _reports_of(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        while not self._complete(item.nodeid):
            if reason := self._lost():
                yield _failed(item, reason)
                return
            time.sleep(POLL_SECONDS)
        yield from self.reports[item.nodeid]

    def _complete(self, nodeid: str) -> bool:
        self._read()
        return any(report.when == "teardown" for report in self.reports.get(nodeid, ()))

    def _lost(self) -> str:
        """Why no more reports will come, or nothing."""
        if self.guest is None:
            return self.problem or "no guest was started"
        if not self.guest.running():
            self._read()
            try:
                self.guest.check()
            except LabError as error:
                return str(error)
            return "the guest's pytest has ended without a report of this test"
        if time.monotonic() - self.heard > self.silence_seconds:
            self.guest.stop()
            return f"the guest has reported nothing for {self.silence_seconds:.0f} s"
        return ""

    def _read(self) -> None:
        for report in self.reader.new():
            self.heard = time.monotonic()
            self.reports.setdefault(report.nodeid, []).append(report)


def _remove_stale() -> None:
    """What a session killed by SIGKILL has left; its guest has gone by itself."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid = path.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(path, ignore_errors=True)


def _failed(item: pytest.Item, reason: str) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome="failed",
        longrepr=f"not run in the lab's guest: {reason}",
        when="call",
    )
