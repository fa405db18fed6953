"""Tokens: bound to a name and its RIPs, good once and for a time, and never the longer way round."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from feedback.ops import files, keys, tokens
from feedback.ops.keys import KeyFileError, PublicKey
from feedback.ops.tokens import OVERLAP_SECONDS

NOW = 1_800_000_000


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    return tmp_path / "agents"


def key(directory: Path, name: str) -> PublicKey:
    return keys.create(directory / name)[2]


@pytest.fixture
def master(tmp_path: Path) -> PublicKey:
    return key(tmp_path, "master")


def waiting(agents: Path, now: float = NOW) -> list[tokens.Pending]:
    return list(tokens.pending(agents, now)[0].values())


def test_a_token_carries_a_new_key_and_the_masters(agents: Path, master: PublicKey) -> None:
    text = tokens.issue(agents, "rs1", ("10.0.0.11",), master, NOW + 60)
    held = tokens.read(f" {text}\n")
    assert held.master == master
    (pending,) = waiting(agents)
    assert (pending.name, pending.public_key, set(map(str, pending.addresses))) == (
        "rs1",
        held.pair.public,
        {"10.0.0.11"},
    )
    assert held.pair.secret.decode() not in repr(held)


def test_the_directory_holds_nothing_that_opens_anything(agents: Path, master: PublicKey) -> None:
    text = tokens.issue(agents, "rs1", ("10.0.0.11",), master, NOW + 60)
    written = (agents / "rs1.token").read_text()
    secret = tokens.read(text).pair.secret.decode()
    assert secret not in written and text[14:50] not in written
    assert stat.S_IMODE((agents / "rs1.token").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    "broken",
    ["", "feedback-join-", "x" * 105, *("feedback-join-" + "A" * n for n in (50, 90, 91, 92, 200)), "feedback-join-é"],
)
def test_what_is_no_token_is_refused_and_not_told(broken: str) -> None:
    with pytest.raises(KeyFileError, match="not a complete token") as caught:
        tokens.read(broken)
    assert "AAAA" not in str(caught.value)


def test_a_mistyped_letter_is_noticed(agents: Path, master: PublicKey) -> None:
    text = tokens.issue(agents, "rs1", ("10.0.0.11",), master, NOW + 60)
    for at in range(14, len(text), 9):
        with pytest.raises(KeyFileError, match="not a complete token"):
            tokens.read(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])


def test_it_enrolls_what_was_written_down_and_works_once(agents: Path, master: PublicKey, tmp_path: Path) -> None:
    tokens.issue(agents, "rs1", ("10.0.0.11", "2001:db8::11"), master, NOW + 60)
    (pending,) = waiting(agents)
    own = key(tmp_path, "rs1")
    tokens.redeem(pending, own, NOW)
    enrolment = keys.enrolled(agents).by_key[own]
    assert (enrolment.name, len(enrolment.addresses), enrolment.until) == ("rs1", 2, None)
    assert waiting(agents) == []
    with pytest.raises(KeyFileError, match="was used or revoked"):
        tokens.redeem(pending, key(tmp_path, "thief"), NOW)
    assert list(keys.enrolled(agents).by_key) == [own]


def test_it_expires(agents: Path, master: PublicKey, tmp_path: Path) -> None:
    tokens.issue(agents, "rs1", ("10.0.0.11",), master, NOW + 60)
    (pending,) = waiting(agents)
    assert waiting(agents, NOW + 60) == []
    with pytest.raises(KeyFileError, match="expired"):
        tokens.redeem(pending, key(tmp_path, "rs1"), NOW + 60)


def test_a_newer_token_and_a_revocation_end_it(agents: Path, master: PublicKey, tmp_path: Path) -> None:
    tokens.issue(agents, "rs1", ("10.0.0.11",), master, NOW + 60)
    (first,) = waiting(agents)
    tokens.issue(agents, "rs1", ("10.0.0.11",), master, NOW + 60)
    (second,) = waiting(agents)
    assert second.public_key != first.public_key
    keys.revoke(agents, "rs1")
    assert waiting(agents) == []
    with pytest.raises(KeyFileError, match="used"):
        tokens.redeem(second, key(tmp_path, "rs1"), NOW)


@pytest.mark.parametrize("change", ["revoked", "replaced", "extended", "swapped at the last moment"])
def test_what_was_taken_back_enrolls_nobody_and_uses_up_no_other(
    agents: Path, master: PublicKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The holder of a first token has connected, and waits until there is a second one under its name."""
    tokens.issue(agents, "rs1", ("10.0.0.11",), master, NOW + 60)
    (stolen,) = waiting(agents)
    claim = files.claim

    def late(path: Path) -> Path:
        tokens.issue(agents, "rs1", ("10.0.0.11",), master, NOW + 60)
        return claim(path)

    if change == "swapped at the last moment":
        monkeypatch.setattr(files, "claim", late)
    else:
        keys.revoke(agents, "rs1")
        if change == "replaced":
            tokens.issue(agents, "rs1", ("10.0.0.11",), master, NOW + 60)
        elif change == "extended":
            tokens.issue(agents, "rs1", ("10.0.0.11", "10.0.0.12"), master, NOW + 60)
    with pytest.raises(KeyFileError, match=r"revoked|another token"):
        tokens.redeem(stolen, key(tmp_path, "thief"), NOW)
    assert not keys.enrolled(agents).by_key
    monkeypatch.undo()
    if change != "revoked":
        (second,) = waiting(agents)
        own = key(tmp_path, "own")
        tokens.redeem(second, own, NOW)
        assert list(keys.enrolled(agents).by_key) == [own]
    assert not [p for p in agents.iterdir() if p.suffix != ".toml"]


