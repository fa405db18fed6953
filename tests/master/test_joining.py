"""From a token to reports, on real sockets: the link at one end, `feedback keys join` at the other."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import zmq
from click.testing import CliRunner

from feedback import wire
from feedback.cli.keys import keys as command
from feedback.config import AgentConfig, load
from feedback.master.shell.link import Link
from feedback.ops import joining, keys, tokens
from feedback.ops.joining import Configured
from feedback.ops.keys import KeyFileError
from tests.master.test_link import Peers, Site, dealer, peers, reply, report, run, site, until  # noqa: F401


def token(site: Site, name: str = "rs9", address: str = "10.0.0.19", seconds: float = 60.0) -> str:  # noqa: F811
    return tokens.issue(site.enrolled, name, (address,), site.master.public, int(time.time() + seconds))


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


async def joined(text: str, link: Link, base: Path) -> wire.Joined:
    return await asyncio.to_thread(joining.join, tokens.read(text), link.endpoints[0], base)


def test_a_real_server_enrolls_itself_and_reports(site: Site, peers: Peers, tmp_path: Path) -> None:  # noqa: F811
    async def scenario() -> None:
        async with site.link() as link:
            said = await joined(token(site), link, tmp_path / "etc" / "agent")
            assert (said.agent, said.addresses) == ("rs9", ("10.0.0.19",))
            secret = tmp_path / "etc" / "agent.key_secret"
            assert stat.S_IMODE(secret.stat().st_mode) == 0o600
            assert names(secret.parent) == {"agent.key", "agent.key_secret"}
            agent = dealer(peers, site, link, keys.load_secret(secret))
            agent.send(report(0, agent="rs9", addresses=("10.0.0.19",)))
            await until(lambda: site.got, "the new agent's report")
            agent.send(report(1, agent="rs9", addresses=("10.0.0.11",)))
            await until(lambda: link.counters["foreign"], "the refusal of another's RIP")

    run(scenario())


def test_a_token_is_good_once_and_leaves_what_was_there(site: Site, tmp_path: Path) -> None:  # noqa: F811
    async def scenario() -> None:
        async with site.link() as link:
            text = token(site)
            await joined(text, link, tmp_path / "agent")
            before = (tmp_path / "agent.key_secret").read_bytes()
            for _ in range(2):
                with pytest.raises(KeyFileError, match="it was used, has expired, or was revoked"):
                    await joined(text, link, tmp_path / "agent")
            assert (tmp_path / "agent.key_secret").read_bytes() == before

    run(scenario())


@pytest.mark.parametrize("what", ["expired", "revoked", "another master's"])
def test_a_token_that_is_not_good_enrolls_nobody(site: Site, tmp_path: Path, what: str) -> None:  # noqa: F811
    async def scenario() -> None:
        async with site.link() as link:
            text = token(site, seconds=-1 if what == "expired" else 60)
            if what == "revoked":
                keys.revoke(site.enrolled, "rs9")
            if what == "another master's":
                text = tokens.issue(site.enrolled, "rs9", ("10.0.0.19",), site.stranger.public, int(time.time()) + 60)
            with pytest.raises(KeyFileError, match=r"does not know this token|is not the master that made"):
                await joined(text, link, tmp_path / "agent")
            assert not names(tmp_path) & {"agent.key", "agent.key_secret"}
            assert "rs9" not in {e.name for e in keys.enrolled(site.enrolled).by_key.values()}

    run(scenario())


def test_with_a_tokens_key_nothing_else_can_be_said(site: Site, peers: Peers) -> None:  # noqa: F811
    async def scenario() -> None:
        async with site.link() as link:
            held = tokens.read(token(site, "rs9", "10.0.0.19"))
            peer = dealer(peers, site, link, held.pair)
            peer.send(report(0, agent="rs9", addresses=("10.0.0.19",)))
            await until(lambda: peer.poll(0), "an answer")
            assert not wire.decode_joined(peer.recv()).accepted
            for _ in range(20):
                peer.send(wire.encode(wire.Join(wire.PROTOCOL, "x" * 40)))
            await until(lambda: link.counters["flooded"] == 20, "the rest of the flood")
            assert site.got == []
            assert link.counters == {"join": 1, "flooded": 20}

    run(scenario())


def test_a_master_that_may_not_write_says_so(
    site: Site,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    async def scenario() -> None:
        async with site.link() as link:
            text = token(site)
            with monkeypatch.context() as patch, pytest.raises(KeyFileError, match="enroll by hand"):
                patch.setattr(os, "rename", refused)
                await joined(text, link, tmp_path / "agent")
            assert len(tokens.pending(site.enrolled, time.time())[0]) == 1, "it is good yet"

    run(scenario())


def test_a_key_is_exchanged_without_a_gap(site: Site, peers: Peers, tmp_path: Path) -> None:  # noqa: F811
    """The old key reports until the new one does, and from then on never again."""

    async def scenario() -> None:
        async with site.link() as link:
            old = dealer(peers, site, link, site.rs1)
            old.send(report(0))
            await until(lambda: len(site.got) == 1, "the first report")
            await joined(token(site, "rs1", "10.0.0.11"), link, tmp_path / "agent")
            old.send(report(1))
            await until(lambda: len(site.got) == 2, "the old key beside the new one")
            new = dealer(peers, site, link, keys.load_secret(tmp_path / "agent.key_secret"))
            new.send(report(0, boot="b"))
            await until(lambda: len(site.got) == 3, "the new key's report")
            old.send(report(2))
            await until(lambda: link.counters["revoked"], "the old key is over")
            assert link.counters == {"accepted": 3, "joined": 1, "revoked": 1}

    run(scenario())


def test_the_old_key_ends_by_itself(site: Site, peers: Peers) -> None:  # noqa: F811
    async def scenario() -> None:
        wall = [1000.0]
        keys.enroll(site.enrolled, "rs1", site.stranger.public, ("10.0.0.11",), previous_until=1060)
        link = Link(["tcp://127.0.0.1:0"], site.master, site.enrolled,
                    lambda reports: [site.got.append(r) for r, _ in reports], wall=lambda: wall[0])  # fmt: skip
        link.open()
        try:
            old = dealer(peers, site, link, site.rs1)
            old.send(report(0))
            await until(lambda: site.got, "the old key's report")
            wall[0] = 1060.0
            old.send(report(1))
            await until(lambda: link.counters["revoked"], "its end")
            late = dealer(peers, site, link, site.rs1)
            late.send(report(2))
            await until(lambda: link.counters["unknown_key"], "nobody new gets in with it")
        finally:
            link.close()

    run(scenario())


def test_the_commands_do_it_all(site: Site, tmp_path: Path) -> None:  # noqa: F811
    """`keys token` on the director, `keys join` on the real server, twice: enrolment, and a change of keys."""
    runner, config = CliRunner(), tmp_path / "agent.toml"

    def made(*words: str) -> str:
        result = runner.invoke(command, ["token", "rs9", "--directory", str(site.enrolled), "--master-key",
                                         str(tmp_path / "master.key"), *words])  # fmt: skip
        assert result.exit_code == 0, result.output
        return result.stdout

    async def entered(link: Link, text: str, *more: str, given: tuple[str, ...] = ()) -> str:
        words = ["join", *given, "--master", link.endpoints[0], "--key", str(tmp_path / "agent"),
                 "--config", str(config), *more]  # fmt: skip
        result = await asyncio.to_thread(runner.invoke, command, words, text)
        assert result.exit_code == 0, result.output
        assert text.strip() not in result.output and "may have seen" not in result.output
        return (tmp_path / "agent.key").read_text()

    async def scenario() -> None:
        async with site.link() as link:
            first = await entered(link, made("--rip", "10.0.0.19"))
            found = load(config, AgentConfig)
            assert (found.name, found.addresses, found.key) == (
                "rs9",
                ("10.0.0.19",),
                tmp_path / "agent.key_secret",
            )
            assert [(m.endpoint, m.public_key) for m in found.master] == [(link.endpoints[0], site.master.public)]
            assert await entered(link, made(), given=("-",)) == first, "the key that is there is kept"
            (tmp_path / "token").write_text(made())
            assert await entered(link, "nothing", given=("--token-file", str(tmp_path / "token"))) == first
            assert await entered(link, made(), "--new-key") != first
            assert load(config, AgentConfig) == found

    run(scenario())
    listed = runner.invoke(command, ["list", "--directory", str(site.enrolled)]).output
    assert "previous" in listed and listed.count("rs9") == 2


def test_a_second_director_is_added_to_the_configuration(tmp_path: Path, site: Site) -> None:  # noqa: F811
    config, said = tmp_path / "agent.toml", wire.Joined(1, True, "", "rs9", ("10.0.0.19",))
    done: list[Configured] = []
    for endpoint, master in (("tcp://10.0.0.1:7433", site.master), ("tcp://10.0.0.2:7433", site.stranger)):
        done.append(joining.configure(config, said, endpoint, master.public, tmp_path / "agent.key_secret"))
    assert done == [Configured.MADE, Configured.ADDED]
    assert [m.endpoint for m in load(config, AgentConfig).master] == ["tcp://10.0.0.1:7433", "tcp://10.0.0.2:7433"]
    again = joining.configure(config, said, "tcp://10.0.0.2:7433", site.stranger.public, tmp_path / "x")
    assert again is Configured.UNCHANGED
    other = wire.Joined(1, True, "", "rs8", ("10.0.0.18",))
    before = config.read_text()
    with pytest.raises(KeyFileError, match="belongs to rs9"):
        joining.configure(config, other, "tcp://10.0.0.3:7433", site.rs1.public, tmp_path / "x")
    assert config.read_text() == before


WEB = """
ports = [80, 443]                          # a comment, and another
service_cgroup = ["/sys/fs/cgroup/system.slice/nginx.service"]
interval_seconds = 0.1
[agent_check]
listen = ":3333"
allow = ["10.0.1.0/24"]
"""


def test_a_token_of_a_role_gives_each_server_of_it_the_same_configuration(site: Site, tmp_path: Path) -> None:  # noqa: F811
    roles = tmp_path / "roles"
    roles.mkdir()
    (roles / "web.toml").write_text(WEB)
    runner, found = CliRunner(), {}

    async def enter(link: Link, name: str, address: str) -> AgentConfig:
        words = ["token", name, "--rip", address, "--role", "web", "--roles", str(roles)]
        words += ["--directory", str(site.enrolled), "--master-key", str(site.enrolled.parent / "master.key"), "--json"]
        made = runner.invoke(command, words)
        assert made.exit_code == 0, made.output
        base, config = tmp_path / name, tmp_path / f"{name}.toml"
        words = ["join", "--master", link.endpoints[0], "--key", str(base), "--config", str(config)]
        text = json.loads(made.stdout)["token"]
        said = await asyncio.to_thread(lambda: CliRunner().invoke(command, words, input=text + "\n"))
        assert said.exit_code == 0, said.output
        return load(config, AgentConfig)

    async def scenario() -> None:
        async with site.link() as link:
            for name, address in (("rs8", "10.0.0.18"), ("rs9", "2001:db8::19")):
                found[name] = await enter(link, name, address)
            (roles / "web.toml").write_text("ports = [8080]\n")
            await asyncio.sleep(1.1)  # one word a second with a token
            found["later"] = await enter(link, "rs9", "2001:db8::19")

    run(scenario())
    for name, listen in (("rs8", "10.0.0.18:3333"), ("rs9", "[2001:db8::19]:3333")):
        config = found[name]
        assert (config.ports, config.interval_seconds) == ((80, 443), 0.1)
        assert config.service_cgroup == ("/sys/fs/cgroup/system.slice/nginx.service",)
        assert config.agent_check is not None and config.agent_check.listen == listen
    assert (found["later"].ports, found["later"].agent_check) == ((8080,), None), "another join brings a change along"
    assert found["later"].master == found["rs9"].master


def test_a_role_replaces_nothing_that_a_person_wrote_and_keeps_the_other_master(site: Site, tmp_path: Path) -> None:  # noqa: F811
    config, secret = tmp_path / "agent.toml", tmp_path / "agent.key_secret"
    said = wire.Joined(1, True, "", "rs9", ("10.0.0.19",), "web", "ports = [80]\n")
    one, two = "tcp://10.0.0.1:7433", "tcp://10.0.0.2:7433"
    assert joining.configure(config, said, one, site.master.public, secret) is Configured.MADE
    said = msgspec.structs.replace(said, settings="ports = [81]\n")
    assert joining.configure(config, said, two, site.stranger.public, secret) is Configured.OF_ROLE
    made = load(config, AgentConfig)
    assert ([m.endpoint for m in made.master], made.ports) == ([one, two], (81,))
    config.write_text(config.read_text().partition("\n")[2])  # without the line that says whose it is
    before = config.read_text()
    said = msgspec.structs.replace(said, settings="ports = [82]\n")
    assert joining.configure(config, said, two, site.stranger.public, secret) is Configured.UNCHANGED
    assert config.read_text() == before


def test_one_key_joins_the_masters_of_both_directors(
    site: Site,  # noqa: F811
    peers: Peers,  # noqa: F811
    tmp_path: Path,
) -> None:
    """A token of each, two joins, one key and one configuration: both masters hear the agent."""
    base, config, enrolled = tmp_path / "agent", tmp_path / "agent.toml", tmp_path / "d2"
    heard: list[object] = []
    second = Link(["tcp://127.0.0.1:0"], site.stranger, enrolled, lambda reports: [heard.append(r) for r, _ in reports])

    async def scenario() -> None:
        enrolled.mkdir()
        second.open()
        try:
            async with site.link() as link:
                tokens_of_both = (
                    (link, token(site)),
                    (
                        second,
                        tokens.issue(enrolled, "rs9", ("10.0.0.19",), site.stranger.public, int(time.time()) + 60),
                    ),
                )
                for there, text in tokens_of_both:
                    words = ["join", text, "--master", there.endpoints[0], "--key", str(base), "--config", str(config)]
                    said = await asyncio.to_thread(CliRunner().invoke, command, words)
                    assert said.exit_code == 0, said.output
                    assert "other users of this host may have seen the token" in said.stderr
                assert "the key that was there" in said.stderr
                found = load(config, AgentConfig)
                assert [m.public_key for m in found.master] == [site.master.public, site.stranger.public]
                of_first = keys.read_enrolment(site.enrolled / "rs9.toml").public_key
                assert of_first == keys.read_enrolment(enrolled / "rs9.toml").public_key == keys.read_public(found.key)
                agent = dealer(peers, site, link, keys.load_secret(found.key))
                agent.send(report(0, agent="rs9", addresses=("10.0.0.19",)))
                await until(lambda: site.got, "its report at the first master")
        finally:
            second.close()

    run(scenario())


def test_a_key_that_is_there_and_not_good_is_not_replaced(site: Site, tmp_path: Path) -> None:  # noqa: F811
    secret = tmp_path / "agent.key_secret"
    secret.write_text("nonsense")
    secret.chmod(0o600)
    with pytest.raises(KeyFileError, match="not a key file"):
        joining.join(tokens.read(token(site)), "tcp://127.0.0.1:1", tmp_path / "agent")
    assert secret.read_text() == "nonsense"


def test_a_refusal_before_the_question_is_said_all_the_same(
    site: Site,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a busy host the master may answer the handshake before this process goes on: it does not wait for ever."""

    def slowly(message: wire.Join) -> bytes:
        time.sleep(0.5)
        return wire.encode(message)

    monkeypatch.setattr(joining, "wire", SimpleNamespace(**{**vars(wire), "encode": slowly}))

    async def scenario() -> None:
        async with site.link() as link:
            text = token(site)
            keys.revoke(site.enrolled, "rs9")
            with pytest.raises(KeyFileError, match="does not know this token"):
                await joined(text, link, tmp_path / "agent")

    run(scenario())


