"""Pictures. For a suite: p99 over the oracle's, with a row for each policy and a column for each case. For a replayed
recording: each destination's part of its service over time, with a panel for each law. Reads results and decides
nothing. matplotlib is an optional dependency (lvs-feedback[lab])."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from pathlib import Path
from typing import Any

from feedback.simulate.policy import ORACLE, Policy
from feedback.simulate.replay import History
from feedback.simulate.report import over_oracle
from feedback.simulate.verdict import Results

WORST = 10.0  # end of the colour scale
NAMED = 12  # destinations: more have no room in a legend


class NoPictureError(Exception):
    """matplotlib is not installed."""


def draw(path: Path, results: Results) -> Path:
    """The suffix of `path` chooses the format. Raises NoPictureError."""
    policies, cases = _policies(results), list(results)
    figure = _figure(2.6 + 0.85 * len(cases), 1.6 + 0.34 * len(policies))
    axis = figure.subplots()
    axis.set_title("p99 over the oracle's on the same scheduler")
    ratios = [[over_oracle(p, results[c]) if p in results[c] else None for c in cases] for p in policies]
    _cells(axis, ratios)
    axis.set_xticks(range(len(cases)), cases, rotation=35, ha="right")
    axis.set_yticks(range(len(policies)), [p.name for p in policies])
    figure.savefig(path)
    return path


def draw_histories(path: Path, histories: Sequence[History]) -> Path:
    """The suffix of `path` chooses the format. Raises NoPictureError."""
    figure = _figure(9.0, 1.2 + 2.0 * len(histories))
    panels = figure.subplots(len(histories), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    start = min((h.moments[0].at for h in histories if h.moments), default=0.0)
    for panel, history in zip(panels, histories, strict=True):
        panel.set_title(history.law, loc="left", fontsize=9)
        panel.set_ylabel("part, %")
        for key in histories[0].weights:
            points = [(m.at - start, 100 * m.parts[key]) for m in history.moments if key in m.parts]
            panel.plot([at for at, _ in points], [part for _, part in points], linewidth=1, label=str(key[1]))
    panels[-1].set_xlabel("seconds")
    if len(histories[0].weights) <= NAMED:
        panels[0].legend(fontsize=7, ncols=4)
    figure.savefig(path)
    return path


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise NoPictureError("no picture: pip install 'lvs-feedback[lab]' brings matplotlib") from None
    return Figure(figsize=(width, height), layout="constrained")


def _policies(results: Results) -> list[Policy]:
    """In order of scheduler, then in the order in which they ran. The oracle is 1 everywhere and left out."""
    seen = {p: None for found in results.values() for p in found if p.law != ORACLE}
    return sorted(seen, key=lambda p: p.scheduler)


def _cells(axis: Any, ratios: Sequence[Sequence[float | None]]) -> None:
    shades = [[float("nan") if r is None else log10(min(WORST, max(1.0, r))) for r in row] for row in ratios]
    axis.imshow(shades, cmap="YlOrRd", vmin=0.0, vmax=log10(WORST), aspect="auto")
    for y, row in enumerate(ratios):
        for x, ratio in enumerate(row):
            if ratio is not None:
                colour = "white" if ratio > 5 else "black"
                axis.text(x, y, _ratio(ratio), ha="center", va="center", fontsize=7, color=colour)


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"
