"""On the lab's kernel: by the older iptables, which is what it has. Everything there runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.steer import kept
from tests.steer.kept import Kept, KeptBesideOthers, keeper, netns

__all__ = ["keeper", "netns"]
pytestmark = pytest.mark.lab(seconds=2.5)


@pytest.fixture
def firewall() -> str:
    return "iptables-legacy"


class TestInTheGuest(Kept):
    pass


@pytest.mark.long
class TestInTheGuestBesideOthers(KeptBesideOthers):
    pass


def test_a_chain_that_somebody_elses_rule_jumps_to_is_not_removed(netns: str, tmp_path: Path, firewall: str) -> None:
    kept.a_chain_that_somebody_leads_to_is_not_taken_away_under_him(netns, tmp_path, firewall)
