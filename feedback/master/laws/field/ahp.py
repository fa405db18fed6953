"""The analytic hierarchy process: pairwise judgements of importance -> weights, and how far the judgements agree.

Source: T. L. Saaty, A scaling method for priorities in hierarchical structures, J. Math. Psychology 15 (1977). The
weights are the principal eigenvector; a consistency ratio of 0.1 or less is taken for consistent.
"""

from __future__ import annotations

from typing import TypeAlias

Judgements: TypeAlias = tuple[tuple[float, ...], ...]
RANDOM_INDEX = {3: 0.58, 4: 0.90, 5: 1.12, 6: 1.24}  # Saaty's, by the number of criteria


def priorities(judgements: Judgements) -> tuple[float, ...]:
    """Weights that sum to 1, by power iteration."""
    weights = (1 / len(judgements),) * len(judgements)
    for _ in range(100):
        product = _times(judgements, weights)
        weights = tuple(p / sum(product) for p in product)
    return weights


def consistency_ratio(judgements: Judgements) -> float:
    weights, n = priorities(judgements), len(judgements)
    greatest = sum(p / w for p, w in zip(_times(judgements, weights), weights, strict=True)) / n  # eigenvalue
    return (greatest - n) / (n - 1) / RANDOM_INDEX[n]


def _times(judgements: Judgements, weights: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sum(a * w for a, w in zip(row, weights, strict=True)) for row in judgements)
