"""Cores for guests: each its own while there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from feedback.lab.error import LabError
from feedback.lab.kernel import cores


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_no_two_share_a_core_while_another_is_free() -> None:
    held = [cores.take((2, 5)) for _ in range(5)]
    assert [core for core, _ in held] == [2, 5, 2, 5, 2]
    for number in (1, 4):
        os.close(held[number][1])
    assert [cores.take((2, 5))[0] for _ in range(2)] == [5, 2]


def test_a_core_is_free_again_when_its_last_holder_has_ended() -> None:
    core, descriptor = cores.take((2, 5))
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor])
    os.close(descriptor)
    assert (core, cores.take((2, 5))[0]) == (2, 5)
    other.kill()
    other.communicate()
    assert cores.take((2, 5))[0] == 2


def test_only_cores_that_this_process_may_use_are_given() -> None:
    assert cores.take()[0] == min(os.sched_getaffinity(0))


def test_where_nothing_can_be_written_it_says_what_to_set(cache: Path) -> None:
    (cache / "lvs-feedback").touch()
    with pytest.raises(LabError, match="XDG_CACHE_HOME"):
        cores.take()
