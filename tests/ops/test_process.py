"""What a process of ours asks of the kernel for itself."""

import os
import subprocess
from pathlib import Path

import pytest

from feedback.ops.process import come_first

AUTOGROUP = Path("/proc/self/autogroup")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may go before others")
def test_a_session_comes_first_as_a_whole() -> None:
    """Where the kernel groups by session, a process's own nice value counts within its session only."""

    def begin() -> None:
        come_first(-7)

    said = subprocess.run(
        ("cat", "/proc/self/autogroup", "/proc/self/stat"),
        start_new_session=True,
        preexec_fn=begin,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    assert said[-1].rpartition(")")[2].split()[16] == "-7"
    if AUTOGROUP.exists() and Path("/proc/sys/kernel/sched_autogroup_enabled").read_text().strip() == "1":
        assert said[0].endswith("nice -7")


def test_who_may_not_come_first_goes_on_as_it_is() -> None:
    said = subprocess.run(
        ("cat", "/proc/self/stat"),
        user=65534 if os.geteuid() == 0 else None,
        preexec_fn=lambda: come_first(-7),
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert said.rpartition(")")[2].split()[16] == str(os.getpriority(os.PRIO_PROCESS, 0))
