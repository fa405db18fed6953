"""Eject: servers that fail fast. They look idle and attract everything; only weight 0 contains them.

Owns the counting of failures, the times of ejection and the trials. Two signs: errors reported by the application, and
a port where nobody listens (resets sent, no connection opened). A server that fails far more than its pool is ejected,
for longer each time. When its time is over it stands trial: by an upper threshold the kernel admits a few connections
and no more. Failures send it out again, good answers let it return through slow start.

How many answers prove something is not a number but a test: that a server of half the limit would fail so often must be
as unlikely as one in a million (the Chernoff bound of the binomial), over the most striking of all periods that end
now: a good past proves nothing. Five failures of five do, or 12 of 20, or 25 % of 120. Answers are kept for as long as
they are few, so that neither a service of one request a second nor a crowded host, whose reports are late and few,
keeps a failing server in.

Resets are the whole host's: it also resets what a scanner asks of it, and what a master that stood still says to its
agent. So a window with more resets than the director has connections there says nothing.

Invariants: at most a third of the pool is out or on trial, at least one server may be; if more fail, the fault lies
elsewhere. A trial takes no more connections than its batch, plus at each look as many as the kernel has forgotten since
the last.

Source of the figures: Envoy's outlier detection (five failures in a row, 30 s, longer each time) and gRFC A50, with
shorter times, since a return is a trial and a slow start.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import exp, log
from statistics import median_low

import msgspec

from feedback.master.backoff import backoff
from feedback.master.pool import Row
from feedback.master.servers.arrivals import COUNTED_SECONDS
from feedback.master.servers.window import Window

MEMORY_ANSWERS = 40.0  # what is usual is counted over so many, or COUNTED_SECONDS, whichever is longer
STRETCH = 64  # windows with answers
FAILING, TIMES_MEDIAN = 0.10, 3.0  # of the answers; three times what is usual, and half of that more
PROOF = log(1e6)  # one in a million
EJECT_SECONDS, EJECT_SECONDS_MAX = 5.0, 60.0  # shorter than Envoy's: a trial costs little
CLEAN_SECONDS = 20.0  # after so long without an ejection the times start anew
RESETS_PER_OPENED = 10  # a dead port resets everything; clients that go away reset a few
TRIAL_CONNECTIONS = 2  # a batch
USED_SECONDS, UNUSED_SECONDS = 2.0, 10.0  # without a verdict: the next batch, after the last was used up or was not
BATCHES = 3  # nobody says anything bad: back


class Trial(msgspec.Struct, frozen=True):
    """What the kernel may let a server have: `upper` connections, active and inactive, and once it has had them, no
    more until fewer than `lower` are counted."""

    upper: int
    lower: int


class Ejected(msgspec.Struct, frozen=True, gc=False):
    """Out for so many seconds more, for the so manieth time."""

    seconds: float
    times: int

    def __str__(self) -> str:
        again = "" if self.times == 1 else f", for the {self.times}th time"
        return f"answers with errors: out for {self.seconds:.0f} s more{again}"


class Failures:
    """Answers and failures of one server, fading; its ejections and its trial. `ejected` while it is out."""

    __slots__ = (
        "answers",
        "batch",
        "batch_at",
        "ejected",
        "failed",
        "last",
        "pending",
        "times",
        "trial",
        "until",
        "used_at",
    )

    def __init__(self) -> None:
        self.answers = self.failed = 0.0
        self.last: deque[tuple[float, float, int]] | None = None  # (answers, failures among them, resets among those)
        self.times, self.until = 0, 0.0
        self.ejected: Ejected | None = None
        self.pending = False  # ejected, and not yet through a trial
        self.trial: Trial | None = None
        self.batch, self.batch_at = 0, 0.0
        self.used_at: float | None = None

    def count(self, window: Window, port: int, udp: bool) -> None:
        """Take a window."""
        answers, failed, resets, seconds = window.completions or 0.0, 0.0, 0, window.end - window.start
        if window.applications or window.resets or answers < 0.0:
            answers, failed, resets = _outcomes(window, port, udp)
        fades, slow, least = answers / MEMORY_ANSWERS, seconds / COUNTED_SECONDS, seconds / EJECT_SECONDS_MAX
        keep = exp(-(least if fades < least else slow if fades > slow else fades))
        self.answers = self.answers * keep + answers
        if not failed and self.last is None:
            return
        self.failed = self.failed * keep + failed
        if self.last is None:  # from here on: good answers before it would only make a stretch less striking
            self.last = deque(maxlen=STRETCH)
        if answers:
            self.last.append((answers, failed, resets))

    def forget(self) -> None:
        self.answers = self.failed = 0.0
        self.last = None

    @property
    def part(self) -> float:
        return self.failed / self.answers if self.answers else 0.0

    def proves(self, limit: float, counted: int) -> bool:
        """Whether a server that fails half as often as the limit would hardly ever fail as often as this one does.
        `counted` connections are there, active and inactive."""
        if not self.failed or limit >= 1:
            return False
        answers = failed = 0.0
        for more, of_them, resets in reversed(self.last or ()):
            if resets > counted:
                continue
            answers, failed = answers + more, failed + of_them
            if failed > limit * answers and _surprise(answers, failed, limit / 2) >= PROOF:
                return True
        return False

    def out(self, now: float) -> bool:
        return self.until > now

    def eject(self, now: float) -> None:
        self.times += 1
        self.until = now + backoff(EJECT_SECONDS, EJECT_SECONDS_MAX, self.times)
        self.pending, self.trial = True, None
        self.forget()

    def tell(self, now: float) -> None:
        self.ejected = Ejected(self.until - now, self.times) if self.out(now) else None

    def forgive(self, now: float) -> None:
        if self.times and not self.pending and now > self.until + CLEAN_SECONDS:
            self.times = 0

    def begin_trial(self, counted: int, now: float) -> None:
        """`counted` connections are there, active and inactive."""
        self.forget()
        self.batch, self.batch_at, self.used_at = 1, now, None
        self.trial = Trial(counted + TRIAL_CONNECTIONS, 1)

    def go_on(self, trial: Trial, counted: int, now: float) -> None:
        """The next batch, if the last has told nothing. Until then the threshold follows what the kernel forgets."""
        if self.used_at is None and counted >= trial.upper:
            self.used_at = now
        used = self.used_at is not None and now - self.used_at >= USED_SECONDS
        if used or now - self.batch_at >= UNUSED_SECONDS:
            self.batch, self.batch_at, self.used_at = self.batch + 1, now, None
            # A raise opens a full one; newer kernels do so only where fewer than `lower` are counted.
            self.trial = Trial(max(counted, trial.upper) + TRIAL_CONNECTIONS, counted + 1)
        else:
            self.trial = Trial(min(trial.upper, counted + TRIAL_CONNECTIONS), trial.lower)

    def acquit(self) -> None:
        self.pending, self.trial = False, None

    def acquitted(self) -> bool:
        good = self.answers - self.failed
        return (good >= TRIAL_CONNECTIONS - 0.5 and good > self.failed) or self.batch > BATCHES

    def convicted(self, counted: int) -> bool:
        answers = failed = 0.0
        for more, of_them, resets in self.last or ():
            if resets <= counted:
                answers, failed = answers + more, failed + of_them
        return failed >= 1.5 and failed >= answers / 2


def _surprise(answers: float, failed: float, usual: float) -> float:
    """-log of a bound of the probability that one who fails `usual` of all would fail so many or more."""
    part = min(1.0, failed / answers)
    passed = (1 - part) * log((1 - part) / (1 - usual)) if part < 1 else 0.0
    return answers * (part * log(part / usual) + passed)


def _outcomes(window: Window, port: int, udp: bool) -> tuple[float, float, int]:
    """(answers, failures among them, resets among those) in a window. Where no application speaks, completed
    connections are answers."""
    answers = failed = 0.0
    if window.applications:
        for application in window.applications:
            if application.port in (0, port) and application.errors is not None:
                answers += max(application.completions or 0, application.errors)
                failed += application.errors
    elif window.completions is not None and window.completions > 0:
        answers = window.completions
    if window.resets and not udp and window.resets > RESETS_PER_OPENED * (window.opened or 0.0):
        return answers + window.resets, failed + window.resets, window.resets
    return answers, failed, 0


class Ejector:
    """Who is out of one service's pool or on trial."""

    def judge(self, rows: Sequence[Row], now: float) -> None:
        """Sets `ejected` and `trial` of each row's failures. Call it at each decision."""
        away = 0
        suspects: list[tuple[Row, Failures]] = []
        for row in rows:
            if not row.suspect or row.failures is None:
                continue
            failures = row.failures
            if failures.times:
                _try(failures, row.active + row.inactive, now)
                row.trial = failures.trial
                away += failures.pending
                failures.tell(now)
            if failures.failed:
                suspects.append((row, failures))
            else:
                row.suspect = failures.times > 0
        if suspects:
            self._eject(rows, suspects, away, now)

    def _eject(self, rows: Sequence[Row], suspects: list[tuple[Row, Failures]], away: int, now: float) -> None:
        """The worst of those that fail far more than is usual, as many as the pool can miss."""
        room = max(1, len(rows) // 3) - away if len(rows) > 1 else 0
        if room <= 0:
            return
        usual = median_low(row.failures.part if row.failures is not None else 0.0 for row in rows)
        limit = max(FAILING, TIMES_MEDIAN * usual + FAILING / 2)
        may_go = [(f, row.active + row.inactive) for row, f in suspects if row.zero is None and not f.pending]
        for failures, counted in sorted(may_go, key=lambda each: -each[0].part):
            if room > 0 and failures.proves(limit, counted):
                failures.eject(now)
                failures.tell(now)
                room -= 1


def _try(failures: Failures, counted: int, now: float) -> None:
    """Go on with a trial; `counted` connections are there, active and inactive."""
    if failures.trial is None:
        if failures.pending and not failures.out(now):
            failures.begin_trial(counted, now)
    elif failures.convicted(counted):
        failures.eject(now)
    elif failures.acquitted():
        failures.acquit()
    else:
        failures.go_on(failures.trial, counted, now)
    failures.forgive(now)
