"""The guest's own time: it skips what is slept, stands still while the host makes it wait, on whatever host."""

import json
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feedback.lab.error import LabError
from feedback.lab.job import Job
from feedback.lab.kernel import Guest, Processor, preload
from feedback.lab.kernel.uml import Uml
from feedback.ops.process import die_with_parent

GUEST_SECONDS = 300.0
CORE = max(os.sched_getaffinity(0))

pytestmark = [pytest.mark.lab(on="host")]

SLEEP = """
import json, time
before = time.monotonic()
time.sleep(1000)
print(json.dumps({"slept": time.monotonic() - before}))
"""

# A second of work, by the clock of the process, and sleeps beside a program that is always busy.
WORK = """
import json, os, signal, time
from feedback.lab.workload.burn import burn, calibrate

SECONDS = 1.0

def work(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        burn(1000)

turns_per_ms = calibrate()
before = time.monotonic()
work(SECONDS)
took = time.monotonic() - before
before = time.monotonic()
burn(int(turns_per_ms * 1000 * SECONDS))
burned = time.monotonic() - before
other = os.fork()
if not other:
    while True:
        burn(1000)
late = []
for _ in range(round(200 * SECONDS)):
    before = time.monotonic()
    time.sleep(0.005)
    late.append(time.monotonic() - before - 0.005)
os.kill(other, signal.SIGKILL)
print(json.dumps({
    "turns_per_ms": turns_per_ms, "took": took, "burned": burned, "late": sorted(late)[len(late) * 9 // 10],
}))
"""


def run_in_guest(tmp_path: Path, text: str, processor: Processor | None = None) -> dict[str, Any]:
    """What the script prints, as JSON, with the wall's `seconds` that the guest took beside it, and the processor's."""
    output = tmp_path / f"output-{len(list(tmp_path.iterdir()))}"
    output.mkdir()
    (output / "job.py").write_text(text)
    job = Job(task="script", output=str(output), arguments=(str(output / "job.py"),))
    before, used = time.monotonic(), processor_seconds()
    with Guest(Uml(processor), job, cpu=CORE) as guest:
        assert guest.own_time
        guest.wait(GUEST_SECONDS)
    took = {"seconds": time.monotonic() - before, "processor_seconds": processor_seconds() - used}
    return json.loads((output / "stdout").read_text()) | took


def processor_seconds() -> float:
    """Of all that has run below this process and has ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def occupy() -> None:
    die_with_parent()
    os.sched_setaffinity(0, {CORE})
    os.setsid()  # as the guest is, where the kernel shares the processor out by sessions: it has a quarter
    while True:
        pass


@pytest.fixture
def a_busy_host(request: pytest.FixtureRequest) -> Iterator[None]:
    """So many programs that want all of the guest's core, all the time."""
    others = [multiprocessing.get_context("spawn").Process(target=occupy, daemon=True) for _ in range(request.param)]
    for other in others:
        other.start()
    yield
    for other in others:
        other.kill()
        other.join()


def test_what_a_guest_sleeps_is_skipped(tmp_path: Path) -> None:
    found = run_in_guest(tmp_path, SLEEP)
    assert 1000 <= found["slept"] < 1000.01
    assert found["seconds"] < 100


@pytest.mark.parametrize(
    ("a_busy_host", "seconds"), [(1, 0.3), pytest.param(3, 1.0, marks=pytest.mark.long)], indirect=["a_busy_host"]
)
def test_a_guest_does_not_see_that_the_host_makes_it_wait(tmp_path: Path, a_busy_host: None, seconds: float) -> None:
    found = run_in_guest(tmp_path, WORK.replace("SECONDS = 1.0", f"SECONDS = {seconds}"))
    assert found["seconds"] > 1.3 * found["processor_seconds"]  # the host did make it wait
    assert found["took"] == pytest.approx(seconds, rel=0.02)
    assert found["burned"] == pytest.approx(seconds, rel=0.15)
    assert found["late"] < 0.002


@pytest.mark.long
def test_an_alarm_that_the_kernel_loses_comes_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEEDBACK_LAB_LOST", "3")
    found = run_in_guest(tmp_path, WORK)
    assert found["took"] == pytest.approx(1.0, rel=0.02)
    assert found["late"] < 0.004


@pytest.mark.long
def test_a_processor_of_half_the_speed_does_half_the_work(tmp_path: Path) -> None:
    whole, half = (run_in_guest(tmp_path, WORK, processor) for processor in (None, Processor(speed=0.5)))
    assert half["turns_per_ms"] == pytest.approx(whole["turns_per_ms"] / 2, rel=0.15)
    assert half["took"] == pytest.approx(1.0, rel=0.02)


@pytest.mark.long
def test_what_a_host_steals_passes_on_the_guests_clock(tmp_path: Path) -> None:
    found = run_in_guest(tmp_path, WORK, Processor(stolen=0.5))
    assert found["burned"] == pytest.approx(2.0, rel=0.15)


def test_without_the_library_a_guest_has_the_hosts_time_and_no_other_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(preload, "library", lambda: None)
    job = tmp_path / "job"
    job.write_bytes(Job(task="script", output=str(tmp_path)).encode())
    launch = Uml().launch(job, tmp_path, tmp_path)
    assert not launch.own_time
    assert "env" not in launch.command
    with pytest.raises(LabError, match="no time of its own"):
        Uml(Processor(speed=0.5)).launch(job, tmp_path, tmp_path)


def test_a_kernel_unknown_to_the_library_does_not_get_its_own_time() -> None:
    library = preload.library()
    assert library is not None
    assert preload.gives_time("linux.uml", library)
    assert not preload.gives_time("true", library)
