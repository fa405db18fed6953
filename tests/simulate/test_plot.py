"""A recording as a picture: what the numbers become, and that whatever is in it stays a picture."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from feedback.cli.main import main
from feedback.master.shell.recording import Entry, line
from feedback.model import (
    Counters,
    Destination,
    DestinationEntry,
    DestinationKey,
    Service,
    ServiceEntry,
    ServiceKey,
    Snapshot,
)
from feedback.simulate.plot import NAMED_MAX, WIDTH_STEPS, Plot
from feedback.wire import Cpu, Memory, Report

WEB = ServiceKey.parse("tcp:10.0.0.100:80")


def look(at: float, *servers: tuple[int, int, int]) -> Entry:
    """(weight, active, connections) of 10.0.0.11 and so on."""
    entries = tuple(
        DestinationEntry(
            Destination(DestinationKey.parse(f"10.0.0.{11 + i}:80"), weight), active, 0, 0, Counters(connections=count)
        )
        for i, (weight, active, count) in enumerate(servers)
    )
    return Entry(at, Snapshot((ServiceEntry(Service(WEB), entries),)))


def report(at: float, busy: float, boot: str = "1") -> Entry:
    cpu, memory = Cpu(cores=2, busy_seconds=busy), Memory(total=1, available=1)
    return Entry(at, Report(1, "rs1", boot, 0, at, 0.2, ("10.0.0.11",), cpu, memory))


def values(plot: Plot, figure: str, address: str = "10.0.0.11:80") -> list[float]:
    return [v for v in plot._means[figure][str(WEB), address].values() if v == v]


def test_each_figure_is_what_kernel_and_agent_said() -> None:
    told = [
        report(0.0, 0.0),
        look(0.0, (300, 4, 0), (100, 2, 0)),
        report(4.0, 4.0),
        look(4.0, (100, 6, 80), (100, 0, 9)),
    ]
    plot = Plot(lambda: told, 60)
    assert values(plot, "share") == [0.75, 0.5]
    assert values(plot, "open") == [4, 6]
    assert values(plot, "load") == [0.5]  # 4 s of CPU in 4 s on two cores
    assert values(plot, "new a second") == [20]


def test_only_the_end_is_drawn_and_counters_that_begin_anew_are_no_flow() -> None:
    told = [look(float(at), (100, at, 1000 - at)) for at in range(100)]
    plot = Plot(lambda: told, 10)
    assert values(plot, "open") == list(range(89, 100))
    assert values(plot, "new a second") == []
    restarted = [report(0.0, 50.0), report(1.0, 0.5, boot="2"), look(2.0, (1, 1, 1)), look(3.0, (1, 1, 1))]
    assert values(Plot(lambda: restarted, 60), "load") == []


def test_a_long_recording_has_as_many_points_as_a_short_one() -> None:
    plot = Plot(lambda: (look(at / 10, (100, at % 7, at)) for at in range(20_000)), 1e6)
    assert len(plot._means["open"][str(WEB), "10.0.0.11:80"].values()) == WIDTH_STEPS
    assert len(plot.svg()) < 60_000


def test_the_picture_names_what_it_shows() -> None:
    many = [(100, 1, 1)] * (NAMED_MAX + 6)
    root = ElementTree.fromstring(Plot(lambda: [look(0.0, *many), look(9.0, *many)], 60).svg())
    words = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"tcp:10.0.0.100:80", "10.0.0.11:80", "and 6 more", "share", "load", "open", "new a second"} <= set(words)


def run(recording: Path, output: Path, *more: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["plot", str(recording), "-o", str(output), *more])
    return done.exit_code, done.output


def test_the_command_draws_a_recording(tmp_path: Path) -> None:
    told = [report(0.0, 0.0), look(0.0, (300, 4, 0)), report(4.0, 4.0), look(4.0, (100, 6, 80))]
    (tmp_path / "day.jsonl").write_bytes(b"".join(line(e.at, e.what) for e in told))
    assert run(tmp_path / "day.jsonl", tmp_path / "day.svg", "--for", "10m") == (0, f"{tmp_path}/day.svg: drawn\n")
    ElementTree.fromstring((tmp_path / "day.svg").read_text())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty"),
        (line(1.0, report(1.0, 1.0).what), "no look at the kernel"),
        (b'{"at": 1}\n', "line 1"),
        (b"\x1b[31m\n", "line 1"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "day.jsonl").write_bytes(data)
    status, said = run(tmp_path / "day.jsonl", tmp_path / "day.svg")
    assert status == 1 and words in said and said.count("\n") == 1 and "\x1b" not in said
    assert not (tmp_path / "day.svg").exists()
    assert run(tmp_path / "none.jsonl", tmp_path / "day.svg")[0] == 1
