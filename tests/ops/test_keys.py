from __future__ import annotations

import json
import os
import pwd
import stat
from ipaddress import ip_address
from pathlib import Path

import pytest
import zmq
from click.testing import CliRunner

from feedback.cli.keys import keys as command
from feedback.ops import keys
from feedback.ops.keys import KeyFileError


def make(path: Path) -> keys.PublicKey:
    return keys.create(path)[2]


# Key files


def test_a_new_pair_is_a_secret_for_the_owner_and_a_public_file_for_all(tmp_path: Path) -> None:
    public, secret, key = keys.create(tmp_path / "agent")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    assert keys.read_public(public) == keys.read_public(secret) == key
    assert keys.load_secret(secret).public == key
    assert sorted(p.name for p in tmp_path.iterdir()) == ["agent.key", "agent.key_secret"]


def test_a_public_file_holds_no_secret(tmp_path: Path) -> None:
    public, secret, _ = keys.create(tmp_path / "agent")
    assert keys.load_secret(secret).secret.decode() not in public.read_text()


@pytest.mark.parametrize("name", ["agent.key_secret", "agent.key", "agent"])
def test_a_path_may_name_either_file_or_neither(tmp_path: Path, name: str) -> None:
    assert keys.create(tmp_path / name)[1] == tmp_path / "agent.key_secret"


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    key = make(tmp_path / "agent")
    with pytest.raises(KeyFileError, match="already exists"):
        make(tmp_path / "agent")
    assert keys.read_public(tmp_path / "agent.key") == key


def test_a_secret_does_not_show_in_a_repr(tmp_path: Path) -> None:
    pair = keys.load_secret(keys.create(tmp_path / "agent")[1])
    assert pair.secret.decode() not in repr(pair)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    secret = keys.create(tmp_path / "agent")[1]
    secret.chmod(mode)
    with pytest.raises(KeyFileError, match=rf"mode {mode:04o}\): chmod 600 "):
        keys.load_secret(secret)


def damaged(tmp_path: Path, text: bytes) -> Path:
    path = tmp_path / "bad.key_secret"
    path.write_bytes(text)
    path.chmod(0o600)
    return path


GOOD_PUBLIC, GOOD_SECRET = (part.decode() for part in zmq.curve_keypair())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not a key file"),
        (b"\xff\xfe\x00", "not a key file"),
        (b"curve\n public-key\n", "not a key file"),
        (b'curve\n public-key = "short"\n secret-key = "short"\n', "malformed"),
        (f'curve\n public-key = "{GOOD_PUBLIC}"\n'.encode(), "only a public key"),
        (f'curve\n public-key = "{GOOD_SECRET}"\n secret-key = "{GOOD_SECRET}"\n'.encode(), "do not belong together"),
    ],
    ids=["empty", "bytes", "a line", "short", "public alone", "of two pairs"],  # keys are new in each run
)
def test_a_malformed_secret_is_one_line_that_names_the_file_and_not_the_secret(
    tmp_path: Path, text: bytes, words: str
) -> None:
    path = damaged(tmp_path, text)
    with pytest.raises(KeyFileError, match=words) as caught:
        keys.load_secret(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert GOOD_SECRET not in str(caught.value)


def test_a_missing_secret_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"no such file: `feedback keys new .*/agent` makes it"):
        keys.load_secret(tmp_path / "agent.key_secret")


