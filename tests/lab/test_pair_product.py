"""What the lab writes for the product's daemons is what they take, and the two directors fit each other."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from feedback.config import MasterConfig, SyncConfig, load
from feedback.lab.pair.product import Product
from feedback.lab.pair.stand import PairStand
from feedback.lab.pair.topology import DIRECTORS, FLOATING, pair
from feedback.ops import pair as secrets


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Product:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    machines = {director.name: SimpleNamespace(local=lambda path: path) for director in DIRECTORS}
    return Product(cast(PairStand, SimpleNamespace(pair=pair("lab7"), machines=machines)), masters=True)


def test_both_directors_take_their_configuration_and_mirror_each_other(made: Product) -> None:
    first, second = (load(made.directory / f"{director.name}-sync.toml", SyncConfig) for director in DIRECTORS)
    assert (first.name, first.peer) == (second.peer, second.name)
    assert [(link.local, link.peer) for link in first.link] == [(link.peer, link.local) for link in second.link]
    assert first.priority > second.priority
    assert [a.interface for a in first.address] == [interface for _, interface in FLOATING]
    assert first.secret == second.secret
    secrets.load(first.secret)


def test_a_master_follows_the_role_that_its_own_sync_daemon_writes(made: Product) -> None:
    for director in DIRECTORS:
        sync = load(made.directory / f"{director.name}-sync.toml", SyncConfig)
        master = load(made.directory / f"{director.name}-master.toml", MasterConfig)
        assert (master.role, master.state) == (sync.role, sync.master_state)
        assert master.control != sync.control
