from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from feedback.agent.signals.cpu import TICK_SECONDS, CgroupCpu, Grain, HostCpu
from feedback.agent.signals.files import SignalError
from tests.agent import trees


def test_host_counts_steal_as_busy_and_leaves_out_io_wait_and_guest(tmp_path: Path) -> None:
    cpu = HostCpu(trees.proc(tmp_path)).sample(0.0)
    # user + nice + system + irq + softirq + steal; guest is inside user already
    assert cpu.busy_seconds == pytest.approx((100 + 10 + 50 + 5 + 15 + 20) * TICK_SECONDS)
    assert cpu.steal_seconds == pytest.approx(20 * TICK_SECONDS)
    assert cpu.resolution_seconds == TICK_SECONDS
    assert cpu.cores == 2


def test_host_run_queue_leaves_out_the_agent_itself(tmp_path: Path) -> None:
    assert HostCpu(trees.proc(tmp_path)).sample(0.0).runnable == 2


def test_a_stat_without_the_run_queue_tells_none(tmp_path: Path) -> None:
    proc = trees.proc(tmp_path)
    trees.write(proc / "stat", trees.STAT.replace("procs_running 3\n", ""))
    assert HostCpu(proc).sample(0.0).runnable is None


def test_a_bounded_cgroup_reads_the_hosts_file_with_its_limits_only(tmp_path: Path) -> None:
    group, proc = trees.cgroup(tmp_path / "rs1", quota="50000 100000"), trees.proc(tmp_path / "proc")
    source = CgroupCpu(group, proc=proc)
    source.sample(0.0)
    trees.write(proc / "stat", "broken\n")
    assert source.sample(0.9).cores == 0.5
    with pytest.raises(SignalError, match="no cpu line"):
        source.sample(1.0)


def test_host_follows_its_file(tmp_path: Path) -> None:
    source = HostCpu(trees.proc(tmp_path))
    before = source.sample(0.0)
    trees.write(tmp_path / "stat", trees.STAT.replace("cpu  100 ", "cpu  150 "))
    assert source.sample(0.2).busy_seconds - before.busy_seconds == pytest.approx(50 * TICK_SECONDS)


def test_cgroup_is_bounded_by_its_quota(tmp_path: Path) -> None:
    group = trees.cgroup(tmp_path / "rs1", quota="50000 100000", usage_usec=1_234_567, throttled_usec=89)
    cpu = CgroupCpu(group, proc=trees.proc(tmp_path / "proc")).sample(0.0)
    assert cpu.cores == 0.5
    assert cpu.busy_seconds == 1.234567
    assert cpu.own_seconds == 1.234567
    assert cpu.throttled_seconds == 89e-6
    assert cpu.steal_seconds is None


def test_the_smallest_quota_on_the_way_up_binds_with_all_that_is_used_there(tmp_path: Path) -> None:
    trees.cgroup(tmp_path / "pod", quota="100000 100000", usage_usec=5_000_000)
    group = trees.cgroup(tmp_path / "pod/rs1", quota="150000 100000", usage_usec=1_000_000)
    cpu = CgroupCpu(group, proc=trees.proc(tmp_path / "proc")).sample(0.0)
    assert (cpu.cores, cpu.busy_seconds, cpu.own_seconds) == (1.0, 5.0, 1.0)


def test_a_cgroup_without_any_limit_has_the_host(tmp_path: Path) -> None:
    group = trees.cgroup(tmp_path / "rs1", usage_usec=1_000_000)
    proc = trees.proc(tmp_path / "proc")
    cpu = CgroupCpu(group, proc=proc).sample(0.0)
    assert cpu.busy_seconds == HostCpu(proc).sample(0.0).busy_seconds
    assert (cpu.cores, cpu.own_seconds, cpu.resolution_seconds) == (2, 1.0, TICK_SECONDS)


def test_a_cpuset_smaller_than_the_host_binds(tmp_path: Path) -> None:
    group = trees.cgroup(tmp_path / "rs1", usage_usec=1_000_001)
    trees.write(group / "cpuset.cpus.effective", "1\n")
    cpu = CgroupCpu(group, proc=trees.proc(tmp_path / "proc")).sample(0.0)
    assert (cpu.cores, cpu.busy_seconds) == (1.0, 1.000001)


def test_a_quota_changed_by_hand_is_seen_within_a_second_and_keeps_the_epoch(tmp_path: Path) -> None:
    group = trees.cgroup(tmp_path / "rs1", quota="50000 100000")
    source = CgroupCpu(group, proc=trees.proc(tmp_path / "proc"))
    source.sample(0.0)
    trees.write(group / "cpu.max", "100000 100000\n")
    assert source.sample(1.0).cores == 1.0
    assert source.epoch == 0


