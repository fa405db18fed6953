"""The lab's one error: its text names the thing, what was wrong and what to do."""

from __future__ import annotations


class LabError(RuntimeError):
    pass
