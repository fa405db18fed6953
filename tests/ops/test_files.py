"""In a directory of somebody else's no name is trusted: links, pipes and swaps change nothing outside of it."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from feedback.ops import files


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file of root's, as the one who plants a link would like to have it read, written or opened to all."""
    path = tmp_path / "outside"
    path.write_text("secret")
    path.chmod(0o600)
    return path


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    directory = tmp_path / "agents"
    directory.mkdir()
    return directory


def untouched(path: Path) -> bool:
    return path.read_text() == "secret" and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_is_written_whole_with_its_mode_whatever_the_umask(inside: Path) -> None:
    before = os.umask(0o077)
    try:
        files.write(inside / "rs1.toml", "one")
        files.write(inside / "rs1.toml", "another")
    finally:
        os.umask(before)
    assert (inside / "rs1.toml").read_text() == "another"
    assert stat.S_IMODE((inside / "rs1.toml").stat().st_mode) == 0o644
    assert [p.name for p in inside.iterdir()] == ["rs1.toml"]


def test_a_link_in_the_place_of_a_name_is_replaced_and_not_followed(inside: Path, outside: Path) -> None:
    (inside / "rs1.toml").symlink_to(outside)
    files.write(inside / "rs1.toml", "ours")
    assert untouched(outside)
    assert not (inside / "rs1.toml").is_symlink()


def test_a_link_is_not_read(inside: Path, outside: Path) -> None:
    (inside / "rs1.toml").symlink_to(outside)
    with pytest.raises(files.LinkError, match="it is a link"):
        files.read(inside / "rs1.toml")


def test_a_pipe_is_no_file_and_nobody_waits_for_its_writer(inside: Path) -> None:
    os.mkfifo(inside / "rs1.toml")
    with pytest.raises(OSError, match="it is no file"):
        files.read(inside / "rs1.toml")


def test_what_is_longer_than_it_may_be_is_not_read(inside: Path) -> None:
    (inside / "rs1.toml").write_bytes(b"x" * (files.BYTES_MAX + 1))
    with pytest.raises(OSError, match="longer than"):
        files.read(inside / "rs1.toml")


def test_whoever_swaps_names_while_root_writes_changes_nothing_outside(inside: Path, outside: Path) -> None:
    """The owner of the directory puts links in the place of whatever appears there, as fast as it can."""
    ends = threading.Event()
    swapped = 0

    def swap() -> None:
        nonlocal swapped
        while not ends.is_set():
            for path in list(inside.iterdir()):
                try:
                    if not path.is_symlink():
                        path.unlink()
                        path.symlink_to(outside)
                        swapped += 1
                except OSError:
                    continue

    owner = threading.Thread(target=swap)
    owner.start()
    try:
        for _ in range(300):
            try:
                files.write(inside / "rs1.toml", "ours")
            except OSError:
                continue  # what was to be put in place was taken away
    finally:
        ends.set()
        owner.join()
    assert swapped > 20
    assert untouched(outside)


def test_of_two_that_claim_a_file_one_has_it(inside: Path) -> None:
    path = inside / "rs1.token"
    path.write_text("one")
    private = files.claim(path)
    with pytest.raises(FileNotFoundError):
        files.claim(path)
    assert private.read_text() == "one"
    files.put_back(private, path)
    assert [p.name for p in inside.iterdir()] == ["rs1.token"]


def test_what_is_put_back_takes_no_newer_ones_place(inside: Path) -> None:
    path = inside / "rs1.token"
    path.write_text("one")
    private = files.claim(path)
    path.write_text("another")
    files.put_back(private, path)
    assert path.read_text() == "another"
    assert [p.name for p in inside.iterdir()] == ["rs1.token"]
