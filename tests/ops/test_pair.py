"""One secret file on both directors makes every key between them."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq

from feedback.ops import pair
from feedback.ops.keys import KeyFileError


def test_both_directors_derive_the_same_keys(tmp_path: Path):
    path = pair.create(tmp_path / "pair.key")
    one, other = pair.load(path), pair.load(path)
    assert one.director("d1") == other.director("d1")
    assert one.director("d1").public != one.director("d2").public
    assert zmq.curve_public(one.director("d1").secret).decode() == one.director("d1").public


def test_purposes_and_pairs_have_nothing_in_common(tmp_path: Path):
    first, second = (pair.load(pair.create(tmp_path / name)) for name in ("a", "b"))
    assert len({first.derive("x"), first.derive("y"), second.derive("x")}) == 3


def test_the_secret_is_never_shown(tmp_path: Path):
    path = pair.create(tmp_path / "pair.key")
    secret = pair.load(path)
    text = path.read_text().splitlines()[-1]
    assert text not in repr(secret) and text not in repr(secret.director("d1"))
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_secret_is_not_overwritten(tmp_path: Path):
    path = pair.create(tmp_path / "pair.key")
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="already exists"):
        pair.create(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "short\n", "x" * 40 + "\n" + "y" * 40, "é" * 40, "~" * 40])
def test_what_is_no_secret_is_refused_in_one_line(tmp_path: Path, text: str):
    path = tmp_path / "pair.key"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="not a pair's secret"):
        pair.load(path)


def test_an_exposed_or_missing_secret_is_refused(tmp_path: Path):
    path = pair.create(tmp_path / "pair.key")
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="others may read"):
        pair.load(path)
    with pytest.raises(KeyFileError, match="feedback keys pair"):
        pair.load(tmp_path / "none")
