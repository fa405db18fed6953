"""What owners say that they wrote, and the judge of how we got along with them; the examples pass the real programs."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from feedback.lab.job import Options
from feedback.lab.owners.judge import Seen, fights, overwritten, raised, unseen
from feedback.lab.owners.program import PROGRAMS, Written, logged_at
from feedback.lab.samples import Sample
from feedback.lab.scenarios import adopt
from feedback.lab.topology import pool
from feedback.lab.trace import Event, Trace
from feedback.lab.workload.records import Record
from tests.lab.judging import missed

CONTRIB = Path(__file__).parents[2] / "contrib"
A, B = "10.77.0.12", "10.77.0.13"
WEIGHTS = {A: 10, B: 10}


@pytest.mark.parametrize(
    ("program", "line", "written"),
    [
        ("keepalived", "Removing service [10.77.0.13]:tcp:80 from VS [10.77.0.100]:tcp:80", Written(B, None)),
        ("keepalived", "Adding service [10.77.0.13]:tcp:80 to VS [10.77.0.100]:tcp:80", Written(B, 10)),
        ("keepalived", "Disabling service [10.77.0.12]:tcp:80 of VS [10.77.0.100]:tcp:80", Written(A, 0)),
        ("keepalived", "Enabling service [10.77.0.12]:tcp:80 of VS [10.77.0.100]:tcp:80", Written(A, 10)),
        (
            "keepalived",
            "Changing weight from 10 to 20 for active service [10.77.0.13]:tcp:80 of VS [10.77.0.100]:tcp:80",
            Written(B, 20),
        ),
        ("keepalived", "Activating healthchecker for service [10.77.0.13]:tcp:80 for VS [10.77.0.100]:tcp:80", None),
        ("keepalived", "Shutting down service [10.77.0.13]:tcp:80 from VS [10.77.0.100]:tcp:80", None),
        (
            "ldirectord",
            "Quiescent real server: 10.77.0.13:80 (10.77.0.100:80) (Weight set to 0)",
            Written(B, 0),
        ),
        ("ldirectord", "Deleted real server: 10.77.0.13:80 (10.77.0.100:80)", Written(B, None)),
        (
            "ldirectord",
            "Restored real server: 10.77.0.13:80 (10.77.0.100:80) (Weight set to 20)",
            Written(B, 20),
        ),
        ("ldirectord", "Added virtual server: 10.77.0.100:80", None),
        ("ldirectord", "Resetting soft failure count: 10.77.0.13:80 (tcp:10.77.0.100:80)", None),
    ],
)
def test_a_line_of_a_log_says_what_was_written(program: str, line: str, written: Written | None) -> None:
    assert PROGRAMS[program].written(f"Fri Nov 20 19:55:16 2026: {line}", WEIGHTS) == written


def test_a_line_of_a_log_says_when() -> None:
    lines = ["Fri Nov 20 19:55:16 2026: Reload", "[Fri Nov  6 19:55:16 2026] Reload", "no clock here"]
    first, second, none = (logged_at(line) for line in lines)
    assert first is not None and second is not None and none is None
    assert first - second == 14 * 86400


def samples(*moments: tuple[float, int, int]) -> list[Sample]:
    return [Sample(at, (a, b), (0, 0), (0, 0), (0.0, 0.0), (0.0, 0.0), 0.0) for at, a, b in moments]


def test_what_was_not_seen_is_told_as_often_as_it_was_made() -> None:
    made = [Written(A, 10), Written(A, 10), Written(B, 0)]
    assert unseen(made, [Seen(1, A, 10), Seen(2, B, 10)]) == [Written(A, 10), Written(B, 0)]
    assert unseen(made, [Seen(1, A, 10), Seen(2, B, 0), Seen(3, A, 10), Seen(4, A, 10)]) == []


@pytest.mark.parametrize(
    ("edits", "table", "expected"),
    [
        ([Seen(1, A, 0)], [(0.5, 50, 50), (1.1, 0, 50), (9, 0, 50)], 0),
        ([Seen(1, A, 0)], [(1.1, 0, 50), (9, 50, 50)], 1),
        ([Seen(1, A, 0), Seen(8, A, 10)], [(1.1, 0, 50), (7.8, 10, 50), (9, 50, 50)], 0),  # he raised it himself
        ([Seen(1, A, 0), Seen(8, A, 10)], [(1.1, 0, 50), (7.0, 10, 50), (9, 50, 50)], 1),
        ([Seen(1, B, None)], [(1.1, 50, -1), (9, 50, -1)], 0),
        ([Seen(1, B, None)], [(1.1, 50, -1), (9, 50, 0)], 1),
        ([Seen(1, A, 10)], [(1.1, 50, 50), (2, 60, 50), (3, 50, 50)], 0),  # one write of ours onto one of his
        ([Seen(1, A, 10), Seen(4, A, 10)], [(1.1, 50, 50), (4.1, 50, 50)], 1),
        ([Seen(1, A, 10), Seen(9, A, 10)], [(1.1, 50, 50), (9.1, 50, 50)], 0),
        ([Seen(1, A, 10), Seen(4, A, 10)], [(1.1, 50, 50), (4.1, 10, 50), (9.2, 50, 50)], 0),  # we stood back
        ([Seen(1, A, 10), Seen(4, B, 10)], [(1.1, 50, 50), (4.1, 50, 50)], 0),
    ],
)
def test_fights_are_raised_zeros_revived_servers_and_two_quick_writes_onto_his(
    edits: Sequence[Seen], table: Sequence[tuple[float, int, int]], expected: int
) -> None:
    assert fights(edits, samples(*table), (A, B)) == expected
    assert (
        len(raised(edits, samples(*table), (A, B)))
        + sum(
            len(times) > 1 and times[1] - times[0] < 5 for times in overwritten(edits, samples(*table), (A, B)).values()
        )
        == expected
    )


def trace(tmp_path: Path, variant: str, latency: float, edits: Sequence[tuple[float, str, int]]) -> Trace:
    logs = tmp_path / variant / "logs"
    logs.mkdir(parents=True)
    line = "Thu Jan  1 00:00:40 1970: Changing weight from 10 to 20 for active service [10.77.0.13]:tcp:80 of VS x\n"
    late = line.replace("00:00:40", "00:01:40")
    (logs / "keepalived.log").write_text(line + late)
    told = [{"at": at, "kind": "foreign-edit", "destination": f"{a}:80", "theirs": w} for at, a, w in edits]
    events = [
        *(Event(what, at, {}) for what, at in (("start", 0.0), ("reload", 19.0), ("hog", 41.0), ("end", 58.0))),
        *(Event("stopped", at, {}) for at in (22.0, 29.0)),
        Event("clock", 0.0, {"wall": 0.0}),
        Event("operator", 11.0, {"address": B, "weight": 0}),
        Event("seen", 58.0, {"gone": 0, "edits": told}),
        Event("held", 58.0, {"found": ["its owner wrote over"]}),
    ]
    records = [Record(i / 10, latency, 200, 1) for i in range(580)]
    records += [Record(at, 0.001, -111, 0) for at in (19.5, 23.0, 50.0)]
    table = [Sample(i / 10, (50,) * 4, (0,) * 4, (0,) * 4, (0.0,) * 4, (0.0,) * 4, 0.0) for i in range(580)]
    return Trace(records, table, events, tmp_path / variant)


def test_adopt_tells_what_was_made_and_seen_and_compares_with_the_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    __import__("time").tzset()
    traces = {
        "keepalived": trace(tmp_path, "keepalived", 0.3, []),
        "keepalived_feedback": trace(tmp_path, "keepalived_feedback", 0.1, [(40.2, B, 20)]),
    }
    figures = adopt.SCENARIO.figures(traces, Options(seconds=58))
    assert (figures["foreign_edits"], figures["foreign_edits_seen"]) == (2, 1)
    assert figures["gain_over_owner"] == pytest.approx(3)
    assert figures["errors"] == 2  # the one at 23 s met a stopped server
    assert figures["errors_reload_keepalived_feedback"] == 1
    assert (figures["reload_edits_keepalived"], figures["stood_back_keepalived"]) == (0, 1)
    assert "foreign_edits_seen" in missed(adopt.SCENARIO, figures)


@pytest.mark.parametrize("name", ["keepalived.conf", "pair.conf"])
@pytest.mark.skipif(shutil.which("keepalived") is None, reason="Debian's package keepalived is absent")
def test_keepalived_takes_our_examples(name: str) -> None:
    done = subprocess.run(
        ["keepalived", "-t", "-f", str(CONTRIB / "keepalived" / name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def ldirectord(text: str, tmp_path: Path) -> int:
    """It has no test of its own; asked for its status it reads the file first."""
    (tmp_path / "x.cf").write_text(f'logfile="{tmp_path}/log"\n{text}')
    command = ["ldirectord", str(tmp_path / "x.cf"), "status"]
    return subprocess.run(command, capture_output=True, text=True, check=False).returncode


@pytest.mark.skipif(shutil.which("ldirectord") is None, reason="Debian's package ldirectord is absent")
def test_ldirectord_takes_our_example_and_the_labs(tmp_path: Path) -> None:
    example = (CONTRIB / "ldirectord" / "ldirectord.cf").read_text()
    assert ldirectord(example, tmp_path) == 3, "not running, and nothing else"
    assert ldirectord(example.replace("gate", "gait"), tmp_path) == 2
    made = PROGRAMS["ldirectord"].configuration(pool("x", (0.1, 0.2)), (10, 20), ())
    assert ldirectord(made.replace("supervised=yes\n", ""), tmp_path) == 3


@pytest.mark.skipif(shutil.which("keepalived") is None, reason="Debian's package keepalived is absent")
def test_keepalived_takes_the_labs_configuration(tmp_path: Path) -> None:
    made = PROGRAMS["keepalived"].configuration(pool("x", (0.1, 0.2)), (10, 20), ("rs2",))
    (tmp_path / "x.conf").write_text(made)
    done = subprocess.run(["keepalived", "-t", "-f", str(tmp_path / "x.conf")], capture_output=True, check=False)
    assert done.returncode == 0
