"""The only place that makes random generators: seeded, one for each purpose, so that policies share their arrivals."""

from __future__ import annotations

from random import Random


def generator(seed: int, purpose: str) -> Random:
    """Streams of different purposes are independent: what an agent's noise draws never moves an arrival."""
    return Random(f"{purpose}:{seed}")
