"""Whatever the history, a pool ends at its file's ratios. `python -m tests.pipeline histories --count 2000`: all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.histories import Kind, play

SEEDS = (*range(1, 9), 1004, 163861128085, 191967066112)  # with three that found something


@pytest.mark.parametrize("kind", Kind, ids=str)
def test_a_history_ends_at_the_ratios_of_its_file(kind: Kind, tmp_path: Path) -> None:
    broken = [found for seed in SEEDS for found in play(kind, seed, tmp_path)]
    assert not broken, "\n".join(f"seed {b.seed}: {b.kind}: {b.text}" for b in broken[:3])
