"""Watch: results of checks and agent-check agents for the destinations of one service, and of its exporters. Pure.

Owns the meaning of their results: which destination must get nothing, and how far an agent's word can be trusted. A
healthy agent and a healthy service are two things: either can keep a server out, neither can bring it in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from feedback.config.exporter import Exporter
from feedback.config.probe import AgentSource, Check
from feedback.master.claims.advice import Advice
from feedback.master.claims.asking import Answered, Asking, Passage, Series, Subject, Target, Through
from feedback.master.claims.health import Checked, Health, Verdict
from feedback.master.outcome import By, Zero
from feedback.master.servers.fleet import Source, Trust, patience
from feedback.master.sources.reading import Unread
from feedback.model import Destination, DestinationKey, Forward, ServiceKey

NOT_CHECKED = Zero(By.CHECK, "not checked yet")
WEIGHS_NOTHING = "the answer to its check says weight 0"


class Watch:
    def __init__(
        self,
        service: ServiceKey,
        asking: Asking,
        check: Check | None,
        source: AgentSource | None,
        ports: Mapping[DestinationKey, int] | None = None,
        exporter: Exporter | None = None,
    ) -> None:
        """`ports`: where the check asks these destinations, instead of at its own port or theirs."""
        self._service, self._ports = service, ports or {}
        self.through = check is not None and check.through == "service"
        self.weighs = check is not None and check.weighs
        self._check = asking.series(check) if check is not None else None
        self._source = asking.series(source) if source is not None else None
        self.exporter = exporter
        self._read = asking.series(exporter) if exporter is not None else None
        self._checked: dict[DestinationKey, Subject] = {}
        self._pages: dict[DestinationKey, Subject] = {}
        self._advised: dict[DestinationKey, Subject] = {}
        self._ways: dict[DestinationKey, tuple[Destination, Passage | None]] = {}

    def passage(self, to: Destination) -> Passage | None:
        """How a client's packet reaches this destination; None where that is a packet to the RIP."""
        known, passage = self._ways.get(to.key, (None, None))
        if known is not to:  # asked many times a second, and hardly ever another one
            passage = self._passage(to)
            self._ways[to.key] = to, passage
        return passage

    def _passage(self, to: Destination) -> Passage | None:
        vip = self._service.address
        if vip is None or to.forward not in (Forward.ROUTE, Forward.TUNNEL) or vip.version != to.key.address.version:
            return None
        return Passage.of(self._service.family, to)

    def targets(
        self, series: Series, keys: Sequence[DestinationKey], passages: Sequence[Passage | None]
    ) -> Iterator[Target]:
        """Whom this question is put to for these destinations."""
        if series is self._check or series is self._source or series is self._read:
            yield from self._targets(series, keys, passages)

    def _targets(
        self, series: Series, keys: Sequence[DestinationKey], passages: Sequence[Passage | None]
    ) -> Iterator[Target]:
        if isinstance(series.what, Exporter):
            yield from (Target(key.address, series.what.asked_port) for key in keys)
            return
        ways = passages if series is self._check and passages else [None] * len(keys)
        vip, ports = self._service.address, self._ports if series is self._check else {}
        for key, passage in zip(keys, ways, strict=True):
            through = Through(vip, passage) if vip is not None and passage is not None else None
            yield Target(key.address, ports.get(key) or series.what.port or key.port, through)

    def follow(self, keys: Sequence[DestinationKey], passages: Sequence[Passage | None]) -> None:
        """From now on these are its destinations, and they are asked."""
        self._ways = {key: self._ways[key] for key in keys if key in self._ways}
        self._checked = self._subjects(self._check, keys, passages)
        self._advised = self._subjects(self._source, keys, passages)
        self._pages = self._subjects(self._read, keys, passages)

    def _subjects(
        self, series: Series | None, keys: Sequence[DestinationKey], passages: Sequence[Passage | None]
    ) -> dict[DestinationKey, Subject]:
        if series is None:
            return {}
        found = zip(keys, map(series.subject, self._targets(series, keys, passages)), strict=True)
        return {key: subject for key, subject in found if subject is not None}

    def checked(self, key: DestinationKey) -> Checked | None:
        """None where nothing is checked."""
        if self._check is None:
            return None
        subject, health = self._checked.get(key), self._health(key)
        last = health.last if health is not None else None
        up = health.verdict is Verdict.UP if health is not None and last is not None else None
        if subject is not None and subject.unasked is not None:
            return Checked(up, f"not asked: {subject.unasked.reason}", unasked=subject.unasked)
        if last is None:
            return Checked(None, "not checked yet")
        return Checked(up, last.text, last.warning, last.expires_at, seconds=last.seconds)

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
        """The last answer of its agent-check agent, if there was one."""
        subject = self._advised.get(key)
        found = subject.advice if subject is not None else None
        return found if found is not None and found.heard else None

    def unread(self, key: DestinationKey) -> Unread | None:
        """Why its exporter could not be read the last time."""
        subject = self._pages.get(key)
        return subject.unread if subject is not None else None

    def weight(self, key: DestinationKey) -> float | None:
        """The weight that the server last reported in an answer to its check, if it ever did."""
        subject = self._checked.get(key)
        return subject.weighed if subject is not None else None

    def answered(self, key: DestinationKey) -> Answered | None:
        """The last good answer to its check."""
        subject = self._checked.get(key)
        return subject.answered if subject is not None else None

    @property
    def idle(self) -> bool:
        """Whether nobody is asked whose word counts."""
        return self._check is None and self._source is None

    @property
    def asks(self) -> bool:
        """Whether anybody is asked anything."""
        return not self.idle or self._read is not None

    def barred(self, key: DestinationKey, serves: bool) -> Zero | None:
        """Why it must get nothing. Before the first outcome who serves goes on, and who does not waits."""
        health, advice = self._health(key), self.advice(key)
        if self._check is not None and not (health and health.last):
            return None if serves else NOT_CHECKED
        if health is not None and health.last is not None and self.failing(key):
            failed = not health.last.good
            return Zero(
                By.CHECK, f"check fails: {health.last.text}" if failed else "check failed, and has not recovered yet"
            )
        said = advice.bar() if advice is not None else ""
        if not said and self.weight(key) == 0:
            said = WEIGHS_NOTHING
        return Zero(By.ADVICE, said) if said else None

    def source(
        self, key: DestinationKey, now: float, stale: float, lost: float
    ) -> tuple[Source | None, Trust, float | None]:
        """Whose word there is where no report is: how far its last one can be trusted, and its age. A failure to
        connect makes it old, no more."""
        advice, subject = self.advice(key), self._checked.get(key)
        if advice is not None and self._source is not None:
            found, heard_at, interval = Source.AGENT_CHECK, advice.heard_at, self._source.what.interval_seconds
        elif subject is not None and subject.weighed is not None and self._check is not None:
            found, heard_at, interval = Source.HEADER, subject.weighed_at, self._check.what.interval_seconds
        else:
            return None, Trust.NEVER, None
        age, (fresh, still) = max(0.0, now - heard_at), patience(interval, stale, lost)
        return found, Trust.FRESH if age <= fresh else Trust.STALE if age <= still else Trust.LOST, age
