from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from feedback.agent.signals import memory as module
from feedback.agent.signals.memory import CgroupMemory, HostMemory
from tests.agent import trees


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    return trees.proc(tmp_path / "proc")


@pytest.fixture(autouse=True)
def roomy_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "host_bytes", lambda: (10**12, 10**12))


def test_host_tells_what_is_available_with_its_events(proc: Path) -> None:
    memory = HostMemory(proc).sample(0.0)
    assert (memory.total, memory.available) == (1_000_000 * 1024, 400_000 * 1024)
    assert (memory.swap_in_pages, memory.oom_kills) == (12, 1)


def test_host_is_read_every_other_time(proc: Path) -> None:
    source = HostMemory(proc)
    source.sample(0.0)
    trees.write(proc / "meminfo", trees.MEMINFO.replace("400000", "300000"))
    assert [source.sample(now).available // 1024 for now in (0.2, 0.4)] == [400_000, 300_000]


def test_a_kernel_that_does_not_tell_what_is_available_gets_psutils_estimate(proc: Path) -> None:
    trees.write(proc / "meminfo", "MemTotal: 1000 kB\nMemFree: 10 kB\n")
    assert HostMemory(proc).sample(0.0).total == 10**12


def test_a_kernel_without_event_counters_leaves_them_out(proc: Path) -> None:
    (proc / "vmstat").unlink()
    assert HostMemory(proc).sample(0.0).swap_in_pages is None


def test_unused_page_cache_counts_as_available(tmp_path: Path, proc: Path) -> None:
    group = trees.cgroup(tmp_path / "g/rs1", memory_max="1000", memory_current=700, inactive_file=200)
    memory = CgroupMemory(group, proc).sample(0.0)
    assert (memory.total, memory.available) == (1000, 500)
    assert (memory.swap_in_pages, memory.oom_kills) == (5, 2)


def test_the_level_with_the_least_left_counts(tmp_path: Path, proc: Path) -> None:
    trees.cgroup(tmp_path / "g/pod", memory_max="2000", memory_current=1900)
    group = trees.cgroup(tmp_path / "g/pod/rs1", memory_max="1000", memory_current=200)
    memory = CgroupMemory(group, proc).sample(0.0)
    assert (memory.total, memory.available) == (2000, 100)


def test_a_cgroup_over_its_limit_has_nothing_left(tmp_path: Path, proc: Path) -> None:
    group = trees.cgroup(tmp_path / "g/rs1", memory_max="1000", memory_current=1100)
    assert CgroupMemory(group, proc).sample(0.0).available == 0


def test_a_cgroup_without_limit_has_the_hosts_memory(tmp_path: Path, proc: Path) -> None:
    group = trees.cgroup(tmp_path / "g/rs1", memory_max="max", memory_current=700)
    assert CgroupMemory(group, proc).sample(0.0).total == 1_000_000 * 1024


def test_a_host_with_less_than_the_limit_leaves_counts_instead(
    tmp_path: Path, proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = trees.cgroup(tmp_path / "g/rs1", memory_max=str(10**12), memory_current=0)
    monkeypatch.setattr(module, "host_bytes", lambda: (1_000_000 * 1024, 400_000 * 1024))
    assert CgroupMemory(group, proc).sample(0.0).available == 400_000 * 1024


def test_the_real_host_agrees_with_psutil() -> None:
    ours, theirs = HostMemory().sample(0.0), psutil.virtual_memory()
    assert ours.total == theirs.total
    assert ours.available == pytest.approx(theirs.available, rel=0.1)
