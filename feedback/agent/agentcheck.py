r"""The agent's answer to HAProxy's agent-check: `up ready 73%\n`. Pure: samples in, lines out.

The percentage is what this server has left: with a known cgroup of the service, what the neighbours leave it (so the
answer does not depend on the load that it attracts); else the idle part. It falls as memory runs short, and an
application's own utilisation bounds it. It is an average over some seconds, since a single sample makes weights jump.

Invariants: every answer is the complete state, since HAProxy keeps `drain` and `down` until it is told otherwise; and
without `drain` it is at least 1 %: a busy server is not a dead one. Old figures are not reported: no answer changes
nothing.

Source: HAProxy's configuration.txt under agent-check; haproxy#2039 (say everything each time).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from feedback.agent.load import Sample
from feedback.wire import Application

SILENT_SECONDS = 10.0  # what is older than this (and than two samples) is not told
MEMORY_EASY, MEMORY_NONE = (
    0.15,
    0.03,
)  # available of total: above the first it does not count, at the second nothing goes
QUESTION_BYTES_MAX = 64


class AgentCheck:
    """The state that the answers tell: samples of the last `smoothing_seconds`."""

    def __init__(self, smoothing_seconds: float) -> None:
        self._smoothing = smoothing_seconds
        self._samples: deque[Sample] = deque()

    def observe(self, sample: Sample) -> None:
        if self._samples and self._samples[-1].epoch != sample.epoch:
            self._samples.clear()  # counters that begin anew
        self._samples.append(sample)
        while len(self._samples) > 2 and self._samples[1].sampled_at <= sample.sampled_at - self._smoothing:
            self._samples.popleft()

    def answer(self, question: bytes, now: float) -> bytes:
        """For the service whose port is in `question` (HAProxy's agent-send), or for all of them if it is empty or no
        number. Empty: nothing is known that may be told."""
        if len(self._samples) < 2:
            return b""
        first, last = self._samples[0], self._samples[-1]
        if now - last.sampled_at > max(SILENT_SECONDS, 2 * (last.sampled_at - self._samples[-2].sampled_at)):
            return b""
        applications = _asked(last.applications, question)
        free = _cpu(first, last) * _memory(last)
        free = min([free, *(1 - a.utilisation for a in applications if a.utilisation is not None)])
        word = "drain" if _drains(applications, question) else "ready"
        return f"up {word} {max(1, min(100, round(100 * free)))}%\n".encode()


def _cpu(first: Sample, last: Sample) -> float:
    a, b = first.cpu, last.cpu
    allotment = b.cores * (last.sampled_at - first.sampled_at)
    if allotment <= 0:
        return 1.0
    busy = (b.busy_seconds - a.busy_seconds) / allotment
    if a.own_seconds is None or b.own_seconds is None or b.own_seconds < a.own_seconds:  # or its unit was restarted
        return max(0.0, 1 - busy)
    own = (b.own_seconds - a.own_seconds) / allotment
    return max(b.entitled or 0.0, 1 - max(0.0, busy - own))


def _memory(sample: Sample) -> float:
    if not sample.memory.total:
        return 1.0
    available = sample.memory.available / sample.memory.total
    return max(0.0, min(1.0, (available - MEMORY_NONE) / (MEMORY_EASY - MEMORY_NONE)))


def _port(question: bytes) -> int | None:
    text = question.strip()
    return int(text) if text.isdigit() and len(text) <= 5 else None


def _asked(applications: Iterable[Application], question: bytes) -> list[Application]:
    port = _port(question)
    return [a for a in applications if port is None or a.port in (0, port)]


def _drains(applications: list[Application], question: bytes) -> bool:
    """One that speaks for the service; for the whole server, all of them."""
    said = [a.drain for a in applications]
    return bool(said) and (any(said) if _port(question) is not None else all(said))
