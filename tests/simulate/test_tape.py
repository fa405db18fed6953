"""The file of a recording: whole lines or nothing."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from feedback.simulate import tape
from feedback.simulate.tape import FullError, Tape, lines

LINES = [f"line {i}\n".encode() for i in range(1000)]


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_what_was_put_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with Tape(path, 10**6) as made:
        for i, line in enumerate(LINES):
            made.put(line)
            if i % 100 == 0:
                made.flush()
    assert list(lines(path)) == LINES


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_a_file_that_was_cut_anywhere_gives_its_whole_lines(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with Tape(path, 10**6) as made:
        for line in LINES[:20]:
            made.put(line)
            made.flush()
    data = path.read_bytes()
    counts = []
    for cut in range(40, len(data) + 1):
        path.write_bytes(data[:cut])
        found = list(lines(path))
        assert found == LINES[: len(found)]
        counts.append(len(found))
    assert counts == sorted(counts)
    assert counts[-1] == 20


def test_a_compressed_file_without_a_line_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "t.gz"
    path.write_bytes(b"\x1f")
    with pytest.raises(OSError, match="no whole line"):
        list(lines(path))


def test_a_full_disk_takes_the_broken_batch_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(self: Tape, data: bytes) -> None:
        self._file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "t.jsonl"
    with Tape(path, 10**6) as made:
        made.put(LINES[0])
        made.flush()
        monkeypatch.setattr(tape.Tape, "_write", half)
        made.put(LINES[1])
        with pytest.raises(FullError, match="No space left"):
            made.flush()
    assert path.read_bytes() == LINES[0]


def test_it_grows_to_its_size_and_no_further(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with Tape(path, 50) as made:
        for line in LINES:
            made.put(line)
        with pytest.raises(FullError, match="larger"):
            made.flush()
    assert list(lines(path)) == LINES[:7]
