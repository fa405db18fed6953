"""The native kernel: the same code straight on a kernel with IPVS, and nothing left there (run in the guest)."""

import time
from pathlib import Path

import pytest

from feedback.lab import cgroup, network
from feedback.lab.job import Job
from feedback.lab.kernel import Guest
from feedback.lab.kernel.native import Native

pytestmark = pytest.mark.lab

# A cluster that waits to be killed, with a process in a cgroup of its own.
CLUSTER = """
import sys, time
from pathlib import Path
from feedback.lab import cgroup, network
from feedback.lab.process import Processes
from feedback.lab.topology import pool
run, output = sys.argv[1], Path(sys.argv[2])
topology = pool(run, (0.5,))
network.build(topology)
group = cgroup.make(cgroup.run_directory(run) / "rs1", 0.5)
Processes(output).start("sleep", ["sleep", "1000"], namespace=topology.namespace("rs1"), group=group)
(output / "standing").touch()
time.sleep(1000)
"""


def test_stopping_a_native_job_removes_namespaces_cgroups_and_processes(tmp_path: Path) -> None:
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    run, output = "nativetest", tmp_path / "output"
    job = Job(task="script", output=str(output), run=run, arguments=(str(script), run, str(output)))
    with Guest(Native(), job) as guest:
        deadline = time.monotonic() + 60
        while not (output / "standing").exists():
            assert guest.running(), (output / "console.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert (network.NAMESPACES / f"{run}-rs1").exists()
    assert not list(network.NAMESPACES.glob(f"{run}-*"))
    assert not cgroup.run_directory(run).exists()
