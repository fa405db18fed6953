"""What came of it, as a table in Markdown. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.kernels.steps import STEPS, Outcome, Setup

# Of each scenario, what says most: the figure, how to write it.
FIGURES = {
    "hog": (("gain_over_wlc", "gain {:.1f}"), ("reaction_ms", "{:.0f} ms")),
    "join": (("peak_flow_over_fair", "peak {:.2f}"),),
    "spillover": (("spill_share_after", "{:.0%} spilt"), ("return_ms", "back {:.0f} ms")),
    "takeover": (("survived", "{:.0f} kept"), ("vip_ms", "VIP {:.0f} ms"), ("gap_max_ms", "gap {:.0f} ms")),
    "handover": (("survived", "{:.0f} kept"), ("gap_max_ms", "gap {:.0f} ms")),
}


def table(outcomes: Mapping[Setup, Mapping[str, Outcome]]) -> str:
    head = ["kernel", "processors", "runs by", *STEPS]
    lines = [head, ["---"] * len(head)]
    lines += [_row(setup, steps) for setup, steps in outcomes.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _row(setup: Setup, steps: Mapping[str, Outcome]) -> list[str]:
    facts: dict[str, Any] = {}
    for outcome in steps.values():
        facts |= outcome.facts
    release = facts.get("kernel_package") or facts.get("kernel_release") or setup.kernel
    name = f"{release}; {setup.foreign} director User Mode Linux" if setup.foreign else str(release)
    by = facts.get("accelerator") or setup.kernel.partition(":")[0]
    return [name, str(facts.get("processors", 1)), str(by), *(_cell(step, steps.get(step)) for step in STEPS)]


def _cell(step: str, outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    told = [
        text.format(value) for name, text in FIGURES.get(step, ()) if (value := outcome.figures.get(name)) is not None
    ]
    return ", ".join([outcome.said, *told])
