"""One step on one kernel: the contract tests, or a scenario. Each is the command that anybody would type.

Owns the directory build/kernels. A step that ran is a file there, whatever came of it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
import xml.etree.ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from feedback.lab.kernel.debian import unpacked

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "kernels"
# What talks to IPVS and to the network, each against the real kernel. The rest of the suite does not depend on it.
CONTRACT = ("tests/ipvs", "tests/sync/replication/test_kernel.py", "tests/sync/addresses/test_network.py")
SCENARIOS = ("hog", "join", "spillover", "takeover", "handover")
# Only what differs with the kernel: not the peers, and of those who compare, the one to compare with.
POLICIES = {"hog": "wlc,feedback", "join": "feedback", "takeover": "feedback", "handover": "feedback"}
STEPS = ("contract", *SCENARIOS)
FEEDBACK = [sys.executable, "-c", "from feedback.cli.entry import main; main()"]
STEP_SECONDS = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Setup:
    """A kernel as `--kernel` has it, a number of processors (0: its own), and which director of a pair, if any, has the
    user-mode kernel instead."""

    kernel: str
    processors: int = 0
    foreign: str = ""

    @staticmethod
    def parse(text: str) -> Setup:
        """`qemu:newest`, `qemu:newest/2`, `qemu:newest+first` or `qemu:newest+second`."""
        rest, _, foreign = text.partition("+")
        kernel, _, processors = rest.partition("/")
        return Setup(kernel, int(processors or 0), foreign)

    def __str__(self) -> str:
        return (
            self.kernel
            + (f"/{self.processors}" if self.processors else "")
            + (f"+{self.foreign}" if self.foreign else "")
        )

    @property
    def options(self) -> list[str]:
        return ["--kernel", self.kernel, *(["--processors", str(self.processors)] if self.processors else [])]

    @property
    def steps(self) -> tuple[str, ...]:
        return ("takeover", "handover") if self.foreign else STEPS


SETUPS = (
    Setup("uml"),
    Setup("qemu:6.1"),
    Setup("qemu:trixie"),
    Setup("qemu:newest"),
    Setup("qemu:newest", 2),
    Setup("qemu:newest", 0, "first"),
    Setup("qemu:newest", 0, "second"),
)


class Outcome(msgspec.Struct, frozen=True):
    """`said` is one line; `facts` what the run tells of its kernel."""

    ok: bool
    said: str
    took_seconds: float
    figures: dict[str, float | None] = {}
    facts: dict[str, Any] = {}


def known(setup: Setup) -> dict[str, Outcome]:
    found = {}
    for step in STEPS:
        path = _directory(setup) / f"{step}.json"
        if path.exists():
            found[step] = msgspec.json.decode(path.read_bytes(), type=Outcome)
    return found


def perform(setup: Setup, step: str) -> Outcome:
    directory = _directory(setup)
    directory.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    outcome = _contract(setup, directory) if step == "contract" else _scenario(setup, step, directory)
    outcome = msgspec.structs.replace(outcome, took_seconds=round(time.monotonic() - began, 1))
    (directory / f"{step}.json").write_bytes(msgspec.json.format(msgspec.json.encode(outcome)))
    return outcome


def _directory(setup: Setup) -> Path:
    return KEPT / re.sub(r"[^\w.+]", "-", str(setup))


def _contract(setup: Setup, directory: Path) -> Outcome:
    report = directory / "contract.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-m", "lab", "-q", f"--junitxml={report}", *setup.options, *CONTRACT]
    status = _run(command, directory / "contract.log")
    if not report.exists():
        return Outcome(False, f"pytest ended with {status}: see {directory / 'contract.log'}", 0)
    suite = next(xml.etree.ElementTree.parse(report).getroot().iter("testsuite"))
    count = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    passed = count["tests"] - count["failures"] - count["errors"] - count["skipped"]
    said = f"{passed} of {count['tests'] - count['skipped']}"
    said += f", {count['skipped']} skipped" if count["skipped"] else ""
    return Outcome(status == 0 and passed > 0, said, 0, facts=_facts(setup))


def _facts(setup: Setup) -> dict[str, Any]:
    kind, _, name = setup.kernel.partition(":")
    if kind != "qemu":
        return {}
    return {"kernel_package": unpacked(name).version, "processors": setup.processors or 1}


def _scenario(setup: Setup, step: str, directory: Path) -> Outcome:
    own = ["--only", POLICIES[step]] if step in POLICIES else []
    own += [f"--{setup.foreign}-kernel", "uml"] if setup.foreign else []
    output = directory / step
    command = [*FEEDBACK, "lab", "run", step, *setup.options, *own, "--output", str(output)]
    (output / "result.json").unlink(missing_ok=True)
    status = _run([*command, "--json"], directory / f"{step}.log")
    if not (output / "result.json").exists():
        log = (directory / f"{step}.log").read_text(encoding="utf-8", errors="replace").strip()
        return Outcome(False, f"ended with {status}: {log.splitlines()[-1] if log else ''}", 0)
    result = msgspec.json.decode((output / "result.json").read_bytes())
    said = "; ".join([result["verdict"], *result["failures"]])
    return Outcome(status == 0, said, 0, result["figures"], result["environment"])


def _run(command: list[str], log: Path) -> int:
    with log.open("wb") as file:
        return subprocess.run(command, stdout=file, stderr=file, cwd=ROOT, timeout=STEP_SECONDS, check=False).returncode
