"""Roles: read strictly, written anew, and read as strictly where they arrive."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.config.agent import AgentCheckConfig, Role
from feedback.config.strict import parse
from feedback.ops import roles
from feedback.ops.keys import KeyFileError

WORDS = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=20)
CHECKS = st.just(AgentCheckConfig(listen=":3333", allow=("10.0.0.0/8",), smoothing_seconds=2.5))
ROLES = st.builds(
    Role,
    interval_seconds=st.floats(0.05, 60),
    idle_interval_seconds=st.floats(0.05, 600),
    cgroup=st.none() | WORDS.map(lambda word: Path("/") / word),
    service_cgroup=st.lists(WORDS.map(lambda word: f"/a/{word}"), max_size=1).map(tuple),
    ports=st.lists(st.integers(1, 65535), max_size=4).map(tuple),
    socket=st.none() | WORDS.map(lambda word: Path("/") / word),
    agent_check=st.none() | CHECKS,
)


@given(ROLES)
def test_what_travels_says_what_was_read(role: Role) -> None:
    assert parse(roles.text_of(role), Role) == role


def test_what_is_the_default_anyway_does_not_travel() -> None:
    assert roles.text_of(Role()) == ""


def test_names_in_any_script_travel(tmp_path: Path) -> None:
    assert roles.read(written(tmp_path, 'socket = "/run/größe.sock"'), "web") == 'socket = "/run/größe.sock"\n'


def written(directory: Path, text: str) -> Path:
    (directory / "web.toml").write_text(text)
    return directory


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "rs1"', "name"),
        ('key = "/etc/shadow"', "key"),
        ("ports = [0]", "ports[0]: 0 is not in 1..65535"),
        ('socket = "/run/a\\u202e"', "something that cannot be printed"),
        ("service_cgroup = [" + ", ".join(f'"/{"x" * 600}{i}"' for i in range(15)) + "]", "too long"),
        ('[agent_check]\nlisten = "3333"\nallow = ["10.0.0.1"]', "agent_check.listen"),
        ("ports = 80 =", "not TOML"),
    ],
)
def test_what_no_role_says_is_refused_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(KeyFileError) as refused:
        roles.read(written(tmp_path, text), "web")
    assert words in str(refused.value) and "web.toml" in str(refused.value)


@pytest.mark.parametrize("name", ["../web", "", "a b"])
def test_a_role_is_a_name_and_no_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyFileError, match="is not a valid name"):
        roles.read(tmp_path, name)


def test_a_role_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"web\.toml: no such role"):
        roles.read(tmp_path, "web")


def test_each_server_answers_haproxy_at_its_own_address(tmp_path: Path) -> None:
    text = roles.read(written(tmp_path, '[agent_check]\nlisten = ":3333"\nallow = ["10.0.0.1"]\n'), "web")
    for address, listen in (("10.0.0.11", "10.0.0.11:3333"), ("2001:db8::1", "[2001:db8::1]:3333")):
        assert f'listen = "{listen}"' in roles.settings(text, address)
