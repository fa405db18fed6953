"""A director on a kernel of its own: what can be asked of it, and what is refused. That it takes over is shown by
`make test-kernels`."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from feedback.lab import runner, scenarios
from feedback.lab.error import LabError
from feedback.lab.kernel.qemu import Qemu
from feedback.lab.kernel.uml import Uml
from feedback.lab.pair import topology
from feedback.lab.pair.machine import Foreign, foreign
from feedback.lab.pair.topology import CLIENT, DIRECTORS
from feedback.lab.process import Processes


@pytest.fixture
def line(tmp_path: Path) -> tuple[Foreign, int, int]:
    """A machine without a kernel, and the other ends of its line."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    machine = Foreign.__new__(Foreign)
    machine.name, machine.processes, machine.lines = "d2-machine", Processes(tmp_path), b""
    machine.ends = [ours_out, ours_in]
    return machine, theirs_in, theirs_out


def answer(line: tuple[Foreign, int, int], *parts: bytes) -> list[dict[str, object]]:
    """Says the parts, one after the other, once asked; the list gets what was asked."""
    _machine, read, write = line
    heard: list[dict[str, object]] = []

    def work() -> None:
        heard.append(json.loads(os.read(read, 65536)))
        for part in parts:
            os.write(write, part)

    threading.Thread(target=work, daemon=True).start()
    return heard


def test_an_answer_may_come_in_pieces(line: tuple[Foreign, int, int]) -> None:
    heard = answer(line, b'{"result":{"tcp:10.', b'77.0.100:80":3}}\n')
    assert line[0].table() == {"tcp:10.77.0.100:80": 3}
    assert heard == [{"do": "table"}]


def test_a_refusal_is_told_with_its_reason(line: tuple[Foreign, int, int]) -> None:
    answer(line, b'{"error":"the kernel refused: EEXIST"}\n')
    with pytest.raises(LabError, match="d2-machine: the kernel refused: EEXIST"):
        line[0].make_services()


def test_silence_ends(line: tuple[Foreign, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "ANSWER_SECONDS", 0.2)
    with pytest.raises(LabError, match="said nothing"):
        line[0].table()


def test_a_machine_that_is_dead_says_nothing_and_is_not_asked(line: tuple[Foreign, int, int]) -> None:
    assert line[0].ask(Path("/run/x.sock"), {"command": "events"}) is None
    assert line[0].clock_ahead() == 0.0


@pytest.mark.parametrize(
    ("scenario", "kernel", "said"),
    [
        ("hog", lambda: Qemu("6.1"), "no director that could have another kernel"),
        ("takeover", Uml, "room for no other"),
    ],
)
def test_where_no_other_kernel_can_be_it_is_refused(scenario: str, kernel: Callable[[], Qemu | Uml], said: str) -> None:
    with pytest.raises(LabError, match=said):
        runner._mixed(scenarios.named(scenario), kernel())


def test_who_sends_to_a_raw_socket_cuts_his_segments_himself() -> None:
    assert topology.short_segments(CLIENT) == ["link set dev eth0 gso_max_segs 1"]
    assert [line.split()[3] for line in topology.short_segments(DIRECTORS[0])] == list(foreign.interfaces())
