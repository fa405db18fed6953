"""The shell of the checks against real servers on loopback: each kind, each way to fail, deadlines, many at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import pytest

from feedback.config import ConfigError, MasterConfig, parse
from feedback.config.probe import AgentSource, Check
from feedback.master.claims.asking import Probe, Target
from feedback.master.claims.health import Outcome
from feedback.master.shell.probes import Probes
from feedback.master.shell.programs import Gone, Programs
from tests.ops.exhausted import exhausted
from tests.ports import free_port

LOOPBACK = ip_address("127.0.0.1")


@contextlib.asynccontextmanager
async def answering(answer: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that says this to each who comes, and closes; with None it says nothing and keeps on. Its port."""

    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if answer is None:
                await asyncio.sleep(60)
            writer.write(answer or b"")
            await writer.drain()
            await reader.read(10_000)
        writer.close()
        writers.discard(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.05)  # each handler's end


async def came_of(what: Check | AgentSource, port: int, times: int = 1) -> list[Any]:
    """Where nothing else is said, an answer has all the time that it needs."""
    results: list[Any] = []
    if what.timeout_seconds == type(what)().timeout_seconds:
        what = msgspec.structs.replace(what, timeout_seconds=30.0)
    probes = Probes(lambda probe, result, now: results.append(result))
    probes.start([Probe(Target(LOOPBACK, port), what) for _ in range(times)])
    deadline = time.monotonic() + 60
    while len(results) < times:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    await probes.close()
    return results


def outcome(what: Check, answer: bytes | None = None, tls: ssl.SSLContext | None = None) -> Outcome:
    async def scenario() -> Any:
        async with answering(answer, tls) as port:
            return (await came_of(what, port))[0]

    made = asyncio.run(scenario())
    assert isinstance(made, Outcome)
    return made


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nall well"


@pytest.mark.parametrize(
    "keys, answer, good, text",
    [
        ({}, None, True, "tcp: connected"),
        ({"type": "http"}, OK, True, "http: status 200, "),
        ({"type": "http", "body": "well"}, OK, True, "status 200 with the text"),
        ({"type": "http", "body": "ill"}, OK, False, "status 200 without the text"),
        ({"type": "http", "status": (204, 301)}, OK, False, "status 200"),
        ({"type": "http"}, b"HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n", False, "status 503"),
        ({"type": "http"}, b"HTTP/1.0 200 OK\r\n\r\n", True, "status 200"),
        ({"type": "http", "body": "x"}, b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * 100_000, False, "not in its first 64 KiB"),
        ({"type": "http"}, b"SSH-2.0-OpenSSH_9.2\r\n", False, "not HTTP"),
        ({"type": "http"}, b"", False, "http: "),
        ({"type": "http", "timeout_seconds": 0.2}, None, False, "no answer within 0.2 s"),
        ({"type": "https", "timeout_seconds": 0.5}, OK, False, "https: "),
    ],
)
def test_each_kind_says_what_it_saw(keys: dict[str, Any], answer: bytes | None, good: bool, text: str) -> None:
    made = outcome(Check(**keys), answer)
    assert made.good is good
    assert text in made.text


@pytest.mark.parametrize("check", [Check(), Check(type="http")])
def test_a_port_where_nobody_listens_is_refused(check: Check) -> None:
    made = asyncio.run(came_of(check, free_port()))[0]
    assert (made.good, "refused" in made.text) == (False, True)


