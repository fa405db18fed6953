"""What the sync daemon says reaches the master, and nothing else makes a director active."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedback.ops.role import Role, RoleFile, RoleSaid


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run" / "role.json"
    writer, reader = RoleFile(path), RoleFile(path)
    assert reader.read().role is Role.STANDBY
    for said in (RoleSaid(Role.ACTIVE, "took over", "d1", 3), RoleSaid(Role.STANDBY, "yielded", "d1", 4)):
        writer.write(said)
        assert reader.read() == said
        assert reader.read() == said
    path.unlink()
    assert reader.read().role is Role.STANDBY


@pytest.mark.parametrize("text", ["", "{", '{"role":"king"}', "[]", "\xff"])
def test_what_cannot_be_read_is_standby_and_says_why(tmp_path: Path, text: str) -> None:
    path = tmp_path / "role.json"
    RoleFile(path).write(RoleSaid(Role.ACTIVE))
    reader = RoleFile(path)
    reader.read()
    path.write_text(text, encoding="latin-1")
    assert reader.read().role is Role.STANDBY
    assert str(path) in reader.read().reason
