"""Account: what one decision says of a service and of each of its destinations, made when somebody asks."""

from __future__ import annotations

from collections import Counter

from feedback.master.outcome import Chain, Status
from feedback.master.pool import Pool, Row
from feedback.master.servers.fleet import Trust
from feedback.model import Address, Service


class ServiceStatus:
    """One service in one decision. `held` says why everything stays as it is, '' if it does not; `holder` who has the
    first place, where its law keeps it.

    What is said of each destination is made when somebody asks, in the thread of the decisions, or before the next look
    if somebody still has this then: so it never changes, and costs nothing where nobody reads it. Who hands this to
    another thread calls `keep` before."""

    __slots__ = (
        "__weakref__",
        "_made",
        "_moved",
        "_news",
        "_rows",
        "flow",
        "held",
        "holder",
        "law",
        "owned",
        "service",
    )

    def __init__(self, service: Service, law: str, pool: Pool, held: str, moved: list[Row], *, owned: bool) -> None:
        self.service, self.law, self.flow, self.held = service, law, pool.flow, held
        self.owned, self.holder = owned, pool.holder
        self._rows, self._moved = pool.rows, moved
        self._made: tuple[Status, ...] | None = None
        self._news: tuple[Status, ...] | None = None

    @property
    def destinations(self) -> tuple[Status, ...]:
        """All of them."""
        if self._made is None:
            self._made = self._statuses(self._rows)
        return self._made

    @property
    def news(self) -> tuple[Status, ...]:
        """The destinations whose weight changes, or whose decision differs from the one before."""
        if self._news is None:
            self._news = self._statuses(self._moved)
        return self._news

    @property
    def trusts(self) -> Counter[Trust]:
        """How many destinations are trusted how far."""
        return Counter(of.trust for of in self._made or self._rows)

    @property
    def warnings(self) -> set[tuple[Address, str]]:
        """The warnings of checks, each with its server."""
        checked = [(of.key.address, of.checked) for of in self._made or self._rows if of.checked is not None]
        return {(address, check.warning) for address, check in checked if check.warning}

    def figures(self) -> list[tuple[str, float, float | None, float, float | None, float | None]]:
        """For those who follow them, of each destination: its name, share, utilisation, open connections, new ones a
        second, and how long its last check took. Of this very decision: before the next look."""
        return [
            (
                row.name,
                row.share if row.stands is None else row.stands,
                row.estimate.utilisation if row.estimate is not None else None,
                float(row.active),
                row.estimate.rate if row.estimate is not None else None,
                row.checked.seconds if row.checked is not None else None,
            )
            for row in self._rows
        ]

    def keep(self) -> None:
        """Make all of it now: the rows are about to change."""
        self._made, self._news = self.destinations, self.news

    def __len__(self) -> int:
        """How many destinations there are."""
        return len(self._rows)

    def _statuses(self, rows: list[Row]) -> tuple[Status, ...]:
        return tuple(_status(row, self.service) for row in rows)


def _status(row: Row, service: Service) -> Status:
    chain = Chain(row.why, row.of, row.said, service.scheduler, row.aimed, row.note, row.share, row.told)
    return Status(
        service.key,
        row.key,
        row.aim,
        row.share if row.stands is None else row.stands,
        row.upper,
        row.lower,
        chain,
        row.base,
        row.kernel,
        row.trust,
        row.age_seconds,
        row.estimate,
        row.zero,
        row.out,
        row.checked,
        row.order,
        row.gone,
        row.source,
        row.unread,
    )
