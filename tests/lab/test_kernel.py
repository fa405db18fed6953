"""Kernels: jobs, what a guest may write, and that nothing of it remains however the lab ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from feedback.lab.error import LabError
from feedback.lab.job import Job, Options
from feedback.lab.kernel import Guest, native, preload
from feedback.lab.kernel.launch import Launch
from feedback.lab.kernel.uml import Uml

GUEST_SECONDS = 300.0

# Starts a guest that waits, says so, and waits too: somebody to be killed.
KEEPER = """
import signal, sys, time
from feedback.lab.job import Job, Options
from feedback.lab.kernel import Guest
from feedback.lab.kernel.uml import Uml
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
with Guest(Uml(), Job(task="script", output=sys.argv[1], arguments=(sys.argv[2],))):
    print("started", flush=True)
    time.sleep(60)
"""


def script(tmp_path: Path, text: str) -> Job:
    """In the output directory: of the rest of the host's /tmp a guest sees nothing."""
    output = tmp_path / "output"
    output.mkdir()
    (output / "job.py").write_text(text)
    return Job(task="script", output=str(output), arguments=(str(output / "job.py"),))


def test_a_job_survives_its_journey(tmp_path: Path) -> None:
    job = Job(task="scenario", output="/x", scenario="hog", variant="wlc", options=Options(seed=3, adopt=True))
    (tmp_path / "job.json").write_bytes(job.encode())
    assert Job.read(tmp_path / "job.json") == job


def test_a_file_that_is_no_job_is_named(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"task": 3}')
    with pytest.raises(LabError, match=r"job\.json: not a job"):
        Job.read(tmp_path / "job.json")


def test_before_a_guest_starts_our_modules_are_compiled(tmp_path: Path) -> None:
    class Absent(Uml):
        def launch(self, job: Path, output: Path, scratch: Path) -> Launch:
            raise LabError("not here")

    compiled = Path(cache_from_source(native.__file__))
    compiled.unlink(missing_ok=True)
    with pytest.raises(LabError, match="not here"):
        Guest(Absent(), Job(task="script", output=str(tmp_path)))
    assert compiled.exists()


def test_the_library_is_indispensable_only_with_amx() -> None:
    assert preload.indispensable("processor : 0\nflags\t\t: fpu sse amx_tile avx\n")
    assert not preload.indispensable("processor : 0\nflags\t\t: fpu sse avx512f\n")
    assert not preload.indispensable("")


def test_the_library_is_built_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = preload.library()
    assert first is not None
    made = first.stat().st_mtime_ns
    assert preload.library() == first
    assert first.stat().st_mtime_ns == made
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def test_without_a_compiler_an_amx_host_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(preload.shutil, "which", lambda name: None)
    monkeypatch.setattr(preload, "indispensable", lambda: True)
    with pytest.raises(LabError, match="apt install gcc"):
        preload.library()
    monkeypatch.setattr(preload, "indispensable", lambda: False)
    assert preload.library() is None


booting = pytest.mark.lab(on="host")


def processes_of(scratch_or_output: Path) -> list[int]:
    """Of this host, whatever they are called, that have it in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(scratch_or_output).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def scratch_of(pid: int) -> Path:
    """The scratch directory of the guest of this process: the first argument of its supervisor. A program that has just
    been started has no arguments for a moment."""
    supervisor = b"feedback.lab.kernel.supervise"

    def arguments() -> list[bytes]:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return Path(f"/proc/{children[0]}/cmdline").read_bytes().split(b"\0")

    wait_for(lambda: supervisor in arguments())
    found = arguments()
    return Path(found[found.index(supervisor) + 1].decode())


@booting
def test_a_guest_writes_into_its_output_directory_and_nowhere_else(tmp_path: Path) -> None:
    job = script(
        tmp_path,
        "import pathlib, sys\n"
        f"output = pathlib.Path({str(tmp_path / 'output')!r})\n"
        "(output / 'table').write_text(pathlib.Path('/proc/net/ip_vs').read_text())\n"
        f"pathlib.Path('/tmp/{tmp_path.name}-trace').touch()\n"
        "try:\n"
        f"    pathlib.Path({str(Path(__file__).parent / 'trace')!r}).touch()\n"
        "except OSError as error:\n"
        "    (output / 'refused').write_text(str(error))\n",
    )
    with Guest(Uml(), job) as guest:
        guest.wait(GUEST_SECONDS)
    assert "IP Virtual Server" in (tmp_path / "output" / "table").read_text()
    assert "Read-only" in (tmp_path / "output" / "refused").read_text()
    assert not Path(f"/tmp/{tmp_path.name}-trace").exists()


@booting
def test_a_job_that_fails_says_why(tmp_path: Path) -> None:
    with (
        Guest(Uml(), script(tmp_path, "raise ValueError('so it is')")) as guest,
        pytest.raises(LabError, match=r"job\.py ended with 1"),
    ):
        guest.wait(GUEST_SECONDS)


@booting
def test_a_guest_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    with Guest(Uml(), script(tmp_path, "import signal; signal.pause()")) as guest:
        with pytest.raises(LabError, match="has not ended in"):
            guest.wait(3.0)
        assert not guest.running()


@booting
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_remains_of_a_guest_whose_lab_is_killed(tmp_path: Path, how: signal.Signals) -> None:
    job = script(tmp_path, "import signal; signal.pause()")
    command = [sys.executable, "-c", KEEPER, job.output, job.arguments[0]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as keeper:
        try:
            assert keeper.stdout is not None
            assert keeper.stdout.readline() == "started\n"
            scratch = scratch_of(keeper.pid)
            # The supervisor, the kernel, its helpers, a process of the guest.
            wait_for(lambda: len(processes_of(scratch)) > 3)
            os.kill(keeper.pid, how)
            keeper.wait(60)
        finally:
            keeper.kill()
    wait_for(lambda: not processes_of(scratch) and not scratch.exists())


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)
