"""Follows the master's input, by the feed of `feedback record`. Opened before a fault, it keeps working while no new
connection to the master can be made. It is a thread, so that the scenario can go on."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from pathlib import Path

from feedback.ops import control
from feedback.ops.control import ControlError

LOOKS = "looks"  # beside the agents' names


class Listener:
    """`heard` counts the reports of each agent, and the master's looks at the kernel, one for each turn."""

    def __init__(self, path: Path) -> None:
        self.heard: Counter[str] = Counter()
        self._path = path
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with contextlib.suppress(ControlError):  # the master has gone: nothing more will come
            for line in control.follow(self._path, {"command": "record"}):
                entry = json.loads(line)
                self.heard[entry["report"]["agent"] if "report" in entry else LOOKS] += 1
