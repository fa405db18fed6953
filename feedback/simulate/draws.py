"""The only place that makes random generators: seeded, one for each purpose, so that all policies get the same
arrivals."""

from __future__ import annotations

from random import Random


def generator(seed: int, purpose: str) -> Random:
    """Streams of different purposes are independent: an agent's noise never changes an arrival."""
    return Random(f"{purpose}:{seed}")
