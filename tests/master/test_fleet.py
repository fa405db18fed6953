"""What the fleet takes for a window, how it maps clocks, and when it stops trusting."""

from __future__ import annotations

import pytest

from feedback.master.servers.fleet import Fleet, Refused, Trust
from feedback.master.servers.window import Window
from tests.master.builders import report, rip

RIP = str(rip(1).address)


def fleet() -> Fleet:
    return Fleet(stale_seconds=2, lost_seconds=15)


def test_two_reports_make_a_window_of_differences() -> None:
    f = fleet()
    assert f.receive(report(at=100.0, sequence=1, busy=5.0, opened=10, established=2, cores=2), 1000.0) is None
    w = f.receive(report(at=100.2, sequence=2, busy=5.2, opened=30, established=5, cores=2), 1000.2)
    assert isinstance(w, Window)
    assert (w.start, w.end) == pytest.approx((1000.0, 1000.2))
    assert w.busy == pytest.approx(0.5)
    assert (w.opened, w.completions) == (20, 17)


def test_a_delayed_report_keeps_its_place_in_time() -> None:
    f = fleet()
    f.receive(report(at=100.0, sequence=1), 1000.0)
    w = f.receive(report(at=100.2, sequence=2), 1002.2)
    assert isinstance(w, Window)
    assert w.end == pytest.approx(1000.2)
    assert f.age(RIP, 1002.2) == pytest.approx(2.0)


@pytest.mark.parametrize("sequence, at", [(2, 100.4), (1, 100.4), (3, 100.2), (3, 99.0)])
def test_a_report_that_is_not_newer_is_refused(sequence: int, at: float) -> None:
    f = fleet()
    f.receive(report(at=100.0, sequence=1), 1000.0)
    f.receive(report(at=100.2, sequence=2), 1000.2)
    refusal = f.receive(report(at=at, sequence=sequence), 1000.4)
    assert isinstance(refusal, Refused) and refusal.kind == "replayed"


def test_a_new_boot_starts_anew() -> None:
    f = fleet()
    f.receive(report(at=100.0, sequence=7, busy=50), 1000.0)
    assert f.receive(report(at=3.0, sequence=1, busy=1, boot="other"), 1001.0) is None
    assert isinstance(f.receive(report(at=3.2, sequence=2, busy=1.1, boot="other"), 1001.2), Window)


@pytest.mark.parametrize("change", [{"busy": 1.0}, {"busy": 5.1, "cores": 2.0}])
def test_counters_that_run_backwards_or_change_meaning_make_no_window(change: dict[str, float]) -> None:
    f = fleet()
    f.receive(report(at=100.0, sequence=1, busy=5.0), 1000.0)
    assert f.receive(report(at=100.2, sequence=2, **change), 1000.2) is None  # type: ignore[arg-type]


def test_a_long_gap_makes_no_window_but_is_fresh_news() -> None:
    f = fleet()
    f.receive(report(at=100.0, sequence=1), 1000.0)
    assert f.receive(report(at=160.0, sequence=2), 1060.0) is None
    assert f.trust(RIP, 1060.1) is Trust.FRESH


@pytest.mark.parametrize(
    "age, trust", [(0.1, Trust.FRESH), (1.9, Trust.FRESH), (3.0, Trust.STALE), (14.9, Trust.STALE), (16, Trust.LOST)]
)
def test_trust_falls_with_age(age: float, trust: Trust) -> None:
    f = fleet()
    f.receive(report(at=100.0, sequence=1), 1000.0)
    assert f.trust(RIP, 1000.0 + age) is trust


def test_a_server_never_heard_of_is_never_trusted() -> None:
    assert fleet().trust(RIP, 5.0) is Trust.NEVER
    assert fleet().age(RIP, 5.0) is None
