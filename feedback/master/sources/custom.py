"""Any page that shows how full its server is: a gauge and its limit, or two cumulative counters.

The gauge is of the service's own resource (slots of a model, children of php-fpm, sessions), which no neighbour uses.
So it is treated like an application's own report; the director counts the connections.
"""

from __future__ import annotations

from functools import lru_cache

from feedback.config.exporter import Exporter
from feedback.master.sources.exposition import Page, PageError, Selector
from feedback.master.sources.said import Said
from feedback.wire import Application, Cpu

NO_CPU = Cpu(1.0, 0.0, own_seconds=0.0)  # nothing is known of it, and nothing of it is a neighbour's


def read(page: bytes, of: Exporter) -> Said:
    """Raises PageError."""
    if not of.gauge:
        busy, total = _selector(of.busy), _selector(of.total)
        found = Page(page, {busy.name, total.name})
        return Said(NO_CPU, pair=(found.selected(busy), found.selected(total)))
    gauge = _selector(of.gauge)
    if isinstance(of.limit, str):
        most = _selector(of.limit)
        found = Page(page, {gauge.name, most.name})
        limit = found.selected(most)
    else:
        found, limit = Page(page, {gauge.name}), float(of.limit or 0)
    if limit <= 0:
        raise PageError(f"{of.limit} is {limit:g}: not a usable limit")
    return Said(NO_CPU, applications=(full(found.selected(gauge) / limit),))


def full(part: float) -> Application:
    """So much of the server is in use."""
    return Application(utilisation=min(1.0, max(0.0, part)))


@lru_cache(256)
def _selector(text: str) -> Selector:
    return Selector.parse(text)
