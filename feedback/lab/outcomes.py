"""Outcomes of tests, from the pytest in a guest to the pytest of the host: one file, a line for each report.

What pytest makes of a report for such a journey is plain data, in which tuples mean something: its summary unpacks the
place and reason of a skip. JSON has no tuples, so the lines are written by execnet, as pytest-xdist does for its
workers. Invariant: what is read is what was reported, but that a user property of no plain type becomes its text.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import execnet
import pytest

REPORTS = "reports"  # the file, in the job's output directory


class Writer:
    """A plugin of the guest's pytest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config: pytest.Config | None = None

    def pytest_configure(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        assert self.config is not None
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        data["user_properties"] = [(name, _plain(value)) for name, value in report.user_properties]
        with self.path.open("ab") as file:  # closing is what writes to the host's file
            file.write(base64.b64encode(execnet.dumps(data)) + b"\n")


class Reader:
    """The host's half. The file grows while it is read, and may not exist yet."""

    def __init__(self, path: Path, config: pytest.Config) -> None:
        self.path, self.config = path, config
        self.read_bytes = 0

    def new(self) -> Iterator[pytest.TestReport]:
        """The reports since the last call, in their order."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.read_bytes)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.read_bytes += len(whole)
        for line in whole.splitlines():
            data = execnet.loads(base64.b64decode(line))
            yield self.config.hook.pytest_report_from_serializable(config=self.config, data=data)


def _plain(value: Any) -> Any:
    try:
        execnet.dumps(value)
    except execnet.DumpError:
        return str(value)
    return value