def test_a_directory_is_not_a_key(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(KeyFileError, match="cannot be read: Is a directory"):
        keys.load_secret(tmp_path)


@pytest.mark.parametrize("text", ["", "x", "x" * 39, "x" * 41, "ü" * 40, '"' * 40, "~" * 40])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(KeyFileError, match="not a public key"):
        keys.public_key(text)


def test_a_credential_of_the_unit_is_found_by_name_whatever_its_mode_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, secret, key = keys.create(tmp_path / "agent")
    secret.chmod(0o440)  # the manager's ACL shows as group permission
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert keys.load_secret(Path("credential:agent.key_secret")).public == key


@pytest.mark.parametrize("name", ["missing", "../agent.key_secret", "", ".."])
def test_a_credential_that_is_not_there_says_how_to_pass_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    keys.create(tmp_path / "agent")
    (tmp_path / "credentials").mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    with pytest.raises(KeyFileError, match="LoadCredential"):
        keys.load_secret(Path(f"credential:{name}"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("name", "remedy"), [("{}/agent.key_secret", "chown feedback"), ("credential:agent.key_secret", "make-rshared")]
)
def test_a_secret_that_may_not_be_read_says_what_to_do_about_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, remedy: str
) -> None:
    keys.create(tmp_path / "agent")
    for path in (tmp_path, *(parent for parent in tmp_path.parents if parent.name.startswith(("pytest-", "popen-")))):
        path.chmod(0o755)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        with pytest.raises(KeyFileError, match=remedy):
            keys.load_secret(Path(name.format(tmp_path)))
    finally:
        os.seteuid(0)


# Enrolments


@pytest.fixture
def key(tmp_path: Path) -> keys.PublicKey:
    return make(tmp_path / "rs1")


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    return tmp_path / "agents"


def test_an_enrolment_is_read_back(agents: Path, key: keys.PublicKey) -> None:
    keys.enroll(agents, "rs1", key, ("10.0.0.11", "2001:DB8:0::11"))
    found = keys.enrolled(agents).by_key[key]
    assert (found.name, found.addresses) == ("rs1", {ip_address("10.0.0.11"), ip_address("2001:db8::11")})
    assert [p.name for p in agents.iterdir()] == ["rs1.toml"], "nothing temporary is left"


def test_every_sign_that_a_key_can_have_survives(agents: Path) -> None:
    for i in range(50):
        public = keys.PublicKey(zmq.curve_keypair()[0].decode())
        keys.enroll(agents, f"rs{i}", public, (f"10.0.0.{i}",))
        assert keys.enrolled(agents).by_key[public].name == f"rs{i}"


def test_enrolling_again_replaces(agents: Path, key: keys.PublicKey, tmp_path: Path) -> None:
    keys.enroll(agents, "rs1", key, ("10.0.0.11",))
    other = make(tmp_path / "other")
    keys.enroll(agents, "rs1", other, ("10.0.0.12",))
    assert list(keys.enrolled(agents).by_key) == [other]


def test_one_key_is_one_agent(agents: Path, key: keys.PublicKey) -> None:
    keys.enroll(agents, "rs1", key, ("10.0.0.11",))
    with pytest.raises(KeyFileError, match="enrolled as rs1"):
        keys.enroll(agents, "rs2", key, ("10.0.0.12",))


def test_one_address_is_one_agents(agents: Path, key: keys.PublicKey, tmp_path: Path) -> None:
    keys.enroll(agents, "rs1", key, ("10.0.0.11",))
    with pytest.raises(KeyFileError, match=r"10\.0\.0\.11 is enrolled for rs1"):
        keys.enroll(agents, "rs2", make(tmp_path / "other"), ("10.0.0.11",))


@pytest.mark.parametrize("name", ["", "../rs1", "a/b", ".hidden", "x" * 65, "rs 1"])
def test_a_name_cannot_leave_the_directory(agents: Path, key: keys.PublicKey, name: str) -> None:
    with pytest.raises(KeyFileError, match="is not a valid name"):
        keys.enroll(agents, name, key, ("10.0.0.11",))
    with pytest.raises(KeyFileError, match="is not a valid name"):
        keys.revoke(agents, name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "bad.toml"),
        ('name = "bad"\npublic_key = "x"\naddresses = ["10.0.0.1"]\n', "public_key"),
        (f'name = "bad"\npublic_key = "{GOOD_PUBLIC}"\naddresses = []\n', "at least one"),
        (f'name = "bad"\npublic_key = "{GOOD_PUBLIC}"\naddresses = ["10.0.0.256"]\n', "addresses"),
        (f'name = "bad"\npublic_key = "{GOOD_PUBLIC}"\naddresses = ["10.0.0.1"]\nmore = 1\n', "more"),
        ('name = "bad"\npublic_key = "' + 40 * "#" + '"\naddresses = ["10.0.0.1"]\n', "public_key"),
        ("more = " + 5000 * "9", "not TOML"),
        ("more = " + 1500 * "[", "nested too deeply"),
        (f'name = "else"\npublic_key = "{GOOD_PUBLIC}"\naddresses = ["10.0.0.1"]\n', "the file's own"),
    ],
    ids=["nonsense", "short key", "no address", "bad address", "more", "bad key", "long number", "deep", "other name"],
)
def test_a_file_that_is_wrong_keeps_out_that_agent_only(
    agents: Path, key: keys.PublicKey, text: str, words: str
) -> None:
    keys.enroll(agents, "rs1", key, ("10.0.0.11",))
    (agents / "bad.toml").write_text(text)
    found = keys.enrolled(agents)
    assert list(found.by_key) == [key]
    assert len(found.problems) == 1
    assert words in found.problems[0]


