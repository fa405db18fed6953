"""On the lab's kernel: by the older iptables, which is what it has. Everything there runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedback.steer.keeper import Keeper
from tests.steer import kept
from tests.steer.kept import Kept, keeper, netns

__all__ = ["keeper", "netns"]
pytestmark = pytest.mark.lab


@pytest.fixture
def firewall() -> str:
    return "iptables-legacy"


class TestInTheGuest(Kept):
    @pytest.mark.long
    def test_what_is_undone_is_back_at_the_next_turn(self, keeper: Keeper, netns: str, firewall: str) -> None:
        super().test_what_is_undone_is_back_at_the_next_turn(keeper, netns, firewall)


def test_a_chain_that_somebody_leads_to_is_not_taken_away_under_him(netns: str, tmp_path: Path, firewall: str) -> None:
    kept.a_chain_that_somebody_leads_to_is_not_taken_away_under_him(netns, tmp_path, firewall)