def test_another_binding_level_begins_a_new_epoch(tmp_path: Path) -> None:
    pod = trees.cgroup(tmp_path / "pod", quota="100000 100000", usage_usec=5_000_000)
    group = trees.cgroup(pod / "rs1", quota="150000 100000", usage_usec=1_000_000)
    source = CgroupCpu(group, proc=trees.proc(tmp_path / "proc"))
    source.sample(0.0)
    trees.write(pod / "cpu.max", "max 100000\n")
    assert source.sample(1.0).busy_seconds == 1.0
    assert source.epoch == 1


def test_counters_that_begin_anew_begin_a_new_epoch(tmp_path: Path) -> None:
    group = trees.cgroup(tmp_path / "rs1", quota="50000 100000", usage_usec=9_000_000)
    source = CgroupCpu(group, proc=trees.proc(tmp_path / "proc"))
    source.sample(0.0)
    trees.use(group, 1_000)
    source.sample(0.2)
    assert source.epoch == 1


def test_what_is_no_cgroup_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match="nowhere"):
        CgroupCpu(tmp_path / "nowhere", proc=trees.proc(tmp_path / "proc"))


def test_a_version_1_directory_is_refused(tmp_path: Path) -> None:
    group = tmp_path / "rs1"
    trees.write(group / "cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n")
    with pytest.raises(SignalError, match="not a cgroup v2 directory"):
        CgroupCpu(group, proc=trees.proc(tmp_path / "proc"))


def test_the_services_own_part_goes_missing_and_comes_back_without_silencing_the_agent(tmp_path: Path) -> None:
    group = trees.cgroup(tmp_path / "rs1", quota="50000 100000", usage_usec=2_000_000)
    service = group / "service"
    source = CgroupCpu(group, (service,), proc=trees.proc(tmp_path / "proc"))
    assert source.sample(0.0).own_seconds is None
    trees.cgroup(service, usage_usec=500_000)
    assert source.sample(1.0).own_seconds == 0.5
    shutil.rmtree(service)
    assert source.sample(2.0).busy_seconds == 2.0


def test_the_cgroups_of_a_service_are_summed_while_all_of_them_exist(tmp_path: Path) -> None:
    group = trees.cgroup(tmp_path / "rs1", quota="100000 100000")
    web, php = trees.cgroup(group / "web", usage_usec=200_000), group / "php"
    neighbour = trees.cgroup(group / "backup", usage_usec=0)
    source = CgroupCpu(group, (web, php), proc=trees.proc(tmp_path / "proc"))
    source.sample(0.0)
    trees.use(neighbour, 600_000)
    told = source.sample(1.0)
    assert (told.own_seconds, told.entitled) == (None, None)
    trees.cgroup(php, usage_usec=500_000)
    assert source.sample(2.0).own_seconds == 0.7
    for path, usage in ((web, 300_000), (php, 800_000), (neighbour, 1_200_000)):
        trees.use(path, usage)
    told = source.sample(3.0)
    assert told.own_seconds == 1.1
    assert told.entitled == pytest.approx(2 / 3)


def test_on_a_host_the_weights_tell_what_a_service_would_get(tmp_path: Path) -> None:
    root = host(tmp_path)
    service = root / "system.slice" / "web"
    source = CgroupCpu(root, (service,), proc=trees.proc(tmp_path / "proc"))
    assert source.sample(0.0).entitled is None
    trees.use(root / "system.slice", 5_000_000)
    trees.use(root / "system.slice" / "backup", 2_000_000)
    told = source.sample(1.0)
    assert (told.cores, told.own_seconds, told.entitled) == (2, 1.0, 0.5)


def test_no_entitlement_is_reported_below_a_slice_that_does_not_bind(tmp_path: Path) -> None:
    root = host(tmp_path)
    slice_ = root / "system.slice"
    source = CgroupCpu(slice_, (slice_ / "web",), proc=trees.proc(tmp_path / "proc"))
    source.sample(0.0)
    assert source.sample(1.0).entitled is None


def host(tmp_path: Path) -> Path:
    """The topmost cgroup has neither weight nor quota."""
    root = trees.cgroup(tmp_path / "cgroup")
    (root / "cpu.max").unlink()
    (root / "cpu.weight").unlink()
    trees.cgroup(root / "system.slice")
    for name in ("web", "backup"):
        trees.cgroup(root / "system.slice" / name)
    return root


@pytest.mark.parametrize(
    ("seen", "resolution"),
    [
        ((), None),
        ((0, 0), 0.01),  # nothing used yet: the tick is assumed
        ((120_000, 130_000, 250_000), 0.01),  # a kernel that accounts by ticks
        ((120_000, 140_000, 200_000), 0.01),  # the divisor may be a multiple of the tick for a while
        ((4_000, 12_000, 20_000), 0.004),  # ticks of 250 Hz
        ((123_457, 130_011), 0.0),
        ((120_000, 130_001), 0.0),
    ],
)
def test_the_grain_of_the_counter_is_found_by_looking(seen: tuple[int, ...], resolution: float | None) -> None:
    grain, found = Grain(), None
    for value in seen:
        found = grain.see(value)
    assert found == resolution
