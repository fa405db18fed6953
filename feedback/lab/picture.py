"""A picture of a run: weights, utilisation and latency over time, the policies side by side. SVG.

Reads traces; decides nothing. matplotlib is an optional dependency (lvs-feedback[lab]).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from feedback.lab.error import LabError
from feedback.lab.figures import percentile, utilisation
from feedback.lab.trace import Trace

BIN_SECONDS = 1.0
SHORT_BIN_SECONDS = 0.1  # a takeover is over in a fifth of a second
SMOOTH_SAMPLES = 10
COLOURS = ("#4477aa", "#66ccee", "#228833", "#ee6677", "#aa3377", "#ccbb44")  # Paul Tol's: told apart by everybody
LATENCY_FLOOR_MS = 1.0
UNDRAWN = ("start", "established", "end", "visits", "busy from", "busy to", "transition", "notice", "replica")


def draw(path: Path, title: str, traces: Mapping[str, Trace], quotas: Sequence[float]) -> Path:
    """Raises LabError if matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise LabError("no picture: pip install 'lvs-feedback[lab]' brings matplotlib") from None
    rows = 3 if quotas else 1  # without real servers of known size there are no weights to show: a pair's scenario
    figure = Figure(figsize=(4.6 * len(traces) + 1, 2.5 * rows + 1), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(rows, len(traces), sharex=True, sharey="row", squeeze=False)
    for column, (variant, trace) in enumerate(traces.items()):
        start = trace.moment("start")
        axes[0][column].set_title(variant)
        if quotas:
            _weights(axes[0][column], trace, start, len(quotas))
            _utilisation(axes[1][column], trace, start, quotas)
        if quotas:
            _latency(axes[-1][column], trace, start, BIN_SECONDS, (0.5, 0.99))
        else:
            _latency(axes[-1][column], trace, start, SHORT_BIN_SECONDS, (0.5, 1.0))
        for row in range(rows):
            _events(axes[row][column], trace, start)
    _label(axes)
    axes[-1][0].set_ylim(bottom=LATENCY_FLOOR_MS)  # last: it ends the scaling, which all columns share
    figure.savefig(path)
    return path


def _weights(axis: Any, trace: Trace, start: float, servers: int) -> None:
    """Draw weights as parts of their sum: a weight means something only relative to the others."""
    times = [sample.at - start for sample in trace.samples]
    for i in range(servers):
        parts = [max(0, s.weights[i]) / (sum(w for w in s.weights if w > 0) or 1) for s in trace.samples]
        axis.step(times, parts, where="post", color=COLOURS[i % len(COLOURS)], label=f"rs{i + 1}")


def _utilisation(axis: Any, trace: Trace, start: float, quotas: Sequence[float]) -> None:
    for i, quota in enumerate(quotas):
        points = utilisation(trace.samples[::SMOOTH_SAMPLES], i, quota)
        axis.plot([at - start for at, _ in points], [used for _, used in points], color=COLOURS[i % len(COLOURS)])


def _latency(axis: Any, trace: Trace, start: float, width: float, fractions: tuple[float, float]) -> None:
    bins: dict[int, list[float]] = {}
    for record in trace.records:
        if record.intended >= start:
            bins.setdefault(int((record.intended - start) / width), []).append(1000 * record.latency_seconds)
    times = sorted(bins)
    middles = [(time + 0.5) * width for time in times]
    for fraction, style in zip(fractions, (":", "-"), strict=True):
        values = [percentile(bins[time], fraction) for time in times]
        axis.plot(middles, values, style, color="black", label="longest" if fraction == 1 else f"p{fraction * 100:g}")
    axis.set_yscale("log")


def _events(axis: Any, trace: Trace, start: float) -> None:
    for event in trace.events:
        if event.what not in UNDRAWN and event.at >= start:
            axis.axvline(event.at - start, color="#bbbbbb", linewidth=1)
            axis.annotate(event.what, (event.at - start, 1), xycoords=("data", "axes fraction"), fontsize=7, va="top")


def _label(axes: Any) -> None:
    texts = ("weight, part of the sum", "CPU in use, part of the quota", "latency, ms")
    for row, text in enumerate(texts[-len(axes) :]):
        axes[row][0].set_ylabel(text)
        axes[row][0].grid(alpha=0.3)
    for row in {0, len(axes) - 1}:
        axes[row][0].legend(fontsize=8, loc="upper left")
    for axis in axes[-1]:
        axis.set_xlabel("seconds of load")
