"""Part: tests that share a guest, the guest, and its reports on them so far.

Invariant: a guest that does not come up, dies or hangs fails every test that it has not reported.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from feedback.lab.error import LabError
from feedback.lab.job import Job
from feedback.lab.kernel import Guest, Kernel
from feedback.lab.outcomes import REPORTS, Reader

SILENCE_SECONDS = 300.0  # without any report; a guest that shares its core has a part of it
POLL_SECONDS = 0.05


class Part:
    def __init__(self, tests: Sequence[str], output: Path, config: pytest.Config) -> None:
        self.tests, self.output = tests, output
        self.directory = config.rootpath
        self.reader = Reader(output / REPORTS, config)
        self.guest: Guest | None = None
        self.silence_seconds = SILENCE_SECONDS
        self.problem = ""
        self.reports: dict[str, list[pytest.TestReport]] = {}
        self.heard = time.monotonic()

    def start(self, kernel: Kernel) -> None:
        """Only the first call does anything."""
        if self.guest is not None or self.problem:
            return
        job = Job(task="pytest", output=str(self.output), directory=str(self.directory), arguments=tuple(self.tests))
        self.silence_seconds = kernel.patience * SILENCE_SECONDS
        try:
            self.guest = Guest(kernel, job)
        except LabError as error:
            self.problem = str(error)
        self.heard = time.monotonic()

    def reports_of(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        """Waits for them."""
        while not self._complete(item.nodeid):
            if reason := self._lost():
                yield failed(item, reason)
                return
            time.sleep(POLL_SECONDS)
        yield from self.reports[item.nodeid]

    def stop(self) -> None:
        if self.guest is not None:
            self.guest.stop()

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


def failed(item: pytest.Item, reason: str) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome="failed",
        longrepr=f"not run in the lab's guest: {reason}",
        when="call",
    )


def divided(weights: Mapping[str, float], count: int) -> list[list[str]]:
    """Files in so many groups of about equal weight: the heaviest first, each to the lightest group. No group is empty;
    the first has the heaviest file."""
    groups: list[list[str]] = [[] for _ in range(max(1, min(count, len(weights))))]
    loads = [0.0] * len(groups)
    for file in sorted(weights, key=lambda name: (-weights[name], name)):
        lightest = loads.index(min(loads))
        groups[lightest].append(file)
        loads[lightest] += weights[file]
    return groups
