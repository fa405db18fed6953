"""The entry of a job: `python -m feedback.lab.guest JOB`, in a guest or natively.

Owns the job's end: the file `done` says that it has ended as it should, and how many seconds it took by this kernel's
clock; `failure` holds what went wrong.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
import traceback
from pathlib import Path

from feedback.lab.error import LabError
from feedback.lab.job import Job


def main(path: Path) -> int:
    began = time.monotonic()
    job = Job.read(path)
    output = Path(job.output)
    (output / "environment.json").write_text(json.dumps(_environment()), encoding="utf-8")
    try:
        _run(job, output)
    except LabError as error:
        (output / "failure").write_text(f"{error}\n", encoding="utf-8")
        return 1
    except BaseException:
        (output / "failure").write_text(traceback.format_exc(), encoding="utf-8")
        raise
    (output / "done").write_text(f"{time.monotonic() - began:.3f}\n", encoding="ascii")
    return 0


def _run(job: Job, output: Path) -> None:
    if job.task == "pytest":
        from feedback.lab import suite

        suite.run_inside(job, output)
        return
    if job.task == "script":
        _script(job, output)
        return
    from feedback.lab import scenarios

    scenarios.named(job.scenario).run(job, output)


def _script(job: Job, output: Path) -> None:
    """A Python script with its arguments. Its output becomes the file `stdout`."""
    with (output / "stdout").open("wb") as stdout:
        ended = subprocess.run([sys.executable, *job.arguments], stdout=stdout, check=False)
    if ended.returncode != 0:
        raise LabError(f"{' '.join(job.arguments)} ended with {ended.returncode}: see {output / 'console.log'}")


def _environment() -> dict[str, str]:
    return {"kernel_release": platform.release(), "cpu_clock": _cpu_clock()}


def _cpu_clock() -> str:
    """Whether the scheduler counts nanoseconds or ticks, by which a quota is exact or not (kernel/preload/clock.c)."""
    before = time.thread_time_ns()
    while (passed := time.thread_time_ns() - before) == 0:
        pass
    return "ticks" if passed >= 1_000_000 else "nanoseconds"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
