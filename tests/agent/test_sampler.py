"""All sources together: what must be there, and what may be missing."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import pytest

from feedback.agent.signals.files import SignalError, topmost
from feedback.agent.signals.sampler import Sampler
from feedback.config import AgentConfig, MasterLink
from tests.agent import trees

MASTER = MasterLink(endpoint="tcp://127.0.0.1:9", public_key="x" * 40)
CONFIG = AgentConfig(name="rs1", addresses=("10.0.0.11",), master=(MASTER,))


def sampler(proc: Path) -> contextlib.closing[Sampler]:
    ticks = iter(range(1000))
    return contextlib.closing(Sampler(CONFIG, lambda: float(next(ticks)), proc))


def test_everything_a_kernel_has_is_in_the_sample(tmp_path: Path) -> None:
    with sampler(trees.proc(tmp_path)) as source:
        sample = source.sample()
    assert sample.connections is not None
    assert sample.pressure is not None
    assert sample.cpu.cores == 2


def test_a_service_on_a_host_is_told_apart_without_a_cgroup_that_bounds_it(tmp_path: Path) -> None:
    service = trees.cgroup(tmp_path / "cgroup/system.slice/web", usage_usec=250_000).resolve()
    for path in (service.parent, service.parent.parent):
        trees.cgroup(path)
    config = msgspec.structs.replace(CONFIG, service_cgroup=str(service))
    with contextlib.closing(Sampler(config, lambda: 0.0, trees.proc(tmp_path / "proc"))) as source:
        sample = source.sample()
    assert (sample.cpu.cores, sample.cpu.own_seconds) == (2, 0.25)
    assert sample.memory.total == 1_000_000 * 1024  # the host's


def test_the_host_is_the_topmost_cgroup_above_a_service_that_may_not_be_there_yet(tmp_path: Path) -> None:
    root = trees.cgroup(tmp_path / "cgroup").resolve()
    trees.cgroup(root / "system.slice")
    assert topmost(root / "system.slice/web") == root
    assert topmost(root / "custom.slice/web") == root


def test_a_service_cgroup_that_lies_in_no_hierarchy_is_named(tmp_path: Path) -> None:
    config = msgspec.structs.replace(CONFIG, service_cgroup=str(tmp_path / "nowhere/web"))
    with pytest.raises(SignalError, match=r"nowhere/web: no cgroup v2 directory lies above it"):
        Sampler(config, lambda: 0.0, trees.proc(tmp_path / "proc"))


def test_the_samples_time_lies_between_cpu_and_connections(tmp_path: Path) -> None:
    with sampler(trees.proc(tmp_path)) as source:
        assert source.sample().sampled_at == 1.0  # the clock's second tick: the first was before CPU was read


def test_what_a_kernel_has_not_is_left_out_and_named(tmp_path: Path) -> None:
    proc = trees.proc(tmp_path, pressure=False)
    (proc / "thread-self/net/snmp").unlink()
    with sampler(proc) as source:
        sample = source.sample()
        assert source.absent() == ["pressure", "connections", "pressure-trigger"]
    assert (sample.pressure, sample.connections, sample.listeners, sample.applications) == (None, None, (), ())


def test_without_cpu_there_is_no_agent(tmp_path: Path) -> None:
    proc = trees.proc(tmp_path)
    (proc / "stat").unlink()
    with pytest.raises(SignalError, match="stat"):
        sampler(proc)


def test_text_of_another_form_is_a_failed_signal_and_not_a_crash(tmp_path: Path) -> None:
    proc = trees.proc(tmp_path)
    with sampler(proc) as source:
        trees.write(proc / "stat", "cpu a b c d e f g h\n")
        with pytest.raises(SignalError, match="unexpected form"):
            source.sample()
