"""Exposition: the wanted samples of a page in Prometheus' text format. Pure.

A page has hundreds of lines of which a few dozen are wanted, and a server says the same series each second. So lines
are chosen by name first, and prometheus-client parses each series once, for all servers that have it; what is left is a
number a line. Everything in a page is a stranger's: what does not parse is left out, and what is taken is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from math import isfinite

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from feedback.refusals import RefusalError

LINE_BYTES_MAX = 512
SAMPLES_MAX = 20_000  # wanted ones of a page: eight modes of 2,000 processors
LOOKED_LINES = 64
NEW_SERIES_MAX = 2048  # of a page: parsing one costs 30 us. A larger server's are all known after some pages
SERIES_KNOWN = 8192  # of all servers: a few megabytes at most, whatever they say


class PageError(RefusalError):
    """A page that says nothing of what is wanted: what was missing."""


class Sample(msgspec.Struct, frozen=True, gc=False):
    labels: Mapping[str, str]
    value: float


class Selector(msgspec.Struct, frozen=True, gc=False):
    """A series as a person names it: all samples of this name that have these labels."""

    name: str
    labels: Mapping[str, str]

    @staticmethod
    def parse(text: str) -> Selector:
        """Raises PageError."""
        found = _series(text.encode())
        if found is None:
            raise PageError(f'{text!r} is not a series: expected NAME or NAME{{label="value"}}')
        return Selector(*found)


class Page:
    """The finite samples of these names, by name."""

    def __init__(self, page: bytes, names: Collection[str]) -> None:
        """Raises PageError for a page that says too much: a part of it would be taken for a whole."""
        self._samples: dict[str, list[Sample]] = {name: [] for name in names}
        parsed = _series.cache_info().misses
        for number, line in enumerate(_lines(frozenset(names)).findall(b"\n" + page)):
            if not number % LOOKED_LINES and _series.cache_info().misses - parsed > NEW_SERIES_MAX:
                raise PageError("more new series than are taken at once: the next page tells more")
            if number >= SAMPLES_MAX:
                raise PageError("more series than a server has: ask for less of it by its path")
            if len(line) > LINE_BYTES_MAX:
                continue
            read = _read(line)
            if read is not None and read[0] in self._samples:  # the parser takes `a b{c="d"} 1`
                self._samples[read[0]].append(read[1])

    def all(self, name: str) -> list[Sample]:
        return self._samples[name]

    def one(self, *names: str) -> float | None:
        """The value of the first of these names that the page has; several samples of it are added up."""
        for name in names:
            if found := self._samples[name]:
                return sum(sample.value for sample in found)
        return None

    def selected(self, wanted: Selector) -> float:
        """The sum of what fits. Raises PageError where nothing does."""
        found = [s.value for s in self._samples[wanted.name] if wanted.labels.items() <= s.labels.items()]
        if not found:
            labels = ",".join(f'{name}="{value}"' for name, value in wanted.labels.items())
            raise PageError(f"no {wanted.name}{{{labels}}} in it" if labels else f"no {wanted.name} in it")
        return sum(found)


@lru_cache(256)
def _lines(names: frozenset[str]) -> re.Pattern[bytes]:
    """Finds the lines of these names, each after a newline. Hundreds of others are passed over in C, the faster the
    more the names have in common at their beginning."""
    first, last = min(names), max(names)
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    common = first[:same]
    rests = "|".join(re.escape(name.removeprefix(common)) for name in sorted(names))
    return re.compile(rf"\n({re.escape(common)}(?:{rests})[ {{][^\n]*)".encode())


def _read(line: bytes) -> tuple[str, Sample] | None:
    """None of a line that is no sample, or whose value is no number."""
    end = line.rfind(b"}") + 1
    series, _, rest = (line[:end], b"", line[end:]) if end else line.partition(b" ")
    fields = rest.split()
    found = _series(series)
    if found is None or not 1 <= len(fields) <= 2:  # a value, and perhaps a time
        return None
    try:
        value = float(fields[0])
    except ValueError:
        return None
    return (found[0], Sample(found[1], value)) if isfinite(value) else None


@lru_cache(SERIES_KNOWN)
def _series(text: bytes) -> tuple[str, Mapping[str, str]] | None:
    """Name and labels, by prometheus-client; None where that finds it wrong."""
    if b" # " in text:  # an exemplar: the number at the end of the line would be its own
        return None
    try:
        families = list(text_string_to_metric_families(text.decode() + " 0\n"))
        ((sample,),) = [family.samples for family in families]
    except Exception:  # it promises no kind of error for a stranger's text
        return None
    return sample.name, dict(sample.labels)
