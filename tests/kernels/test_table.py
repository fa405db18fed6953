"""What came of several kernels, as a table."""

from __future__ import annotations

import pytest

from tests.kernels.steps import SETUPS, STEPS, Outcome, Setup
from tests.kernels.table import table


@pytest.mark.parametrize("setup", SETUPS, ids=str)
def test_a_setup_is_written_as_it_is_read(setup: Setup) -> None:
    assert Setup.parse(str(setup)) == setup


def test_each_kernel_has_a_row_and_each_step_a_cell() -> None:
    facts = {"kernel_package": "7.3.4-1", "accelerator": "tcg", "processors": 2}
    figures = {"survived": 1008.0, "vip_ms": 141.9, "gap_max_ms": None}
    outcomes = {
        Setup("uml"): {"contract": Outcome(True, "125 of 125", 60)},
        Setup("qemu:newest", 2, "first"): {"takeover": Outcome(True, "ok", 60, figures, facts)},
    }
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(outcomes).splitlines()]
    head, _rule, first, second = lines
    assert head[3:] == list(STEPS)
    assert first == ["uml", "1", "uml", "125 of 125", *[""] * (len(STEPS) - 1)]
    assert second[:3] == ["7.3.4-1; first director User Mode Linux", "2", "tcg"]
    assert second[head.index("takeover")] == "ok, 1008 kept, VIP 142 ms"