def test_https_takes_any_certificate_unless_it_shall_verify(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=rs1", "-keyout"]
    subprocess.run(["openssl", *made, key, "-out", certificate], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    assert outcome(Check(type="https"), OK, tls).good
    refused = outcome(Check(type="https", verify=True, host="rs1"), OK, tls)
    assert (refused.good, "CERTIFICATE_VERIFY_FAILED" in refused.text) == (False, True)


@pytest.mark.parametrize(
    "script, good, text",
    [
        ("exit 0", True, "exec: exit status 0"),
        ("echo $1 $2; exit 3", False, "exit status 3: 127.0.0.1 "),
        ("yes | head -c 1000000; exit 0", True, "exit status 0: y"),
        ("kill -9 $$", False, "exit status -9"),
    ],
)
def test_a_programs_exit_status_counts(script: str, good: bool, text: str) -> None:
    made = outcome(Check(type="exec", command=("/bin/sh", "-c", script, "check", "{address}", "{port}")))
    assert (made.good, text in made.text) == (good, True), made


def test_a_program_that_is_late_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/child; wait"
    began = time.monotonic()
    made = outcome(Check(type="exec", timeout_seconds=2, command=("/bin/sh", "-c", script)))
    assert (made.good, made.text, time.monotonic() - began < 30) == (False, "exec: no answer within 2 s", True)
    gone(tmp_path / "child")


def gone(pid: Path) -> None:
    """Nothing of that process is left, or it is a moment from it."""
    deadline = time.monotonic() + 60
    while alive(pid.read_text().strip()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: str) -> bool:
    try:
        return Path("/proc", pid, "stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it went before it was opened, or while it was read
        return False


@pytest.mark.parametrize("away", ["setsid", "env -i setsid", "setsid setsid"])
@pytest.mark.parametrize("stays, status", [("wait", None), ("true", 0), ("exit 3", 3)])
def test_what_leaves_a_programs_session_ends_with_its_check(
    tmp_path: Path, away: str, stays: str, status: int | None
) -> None:
    """A daemon made by the book: a session of its own, no parent, none of the check's environment."""
    pid = tmp_path / "child"
    daemon = (
        f"{away} sh -c 'echo $$ > {pid}.new; mv {pid}.new {pid}; exec /bin/sleep 60 >/dev/null 2>&1' >/dev/null 2>&1 &"
    )
    script = f"({daemon}); while [ ! -e {pid} ]; do sleep 0.02; done; {stays if stays != 'wait' else 'sleep 60'}"

    async def scenario() -> int | None:
        programs, found = Programs(), None
        check = asyncio.create_task(programs.run(("/bin/sh", "-c", script)))
        while stays == "wait" and not pid.exists():
            assert not check.done()
            await asyncio.sleep(0.01)
        try:
            found, _ = await asyncio.wait_for(check, 0.2 if stays == "wait" else 60)
        except TimeoutError:
            assert stays == "wait"
        gone(pid)  # while its runner lives on
        await programs.close()
        return found

    assert asyncio.run(scenario()) == status


def test_what_another_check_left_to_itself_lives_as_long_as_that(tmp_path: Path) -> None:
    script = f"(setsid sleep 60 & echo $! > {tmp_path}/child); sleep 0.7; kill -0 $(cat {tmp_path}/child)"

    async def scenario() -> list[tuple[int, str]]:
        programs = Programs()
        slow = asyncio.create_task(programs.run(("/bin/sh", "-c", script)))
        for _ in range(5):
            await asyncio.sleep(0.1)
            await programs.run(("/bin/sh", "-c", "(setsid sleep 60 &)"))
        found = await slow
        await programs.close()
        return [found]

    assert asyncio.run(scenario()) == [(0, "")]
    gone(tmp_path / "child")


def test_of_many_programs_at_once_none_ends_by_the_end_of_another() -> None:
    """A tenth did: one that was being started belonged to nobody yet."""

    async def scenario() -> set[tuple[int, str]]:
        programs = Programs()

        async def one_after_the_other() -> list[tuple[int, str]]:
            return [await programs.run(("/bin/sh", "-c", "exit 0")) for _ in range(30)]

        found = await asyncio.gather(*(one_after_the_other() for _ in range(12)))
        await programs.close()
        return {each for those in found for each in those}

    assert asyncio.run(scenario()) == {(0, "")}


def test_what_a_check_left_to_itself_may_begin_other_programs_while_other_checks_end(tmp_path: Path) -> None:
    """In the moment of an execve nothing can be read of whose it is."""
    again, over = tmp_path / "again", tmp_path / "over"
    again.write_text(f'#!/bin/sh\n[ $1 -gt 0 ] && exec "$0" $(($1 - 1))\necho > {over}\n')
    again.chmod(0o755)
    away = f"(setsid {again} 400 & echo $! > {tmp_path}/child)"
    script = f"{away}; while kill -0 $(cat {tmp_path}/child); do sleep 0.02; done 2>/dev/null; [ -e {over} ]"

    async def scenario() -> tuple[int, str]:
        programs = Programs()
        slow = asyncio.create_task(programs.run(("/bin/sh", "-c", script)))
        while not slow.done():
            await programs.run(("/bin/true",))
        await programs.close()
        return await slow

    assert asyncio.run(scenario()) == (0, "")


def test_a_program_has_no_capability_and_may_get_none() -> None:
    script = "grep -E '^(CapPrm|CapEff|CapAmb|NoNewPrivs)' /proc/self/status | tr -d '\\n\\t'"
    made = outcome(Check(type="exec", command=("/bin/sh", "-c", script)))
    none = "0" * 16
    assert f"CapPrm:{none}CapEff:{none}CapAmb:{none}NoNewPrivs:1" in made.text


def test_a_program_that_says_escape_sequences_says_none_of_them() -> None:
    made = outcome(Check(type="exec", command=("/bin/sh", "-c", "printf '\\033]0;x\\007\\033[31mred'")))
    assert "red" in made.text and made.text.isprintable()


def test_where_the_runner_dies_nothing_is_said_of_the_server_and_it_comes_again() -> None:
    async def scenario() -> tuple[int, str]:
        programs = Programs()
        with pytest.raises(Gone):
            await programs.run(("/bin/sh", "-c", "kill -9 $PPID; sleep 60"))
        found = await programs.run(("/bin/true",))
        await programs.close()
        return found

    assert asyncio.run(scenario()) == (0, "")


def test_words_that_no_program_can_be_given_are_said() -> None:
    made = outcome(Check(type="exec", command=("/bin/true", "\0")))
    assert (made.good, made.text) == (False, "exec: invalid argument")


def test_a_runner_that_says_what_nobody_understands_leaves_nobody_waiting() -> None:
    async def scenario() -> tuple[int, str]:
        programs = Programs()
        process = await programs.start()
        assert process.stdout is not None
        waits = asyncio.create_task(programs.run(("/bin/sleep", "60")))
        await asyncio.sleep(0.1)
        process.stdout.feed_data(b"nonsense\n")
        with pytest.raises(Gone):
            await asyncio.wait_for(waits, 60)
        found = await programs.run(("/bin/true",))
        await asyncio.wait_for(process.wait(), 60)
        await programs.close()
        return found

    assert asyncio.run(scenario()) == (0, "")


def test_a_program_that_is_not_there_is_said() -> None:
    made = outcome(Check(type="exec", command=("/no/such",)))
    assert (made.good, made.text) == (False, "exec: no such file or directory")


@pytest.mark.parametrize("answer, expected", [(b"up 75%\n", b"up 75%\n"), (b"75%", b"75%"), (b"", b""), (None, None)])
def test_an_agents_line_is_handed_over_and_its_silence_too(answer: bytes | None, expected: bytes | None) -> None:
    async def scenario() -> Any:
        async with answering(answer) as port:
            return (
                await came_of(AgentSource(port=port, timeout_seconds=0.3 if answer is None else 30, send="80\n"), port)
            )[0]

    made = asyncio.run(scenario())
    assert made == expected if answer != b"75%" else made in (b"75%", None)


def test_an_agent_that_is_not_there_is_silent() -> None:
    assert asyncio.run(came_of(AgentSource(), free_port())) == [None]


def test_a_thousand_at_once_end_and_leave_nothing_behind() -> None:
    async def scenario() -> list[Any]:
        async with answering(OK) as port:
            return await came_of(Check(type="http", timeout_seconds=20), port, 1000)

    before = len(list(Path("/proc/self/fd").iterdir()))
    assert all(made.good for made in asyncio.run(scenario()))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


OWNED = '[[service]]\nvirtual = "{}"\n[service.check]\n'


@pytest.mark.parametrize(
    "keys, error",
    [
        ('type = "icmp"', r"service\[0\].check.type: 'icmp': expected one of dns, exec, http, https, tcp, tls, udp"),
        ('type = "exec"', "command: exec needs one, with an absolute path first"),
        ('type = "exec"\ncommand = ["check.sh"]', "absolute path"),
        ('command = ["/bin/true"]', 'is for type = "exec"'),
        ('type = "http"\npath = "health"', "must begin with /"),
        ('type = "http"\npath = "/a b"', "printable ASCII"),
        ('type = "http"\nhost = "a\\r\\nX: y"', "printable ASCII"),
        ('type = "https"\nverify = true', "needs type https or tls, and host"),
        ("rise = 0", "check.rise: Expected `int` >= 1"),
        ("interval_seconds = 0.01", "interval_seconds"),
    ],
)
def test_a_check_is_checked(keys: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        parse(OWNED.format("tcp:10.0.0.100:80") + keys, MasterConfig)


def test_a_mark_has_no_port_to_check() -> None:
    with pytest.raises(ConfigError, match="check: needs a port"):
        parse(OWNED.format("fwmark:7"), MasterConfig)
    assert parse(OWNED.format("fwmark:7") + "port = 80", MasterConfig).service[0].check == Check(port=80)


@pytest.mark.parametrize(
    "text, error",
    [
        ('check = "alive"', r"service\[0\].check: 'alive': no such \[check.NAME\]: there is none"),
        ('check = "alive"\n[check.live]\n', r"service\[0\].check: 'alive': no such \[check.NAME\]: have live"),
        ('check = "alive"\n[check.alive]\ntype = "icmp"', "check.alive.type: 'icmp': expected one of"),
        ('[check."a b"]\n', "check"),
        ("check = 7", "check: Expected"),
    ],
)
def test_a_check_that_is_named_is_checked(text: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error) as caught:
        parse(f'[[service]]\nvirtual = "tcp:10.0.0.100:80"\n{text}', MasterConfig)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "kind, heading", [(Check, "### `[service.check]`"), (AgentSource, "### `[service.agent_check]`")]
)
def test_each_key_is_in_the_reference(kind: type[Check] | type[AgentSource], heading: str) -> None:
    reference = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    section = reference.partition(heading)[2].partition("\n### ")[0]
    assert [key for key in kind.__struct_fields__ if f"`{key}`" not in section] == []


@pytest.mark.parametrize("kind", ["tcp", "http", "exec"])
def test_want_of_descriptors_here_says_nothing_of_the_server(kind: str) -> None:
    words = {"command": ("/bin/true",)} if kind == "exec" else {}

    async def scenario(port: int) -> Any:
        results: asyncio.Queue[Any] = asyncio.Queue()
        probes = Probes(lambda probe, result, now: results.put_nowait(result))
        with exhausted():
            probes.start([Probe(Target(LOOPBACK, port), Check(type=kind, **words))])
            found = await asyncio.wait_for(results.get(), 60)
        await probes.close()
        return found

    with socket.create_server(("127.0.0.1", 0)) as server:
        assert asyncio.run(scenario(server.getsockname()[1])) is None
