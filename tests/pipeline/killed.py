"""`python -m tests.pipeline.killed [STEP]`: a master that is killed at each instruction of a state write, and in the
middle of its bytes; what the next one then reads. One JSON object. With STEP, at each STEP-th.

Kills are real: a process of its own ends by `_exit`, or by the kernel (SIGXFSZ) once the file has so many bytes. What
was acknowledged before must be there after, and what was acknowledged by the one that was killed.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from feedback.config import MasterConfig, parse
from feedback.master import Controller
from tests.pipeline.face import room
from tests.pipeline.stage import rip, service, virtual

KILLED, DONE = 9, 0
BYTES_EACH = 7  # a kill in every seventh byte, times STEP
CONFIG = service(4)


def order(i: int) -> Any:
    words = room("orders")
    return words.Order(kind=words.Kind.DRAIN, service=virtual(), destination=str(rip(i)), who="operator", at=float(i))


def controller(path: Path) -> Controller:
    """As a master begins. Raises StateError where the file cannot be read."""
    made = Controller(parse(CONFIG, MasterConfig))
    found = room("statefile").StateFile(path).read()
    if found is not None:
        made.restore(found)
    return made


def write(path: Path, orders: list[Any]) -> bool:
    made, file = controller(path), room("statefile").StateFile(path)
    file.read()
    for given in orders:
        made.orders.give(given)
    return bool(file.insist(made.state(), 1000.0))


class Trap:
    """Ends the process at the n-th instruction that the state's writing executes."""

    def __init__(self, number: int) -> None:
        self._left = number
        self._files = {room("statefile").__file__, room("state").__file__}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self._left -= 1
            if self._left <= 0:
                os._exit(KILLED)
        return self


def at_instruction(number: int) -> Callable[[], None]:
    return lambda: sys.settrace(Trap(number))


def at_byte(number: int) -> Callable[[], None]:
    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return limited


def killed(path: Path, prepare: Callable[[], None], orders: list[Any]) -> bool:
    """Whether it came to its end, and so has acknowledged the orders."""
    pid = os.fork()
    if not pid:
        prepare()
        os._exit(DONE if write(path, orders) else KILLED)
    _, status = os.waitpid(pid, 0)
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == DONE


def lost(path: Path, acknowledged: list[Any]) -> list[str]:
    """What the next master does not know. It starts in any case."""
    have = controller(path).orders.all()
    return [str(o) for o in acknowledged if o not in have]


def main(directory: Path, step: int) -> dict[str, Any]:
    path, found = directory / "state.json", {"instructions": 0, "bytes": 0, "lost": []}
    first, second = [order(0)], [order(1), order(2)]
    assert write(path, first)
    before = path.read_bytes()
    for kind, kill, each in (("instructions", at_instruction, step), ("bytes", at_byte, BYTES_EACH * step)):
        number, ended = 1, False
        while not ended:
            for old in directory.iterdir():
                old.unlink()
            path.write_bytes(before)
            ended = killed(path, kill(number), second)
            found["lost"] += [f"{kind} {number}: {text}" for text in lost(path, first + (second if ended else []))]
            found[kind] += 1
            number += each
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        sys.stdout.write(json.dumps(main(Path(name), int(sys.argv[1]) if sys.argv[1:] else 1)))
