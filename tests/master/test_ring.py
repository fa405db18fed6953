"""Spans: both counters over the same time, or none."""

from __future__ import annotations

import pytest

from feedback.master.servers.spans import Span, Spans


def looked(ring: Spans, *looks: tuple[float, int, int]) -> Spans:
    for now, connections, active in looks:
        ring.look(connections, active, now)
    return ring


def test_a_span_waits_until_reports_cover_both_of_its_ends() -> None:
    ring = looked(Spans(), (0.0, 100, 0), (2.0, 150, 5), (4.0, 250, 8))
    for end in (1.9, 2.9, 3.9):
        ring.use(end, 0.5)
        assert list(ring.spans()) == []
    ring.use(4.9, 0.5)
    assert list(ring.spans()) == [Span(2.0, 4.0, pytest.approx(1.0), 100, 97)]  # type: ignore[arg-type]
    assert list(ring.spans()) == []


def test_a_refresh_before_the_first_report_begins_no_span() -> None:
    ring = looked(Spans(), (0.0, 0, 0), (1.0, 10, 0))
    ring.use(2.0, 0.5)
    looked(ring, (3.0, 20, 0), (5.0, 40, 0))
    for end in (4.0, 6.0):
        ring.use(end, 0.5)
    assert [(span.start, span.end) for span in ring.spans()] == [(3.0, 5.0)]


def test_cpu_is_interpolated_to_the_moments_of_refresh() -> None:
    ring = looked(Spans(), (0.0, 0, 0), (1.5, 10, 0), (2.5, 30, 0))
    for end, used in ((1.0, 0.0), (2.0, 1.0), (3.0, 0.2)):
        ring.use(end, used)
    (span,) = ring.spans()
    assert span.used_seconds == pytest.approx(0.5 + 0.1)


def test_between_refreshes_nothing_is_known_of_what_came() -> None:
    ring = looked(Spans(), (0.0, 10, 0), (0.2, 10, 1), (0.4, 10, 2))
    for k in range(10):
        ring.use(k / 5, 0.1)
    assert list(ring.spans()) == []


def test_a_destination_made_anew_counts_from_nothing() -> None:
    ring = looked(Spans(), (0.0, 10, 0), (2.0, 60, 0), (4.0, 3, 0), (6.0, 53, 0))
    for k in range(8):
        ring.use(float(k), 0.3)
    (span,) = ring.spans()
    assert (span.start, span.opened) == (4.0, 50)
