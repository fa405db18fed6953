"""Neighbour: the part of a server that others use, inferred where no cgroup is known. Pure.

The cost of a connection is known from before. So sudden CPU use beyond that is not ours: a backup job, a scan, a burst
next door. Treated as a slower server it would be learned too late and too weakly, since only the *remaining* part
counts, and forgotten too late when it ends. A CUSUM separates neighbours from noise: a large one at the first window, a
small one after some. Without a neighbour this has no effect.

A lasting difference is treated as the server's own speed, since nothing here can tell them apart: the caller fades it
into the level (`FADE_SECONDS`), which equalises the use of the hosts and is the safe reading.
"""

from __future__ import annotations

from math import exp, sqrt

from feedback.master.servers.arrivals import COUNTED_SECONDS
from feedback.master.servers.filter import VARIANCE_MIN

FADE_SECONDS = 45.0  # what lasts for minutes is the server's own speed
PROVEN_SECONDS = 600.0  # longer than most backups and scans next door
SLACK, LIMIT = 0.75, 3.0  # CUSUM, in standard deviations: one false alarm of a server in a few minutes
NOBODY = 0.05  # of the server: so little is nobody's work
DRIFT_PER_SECOND = 0.05  # variance: neighbours change their minds
JUMP = 2.5  # standard deviations, believed at once
MOST = 0.98  # of the server: the rest keeps quotients finite


class Neighbour:
    """`part` is what it uses of the server now, 0..1; 0 while there is none. `denied` is what of that the service
    cannot have. `proves`: what the service has had beside it is taken for what it can have. A neighbour that takes all
    idle CPU leaves just what is asked for, so that without this a share that follows what is left falls until the
    floor."""

    __slots__ = ("_had", "_proven", "_sum", "_variance", "denied", "part", "proves")

    def __init__(self) -> None:
        self.part = self.denied = self._variance = self._sum = 0.0
        self.proves = False
        self._had = self._proven = 0.0  # of the server, by the service: lately, and at most beside this neighbour

    def observe(self, used: float, own: float, variance: float, seconds: float) -> float:
        """`used` of the server in a window of so many seconds (0..1), of which `own` is what the service's work should
        have cost, with the relative `variance` of that. Returns `part`."""
        beyond, noise = used - own, own * own * variance + VARIANCE_MIN
        if self.proves:
            self._had += (1 - exp(-seconds / COUNTED_SECONDS)) * (min(own, used) - self._had)
            self._proven = max(self._had, self._proven * exp(-seconds / PROVEN_SECONDS)) if self.part else self._had
        if self.part:
            self._follow(beyond, noise, seconds)
        else:
            more = self._sum + beyond / sqrt(noise) - SLACK
            self._sum = more = more if more > 0.0 else 0.0
            if more <= LIMIT or beyond <= NOBODY:
                return 0.0
            self.part, self._variance, self._sum = min(MOST, beyond), noise, 0.0
        self.denied = min(self.part, max(0.0, 1 - self._proven)) if self.proves else self.part
        return self.part

    def _follow(self, beyond: float, noise: float, seconds: float) -> None:
        self._variance += DRIFT_PER_SECOND * seconds
        off = beyond - self.part
        if off * off > JUMP * JUMP * (self._variance + noise):
            self._variance += off * off
        gain = self._variance / (self._variance + noise)
        self._variance *= 1 - gain
        part = self.part + gain * off
        self.part = min(MOST, part) if part >= NOBODY else 0.0