def test_nobody_there_is_said_in_time(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(joining, "DEADLINE_SECONDS", 0.3)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
    with pytest.raises(KeyFileError, match="no answer within"):
        joining.join(tokens.read(token(site)), f"tcp://127.0.0.1:{port}", tmp_path / "agent")


def test_by_hand_the_next_key_stands_beside_the_present_one_and_a_revocation_ends_both(
    site: Site,  # noqa: F811
    peers: Peers,  # noqa: F811
) -> None:
    def done(*words: str) -> None:
        result = CliRunner().invoke(command, [*words, "--directory", str(site.enrolled)])
        assert result.exit_code == 0, result.output

    async def scenario() -> None:
        async with site.link() as link:
            done("rotate", "rs1", "--key", site.stranger.public)
            link.reload()
            old, new = dealer(peers, site, link, site.rs1), dealer(peers, site, link, site.stranger)
            old.send(report(0))
            await until(lambda: len(site.got) == 1, "the present key's report")
            new.send(report(0, boot="b"))
            await until(lambda: len(site.got) == 2, "the next key's report")
            done("revoke", "rs1")
            link.reload()
            old.send(report(1))
            new.send(report(1, boot="b"))
            await until(lambda: link.counters["revoked"] == 2, "the end of both")
            assert len(site.got) == 2

    run(scenario())
