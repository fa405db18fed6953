"""The units under a systemd that runs, with their whole sandbox, on a real kernel with IPVS: Debian's systemd boots in
a container inside the lab's guest. What is tried there is in try.sh; booted.sh makes the container."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab(seconds=25)

HERE = Path(__file__).parent
CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture
def cgroup() -> Iterator[list[Path]]:
    """A cgroup of the container's own in each tree that systemd looks at."""
    trees = [CGROUPS] if (CGROUPS / "cgroup.controllers").exists() else [CGROUPS / "systemd", CGROUPS / "unified"]
    made = [tree / f"booted-{os.getpid()}" for tree in trees]
    for path in made:
        path.mkdir()
    yield made
    for path in made:
        for below in sorted(path.rglob("*/"), reverse=True):
            below.rmdir()
        path.rmdir()


# Their secrets as credentials, and ranges of addresses, are left to `make test-all`.
@pytest.mark.parametrize("parts", ["", pytest.param("ranges credentials", marks=pytest.mark.long)], ids=["some", "all"])
def test_agent_master_and_sync_work_in_their_units(parts: str, cgroup: list[Path]) -> None:
    work, out = (Path(tempfile.mkdtemp(prefix=f"feedback-booted-{name}-")) for name in ("work", "out"))
    enter = "".join(f"echo $$ >{path}/cgroup.procs; " for path in cgroup)
    unshare = "exec unshare --mount --pid --ipc --uts --net --cgroup --fork --kill-child --propagation private"
    arguments = [work, out, HERE.parents[1], sys.base_prefix, sysconfig.get_path("purelib"), "", parts]
    command = ["sh", "-c", f'{enter}{unshare} sh "$@"', "sh", HERE / "booted.sh", *arguments]
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
        said = (out / "said").read_text() if (out / "said").exists() else ""
        assert "FAILS" not in said and said.rstrip().endswith("that was all"), (
            f"{said}\n{done.stdout}{done.stderr}{(out / 'console').read_text() if (out / 'console').exists() else ''}"
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
