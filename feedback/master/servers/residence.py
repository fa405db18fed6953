"""Residence: how long connections stay on a server, by the director's own counts, and what that shows of its load.
Pure.

For servers without any report. By Little's law the mean duration of connections is the open ones over those that come
and go in a second. If they stay longer than they should, the excess is waiting: then the server's completions are its
capacity, and the right weight stands for as many open connections as it would have without that wait. The expected
duration is the best seen there (forgotten slowly), or that of most servers.

If clients keep connections for long, the effect of load is lost in noise. There the response time of the health check
counts, with less weight, since one answer in two seconds says little. A residence that fewer open connections do not
shorten says nothing either: it is the server's own pace, and the expected duration from then on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import exp, log, sqrt
from statistics import median_low

import msgspec

from feedback.master.servers.filter import Filter

CONNECTIONS_LEAST = 20  # a handful tells nothing: the mean of so many is known to a quarter
SECONDS_LEAST, SECONDS_MOST = 1.9, 12.0  # of a sample: one refresh of the kernel's counters, six of them
CV_SQUARED = 1.5  # of residences, which vary somewhat more than exponential ones
TOLD_SECONDS = 10.0  # on the mean: where they last longer, load is lost in it
FORGET_PER_SECOND = 0.002  # of the best, in the logarithm: what clients do changes
LIVELY = 5.0  # times as quickly as a server's pace, for which the filter was made, a load changes
SURE = 0.7  # standard deviations
SHORTER = 0.25  # by so much, in the logarithm, is shorter or fewer: while connections come, all look short
BLEND = 0.5  # of what a sample says a weight should be
RANGE = log(16)  # of a static weight, either way: beyond it are the guards' floor and ceiling
BACK_SECONDS = 120.0  # towards the static weight, where nothing speaks against it
ANSWERS = 0.3  # of how many fewer are open: by this part the residence falls at least, a queue's by all of it
TIMES = 2  # samples in a row that do not answer
ANSWER_VARIANCE = 1.0  # of the logarithm of one answer's time
ANSWER_SURE, ANSWER_LEAST = 2.0, -log(2)  # standard deviations over the best; half of a static weight stays


class Seen(msgspec.Struct, frozen=True, gc=False):
    """What the director sees of one server: how long connections stay, how sure that is, how many times as long as they
    should (where they last: the answers to its check), and what becomes of its static weight. `answer` is how long
    these take, in seconds, where that counts."""

    seconds: float
    deviation: float
    over: float
    factor: float
    answer: float | None = None

    def __str__(self) -> str:
        stay = f"no report, and connections stay {self.seconds:.3g} s by the director's counts"
        part = f"{100 * self.factor:.0f} % of its static weight"
        if self.answer is not None:
            took = f"its check is answered in {1000 * self.answer:.3g} ms, {self.over:.1f} times as long as at best"
            return f"{stay}, which tells nothing of its load; {took}: {part}"
        if self.seconds > TOLD_SECONDS:
            return f"{stay}: that tells nothing of its load: static weight"
        return f"{stay} ±{100 * self.deviation:.0f} %, {self.over:.2f} times as long as they should: {part}"


class Residence:
    """The residence at one destination. `filter` has the logarithm of the mean residence, `best` the least that this
    was, `factor` what becomes of its static weight."""

    __slots__ = (
        "_active",
        "_answer_best",
        "_answered_at",
        "_answers",
        "_connections",
        "_count",
        "_looked_at",
        "_refreshed",
        "_sampled",
        "_seconds",
        "_stayed",
        "_times",
        "_tried",
        "best",
        "factor",
        "filter",
        "open",
        "own",
        "sample",
        "seen",
    )

    def __init__(self) -> None:
        self.filter = Filter()
        self.best: float | None = None
        self.own = False  # its best is its own pace, however far from the others'
        self.factor = self.sample = self.open = 0.0  # logarithms: the last two are the last sample's
        self.seen: Seen | None = None
        self._answers, self._answer_best, self._answered_at = Filter(), 0.0, 0.0
        self._connections = -1  # the kernel's count at the last look
        self._active = self._times = 0
        self._looked_at = self._seconds = self._stayed = self._count = self._sampled = 0.0
        self._refreshed: tuple[float, int] | None = None  # when the count moved last, and what was open then
        self._tried: tuple[float, float] | None = None  # residence and open connections before any were taken

    def answer(self, seconds: float, at: float) -> None:
        """How long the answer to its check took that came at this moment."""
        of, since = self._answers, at - self._answered_at
        if since <= 0 or seconds <= 0:
            return
        self._answered_at = at
        if not of.samples:
            of.start(log(seconds), ANSWER_VARIANCE)
            self._answer_best = of.level
        of.update(log(seconds), ANSWER_VARIANCE, LIVELY * min(since, SECONDS_MOST))
        self._answer_best = min(of.level, self._answer_best + FORGET_PER_SECOND * min(since, SECONDS_MOST))

    def look(self, active: int, connections: int, now: float) -> bool:
        """Take the director's counts. Whether there is a new sample."""
        if self._connections >= 0:
            self._stayed += (active + self._active) / 2 * (now - self._looked_at)
        self._looked_at, self._active = now, active
        before, self._connections = self._connections, connections
        if connections == active == 0:  # nobody has come yet: the first count is of the time from here on
            self._begin()
            self._refreshed = (now, 0)
            return False
        if connections == before:
            return False
        return self._refresh(connections - before if before >= 0 else -1, active, now)

    def _refresh(self, came: int, active: int, now: float) -> bool:
        since, self._refreshed = self._refreshed, (now, active)
        if since is None or came < 0:
            self._begin()
            return False
        self._seconds += now - since[0]
        self._count += came - (active - since[1]) / 2  # half way between those that came and those that ended
        if self._seconds < SECONDS_LEAST or (self._count < CONNECTIONS_LEAST and self._seconds < SECONDS_MOST):
            return False
        count, stayed, seconds = self._count, self._stayed, self._seconds
        self._begin()
        if count < 3 or stayed <= 0:
            return False
        self._take(log(stayed / count), log(stayed / seconds), CV_SQUARED / count, seconds)
        return True

    def _begin(self) -> None:
        self._seconds = self._stayed = self._count = 0.0

    def _take(self, sample: float, open_: float, variance: float, seconds: float) -> None:
        of, self.sample, self.open, self._sampled = self.filter, sample, open_, seconds
        if not of.samples:
            of.start(sample, variance)
        of.update(sample, variance, LIVELY * seconds)
        best = of.level if self.best is None else self.best + FORGET_PER_SECOND * seconds
        self.best = min(best, of.level)

    def measure(self, usual: float) -> float:
        """How long connections should stay, as a logarithm. `usual` is the time on most servers at their best."""
        best = usual if self.best is None else self.best
        return best if self.own else min(usual, best)

    def judge(self, usual: float, others: float, more: float) -> None:
        """After a sample. `others`: by how much longer than they should connections stay on most servers. `more`: how
        many more are open here, for the share that it has, than on most. All are logarithms."""
        measure, deviation = self.measure(usual) + others, sqrt(self.filter.variance)
        over = self.filter.level - measure
        if exp(self.filter.level) > TOLD_SECONDS:
            self._judge_answers()
            return
        if -max(SHORTER, deviation) <= over <= SURE * deviation:
            self.factor *= exp(-self._sampled / BACK_SECONDS)
            self._tried = None
        elif not self._is_its_own(over):
            self.factor = max(-RANGE, min(RANGE, self.factor + BLEND * (more - (self.sample - measure))))
        self.seen = Seen(exp(self.filter.level), deviation, exp(over), exp(self.factor))

    def _judge_answers(self) -> None:
        """Where connections last too long to tell."""
        of, deviation = self._answers, sqrt(self.filter.variance)
        over = max(0.0, of.level - self._answer_best)
        if not of.samples:
            self.factor = 0.0
        elif over <= ANSWER_SURE * sqrt(of.variance):
            self.factor *= exp(-self._sampled / BACK_SECONDS)
        else:
            self.factor = max(ANSWER_LEAST, -over)
        told = exp(of.level) if of.samples and abs(self.factor) > 0.01 else None
        factor = 1.0 if told is None else exp(self.factor)
        self.seen = Seen(exp(self.filter.level), deviation, exp(over), factor, told)

    def _is_its_own(self, over: float) -> bool:
        """Whether fewer open connections do not shorten the residence."""
        if over < 0 or self._tried is None:
            self._tried, self._times = (self.sample, self.open), 0
            return False
        fewer, shorter = self._tried[1] - self.open, self._tried[0] - self.sample
        self._times = self._times + 1 if fewer > SHORTER and shorter < ANSWERS * fewer else 0
        if self._times < TIMES:
            return False
        self.best, self.own, self._tried = self.filter.level, True, None
        return True


def judge(shares: Mapping[Residence, float], fresh: Iterable[Residence]) -> None:
    """Judge the residences of one pool that have a share of it, after some have a new sample."""
    known = [of for of in shares if of.best is not None]
    if not known:
        return
    usual = median_low([of.best for of in known if of.best is not None])
    others = max(0.0, median_low([of.filter.level - of.measure(usual) for of in known]))
    scale = median_low([of.open - log(shares[of]) for of in known])
    for of in fresh:
        if of in shares:
            of.judge(usual, others, of.open - log(shares[of]) - scale)
