"""Laws: observations of a pool -> shares. One file for each law. A law knows no scheduler, no weight and no clock.

Ours are here, those of the field in field/.

A law is any class that can be made without an argument and has `shares(pool, now)`. Others are found by the entry point
group `feedback.laws`. One that can be adjusted has a struct `Options` (options.py) and takes it as its argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

import msgspec

from feedback.config import ConfigError
from feedback.config.refusal import readable
from feedback.master.pool import Pool, Shares
from feedback.refusals import RefusalError


class Law(Protocol):
    """One instance serves one service, so a law may keep state between calls."""

    def shares(self, pool: Pool, now: float) -> Shares:
        """A share for every row of the pool, each with its reason. They need not sum to 1. What a law remembers
        of a row it keeps in the row's `law`. One that has `observe(row, window)` is handed each window as it comes."""
        ...


class UnknownLawError(RefusalError):
    pass


@cache  # reading the metadata of all packages takes 20 ms, and a reload asks for each service
def _registered() -> dict[str, EntryPoint]:
    return {e.name: e for e in entry_points(group="feedback.laws")}


def names() -> list[str]:
    return sorted(_registered())


def load(name: str, options: Mapping[str, Any] | None = None, where: str = "law_options") -> Law:
    """A fresh law. `options` are as in the configuration at `where`. Raises UnknownLawError or ConfigError."""
    entry = _registered().get(name)
    if entry is None:
        place = where.rpartition(".")[0]
        raise UnknownLawError(f"{place and place + ': '}law {name!r}: expected one of {', '.join(names())}")
    kind = entry.load()
    law: Law = kind(_converted(name, kind, options, where)) if options else kind()
    return law


def _converted(name: str, kind: Any, options: Mapping[str, Any], where: str) -> msgspec.Struct:
    schema: type[msgspec.Struct] | None = getattr(kind, "Options", None)
    if schema is None:
        raise ConfigError(f"{where}: law {name!r} has no options")
    try:
        return msgspec.convert(dict(options), schema)
    except msgspec.ValidationError as error:
        said = str(error)
        joint = "." if " - at `$" in said else ": "
        raise ConfigError(f"{where}{joint}{readable(said, schema)}") from None