def test_of_two_files_with_one_address_the_second_is_refused(agents: Path, key: keys.PublicKey) -> None:
    keys.enroll(agents, "rs1", key, ("10.0.0.11",))
    text = (agents / "rs1.toml").read_text()
    (agents / "rs2.toml").write_text(text.replace("rs1", "rs2").replace(key, GOOD_PUBLIC))
    found = keys.enrolled(agents)
    assert list(found.by_key) == [key]
    assert "already belongs to rs1" in found.problems[0]


def test_a_directory_that_is_not_there_says_what_makes_it(agents: Path) -> None:
    with pytest.raises(KeyFileError, match="feedback keys enroll"):
        keys.enrolled(agents)


# The command


def feedback_keys(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_the_whole_round_by_command(tmp_path: Path) -> None:
    agents = tmp_path / "agents"
    status, key, _ = feedback_keys("new", tmp_path / "rs1")
    assert (status, key.strip()) == (0, keys.read_public(tmp_path / "rs1.key"))
    assert feedback_keys("show", tmp_path / "rs1.key_secret")[1] == key
    status, _, _ = feedback_keys("enroll", "rs1", "--key", key.strip(), "--rip", "10.0.0.11", "--directory", agents)
    assert status == 0
    status, listed, _ = feedback_keys("list", "--json", "--directory", agents)
    row = {"name": "rs1", "public_key": key.strip(), "addresses": ["10.0.0.11"], "state": "enrolled", "until": None}
    assert json.loads(listed) == {"schema": 1, "agents": [row]}
    assert feedback_keys("revoke", "rs1", "--directory", agents)[0] == 0
    assert feedback_keys("list", "--directory", agents)[1] == ""


def test_a_key_file_may_stand_for_the_key(tmp_path: Path) -> None:
    key = make(tmp_path / "rs1")
    agents = tmp_path / "agents"
    assert feedback_keys("enroll", "rs1", "--key", tmp_path / "rs1.key", "--rip", "::1", "--directory", agents)[0] == 0
    assert list(keys.enrolled(agents).by_key) == [key]


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "/nowhere.key"),
        ("new", "/nowhere/agent"),
        ("enroll", "rs1", "--key", "short", "--rip", "10.0.0.1", "--directory", "/nowhere"),
        ("revoke", "rs1", "--directory", "/nowhere"),
        ("list", "--directory", "/nowhere"),
    ],
)
def test_what_goes_wrong_is_one_line_and_status_1(arguments: tuple[str, ...]) -> None:
    status, out, err = feedback_keys(*arguments)
    assert (status, out) == (1, "")
    assert err.count("\n") == 1


def test_no_command_ever_prints_a_secret(tmp_path: Path) -> None:
    _, secret, _ = keys.create(tmp_path / "rs1")
    text = keys.load_secret(secret).secret.decode()
    for arguments in (("show", secret), ("show", "--json", secret), ("new", secret)):
        _, out, err = feedback_keys(*arguments)
        assert text not in out + err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_secret_is_named(tmp_path: Path) -> None:
    secret = keys.create(tmp_path / "agent")[1]
    secret.chmod(0o200)
    with pytest.raises(KeyFileError, match="chown feedback"):
        keys.load_secret(secret)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("words", [("new", "master"), ("pair", "pair.key")], ids=["new", "pair"])
def test_what_root_makes_in_the_daemons_directory_is_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, str]
) -> None:
    there, elsewhere = tmp_path / "etc", tmp_path / "home"
    monkeypatch.setattr(keys, "DIRECTORY", there)
    monkeypatch.setattr(keys, "DAEMON_USER", "nobody")
    for directory, owner, said in ((there, pwd.getpwnam("nobody").pw_uid, True), (elsewhere, 0, False)):
        directory.mkdir()
        result = CliRunner().invoke(command, [words[0], str(directory / words[1])])
        (secret,) = [p for p in directory.iterdir() if p.suffix == ".key_secret" or p.name == "pair.key"]
        found = secret.stat()
        assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (owner, 0o600)
        assert ("belongs to feedback" in result.stderr) is said
    monkeypatch.setattr(keys, "DAEMON_USER", "nobody-of-this-name")
    assert CliRunner().invoke(command, ["new", str(there / "agent")]).exit_code == 0, (
        "without that user it stays root's"
    )
