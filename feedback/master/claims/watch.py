"""Watch: what checks and agent-check agents say of the destinations of one service. Pure.

Owns what their word means: which destination must get nothing, and how far an agent's word can be trusted. A healthy
agent and a healthy service are two things: either can keep a server out, neither can bring it in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from feedback.config.probe import AgentSource, Check
from feedback.master.claims.advice import Advice
from feedback.master.claims.asking import Asking, Series, Subject, Target
from feedback.master.claims.health import Checked, Health, Verdict
from feedback.master.outcome import By, Zero
from feedback.master.servers.fleet import Trust
from feedback.model import DestinationKey

NOT_CHECKED = Zero(By.CHECK, "not checked yet")


class Watch:
    def __init__(self, asking: Asking, check: Check | None, source: AgentSource | None) -> None:
        self._check = asking.series(check) if check is not None else None
        self._source = asking.series(source) if source is not None else None
        self._checked: dict[DestinationKey, Subject] = {}
        self._advised: dict[DestinationKey, Subject] = {}

    def targets(self, series: Series, keys: Iterable[DestinationKey]) -> Iterator[Target]:
        """Whom this question is put to for these destinations."""
        if series is self._check or series is self._source:
            yield from (_target(series, key) for key in keys)

    def follow(self, keys: Iterable[DestinationKey]) -> None:
        """From now on these are its destinations, and they are asked."""
        self._checked, self._advised = _subjects(self._check, keys), _subjects(self._source, keys)

    def checked(self, key: DestinationKey) -> Checked | None:
        """None where nothing is checked."""
        if self._check is None:
            return None
        health = self._health(key)
        if health is None or health.last is None:
            return Checked(None, "not checked yet")
        last = health.last
        return Checked(health.verdict is Verdict.UP, last.text, last.warning, last.expires_at)

    def _health(self, key: DestinationKey) -> Health | None:
        subject = self._checked.get(key)
        return subject.health if subject is not None else None

    def failing(self, key: DestinationKey) -> bool | None:
        """Whether its check says that it is down; None before the first outcome."""
        health = self._health(key)
        return None if health is None or health.last is None else health.verdict is Verdict.DOWN

    def wavers(self, key: DestinationKey) -> bool:
        """Whether the last outcome of its check speaks against the verdict."""
        health = self._health(key)
        return health is not None and health.wavers

    def advice(self, key: DestinationKey) -> Advice | None:
        """What its agent said, if it ever did."""
        subject = self._advised.get(key)
        found = subject.advice if subject is not None else None
        return found if found is not None and found.heard else None

    @property
    def idle(self) -> bool:
        """Whether nothing is asked at all."""
        return self._check is None and self._source is None

    def barred(self, key: DestinationKey, serves: bool) -> Zero | None:
        """Why it must get nothing. Before the first outcome who serves goes on, and who does not waits."""
        health, advice = self._health(key), self.advice(key)
        if self._check is not None and not (health and health.last):
            return None if serves else NOT_CHECKED
        if health is not None and health.last is not None and self.failing(key):
            failed = not health.last.good
            return Zero(By.CHECK, f"check fails: {health.last.text}" if failed else "check failed, and is not back yet")
        said = advice.bar() if advice is not None else ""
        return Zero(By.ADVICE, said) if said else None

    def trust(self, key: DestinationKey, now: float, stale: float, lost: float) -> tuple[Trust, float | None]:
        """How far the agent's last word can be trusted, and its age: a failure to connect makes it old, no more."""
        advice = self.advice(key)
        if advice is None or self._source is None:
            return Trust.NEVER, None
        age = max(0.0, now - advice.heard_at)
        patience = max(stale, 3 * self._source.what.interval_seconds)
        if age <= patience:
            return Trust.FRESH, age
        return (Trust.STALE if age <= max(lost, patience) else Trust.LOST), age


def _target(series: Series, key: DestinationKey) -> Target:
    return Target(key.address, series.what.port or key.port)


def _subjects(series: Series | None, keys: Iterable[DestinationKey]) -> dict[DestinationKey, Subject]:
    if series is None:
        return {}
    found = {key: series.subject(_target(series, key)) for key in keys}
    return {key: subject for key, subject in found.items() if subject is not None}
