"""Verdicts: a disturbed run has none, whatever its figures are."""

import math

import pytest

from feedback.lab.bounds import Bound, judge
from feedback.lab.verdict import FULL_SHARE_MOST, WAITED_SHARE_MOST, Verdict, decide, disturbance


@pytest.mark.parametrize(
    ("own_time", "waited_share", "disturbed"),
    [
        (False, 0.0, False),
        (False, 0.10, False),
        (False, WAITED_SHARE_MOST, False),
        (False, WAITED_SHARE_MOST + 0.001, True),
        (False, 0.31, True),
        (True, 0.31, False),
        (True, 0.99, False),
        (False, math.nan, False),  # a host that does not tell
    ],
)
def test_waiting_disturbs_a_guest_that_has_no_time_of_its_own(
    own_time: bool, waited_share: float, disturbed: bool
) -> None:
    assert bool(disturbance(own_time=own_time, waited_share=waited_share)) is disturbed


@pytest.mark.parametrize("own_time", [True, False])
@pytest.mark.parametrize(("full_share", "disturbed"), [(0.02, False), (FULL_SHARE_MOST, False), (0.28, True)])
def test_a_guest_whose_processor_is_full_measures_itself(own_time: bool, full_share: float, disturbed: bool) -> None:
    found = disturbance(own_time=own_time, waited_share=0.0, full_share=full_share)
    assert found.startswith("the guest's own processor was full for 28%" if disturbed else "")
    assert bool(found) is disturbed


def test_the_reason_says_how_much() -> None:
    assert disturbance(own_time=False, waited_share=0.31).startswith(
        "another process held this machine's processors for 31% of the run"
    )


@pytest.mark.parametrize(
    ("gain", "disturbed", "verdict"),
    [
        (22.0, "", Verdict.OK),
        (0.3, "", Verdict.FAILED),
        (22.0, "busy", Verdict.INCONCLUSIVE),
        (0.3, "busy", Verdict.INCONCLUSIVE),
        (math.nan, "", Verdict.FAILED),
    ],
)
def test_a_disturbed_run_neither_holds_nor_falls_short(gain: float, disturbed: str, verdict: Verdict) -> None:
    checks = judge([Bound("gain_over_wlc", least=5), Bound("not_run", least=1)], {"gain_over_wlc": gain})
    assert decide(checks, disturbed) is verdict