def test_addresses_and_keys_of_others_are_refused(agents: Path, master: PublicKey, tmp_path: Path) -> None:
    other = key(tmp_path, "rs2")
    keys.enroll(agents, "rs2", other, ("10.0.0.12",))
    with pytest.raises(KeyFileError, match=r"10\.0\.0\.12 is enrolled for rs2"):
        tokens.issue(agents, "rs1", ("10.0.0.11", "10.0.0.12"), master, NOW + 60)
    tokens.issue(agents, "rs1", ("10.0.0.11",), master, NOW + 60)
    (pending,) = waiting(agents)
    with pytest.raises(KeyFileError, match="enrolled as rs2"):
        tokens.redeem(pending, other, NOW)
    with pytest.raises(KeyFileError, match="make another"):
        tokens.redeem(pending, pending.public_key, NOW)
    assert waiting(agents), "what was refused has not used it up"


def test_a_second_key_stands_beside_the_first_for_a_while(agents: Path, master: PublicKey, tmp_path: Path) -> None:
    old, new = key(tmp_path, "old"), key(tmp_path, "new")
    keys.enroll(agents, "rs1", old, ("10.0.0.11",))
    tokens.issue(agents, "rs1", ("10.0.0.11",), master, NOW + 60)
    (pending,) = waiting(agents)
    tokens.redeem(pending, new, NOW)
    found = keys.enrolled(agents)
    assert not found.problems
    assert (found.by_key[new].until, found.by_key[old].until) == (None, NOW + OVERLAP_SECONDS)
    assert found.by_key[old].addresses == found.by_key[new].addresses


def test_a_file_that_is_no_token_is_named_and_keeps_out_no_other(agents: Path, master: PublicKey) -> None:
    tokens.issue(agents, "rs1", ("10.0.0.11",), master, NOW + 60)
    (agents / "rs2.token").write_text("nonsense")
    found, problems = tokens.pending(agents, NOW)
    assert len(found) == 1
    assert len(problems) == 1 and "rs2.token" in problems[0]
