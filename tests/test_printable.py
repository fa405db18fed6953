"""Text from outside is printable: what a stranger, an agent, a server, a peer or a file says colours no terminal, ends
no line of the journal, and reaches pages, metrics and JSON as signs that can be seen."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import pytest

from feedback import faults, wire
from feedback.agent.signals import applications
from feedback.cli.errors import Failure
from feedback.cli.screen import Screen
from feedback.config import AgentConfig, ConfigError, MasterConfig, parse
from feedback.config.probe import AgentSource, Check
from feedback.master import state
from feedback.master.claims.asking import Probe, Target
from feedback.master.claims.health import Outcome
from feedback.master.controller import Controller
from feedback.master.shell import commands
from feedback.master.shell.admission import Admission, Refused
from feedback.master.shell.probes import Probes
from feedback.master.shell.status import of_master
from feedback.ops import joining, keys, logs
from feedback.ops.keys import Enrolment, KeyFileError, PublicKey
from feedback.ops.logs import Log
from feedback.ops.role import Role, RoleFile, RoleSaid
from feedback.sync.election import heartbeat
from feedback.sync.election.heartbeat import HeartbeatError
from feedback.sync.replication import messages
from feedback.web import metrics, page
from tests.master.builders import Table, config, report
from tests.ports import free_port

EVIL = "\x1b[2J\x1b]0;owned\x07\r\nlevel=error event=forged \x9b31m\u202e"
KEY = "k" * 40


def refusal(kind: type[Exception], call: Callable[[], object]) -> list[str]:
    """What is said of it: it is refused, or harmless."""
    with pytest.raises(kind) as caught:
        call()
    return [str(caught.value)]


def admitted(**changes: Any) -> list[str]:
    """As an enrolled agent."""
    enrolments = {"k": Enrolment("rs1", PublicKey(KEY), keys.rips(["10.0.0.11"], ""))}
    said = msgspec.structs.replace(report(1, at=1.0, sequence=1), **changes)
    return refusal(Refused, lambda: Admission(enrolments).admit("k", wire.encode(said), 0.0))


def unknown_field() -> list[str]:
    packed = msgspec.msgpack.encode({"version": wire.PROTOCOL, EVIL: EVIL, "agent": EVIL})
    return refusal(wire.WireError, lambda: wire.decode_report(packed))


def reply() -> list[str]:
    packed = wire.encode(wire.Reply(wire.PROTOCOL, False, EVIL))
    return refusal(wire.WireError, lambda: wire.decode_reply(packed))


def joined(**given: Any) -> list[str]:
    packed = wire.encode(wire.Joined(wire.PROTOCOL, **({"accepted": True} | given)))
    return refusal(KeyFileError, lambda: joining._answer("tcp://10.0.0.1:7433", packed))


def application() -> list[str]:
    return refusal(ValueError, lambda: applications.decode(json.dumps({EVIL: 1}).encode()))


def control() -> list[str]:
    told = refusal(commands.CommandError, lambda: commands.read({"command": "drain", EVIL: EVIL}))
    asked = commands.Request("drain", destination=EVIL, service=EVIL)
    return told + refusal(commands.CommandError, lambda: commands._destinations(asked, ()))


def replication() -> list[str]:
    packed = messages.encode(messages.Refused(1, EVIL))
    hello = messages.encode(messages.Hello(messages.PROTOCOL, EVIL, 1))
    return [
        text for data in (packed, hello) for text in refusal(messages.MessageError, lambda d=data: messages.decode(d))
    ]


def peer() -> list[str]:
    body = msgspec.msgpack.encode({"name": EVIL, "replica": ("none", 0, 0), "macs": ()})
    return refusal(HeartbeatError, lambda: heartbeat._body(body))


def written(text: str) -> Path:
    path = Path.cwd() / "file"
    path.write_text(text)
    return path


def role() -> list[str]:
    path = written("")
    RoleFile(path).write(RoleSaid(Role.ACTIVE, EVIL, EVIL))
    said = RoleFile(path).read()
    return [said.reason, said.peer, RoleFile(written(json.dumps({"role": EVIL}))).read().reason]


def files() -> list[str]:
    quoted = json.dumps(EVIL)
    return [
        *refusal(ConfigError, lambda: parse(f"{quoted} = {quoted}", MasterConfig)),
        *refusal(ConfigError, lambda: parse(f'name = "rs1"\naddresses = [{quoted}]\n', AgentConfig)),
        *refusal(KeyFileError, lambda: keys.rips([f"fe80::1%{EVIL}"], "file")),
        *refusal(KeyFileError, lambda: keys.read_enrolment(written(f"{quoted} = {quoted}"))),
        *refusal(state.StateError, lambda: state.read(json.dumps({"version": EVIL}).encode())),
    ]


WAYS: dict[str, Callable[[], list[str]]] = {
    "a report's RIP": lambda: admitted(addresses=(f"fe80::1%{EVIL}",)),
    "a report's name": lambda: admitted(agent=EVIL),
    "a report's boot": lambda: admitted(boot=EVIL),
    "a report's field": unknown_field,
    "a master's reply": reply,
    "a master's no to a token": lambda: joined(accepted=False, reason=EVIL),
    "a master's name for an agent": lambda: joined(agent=EVIL, addresses=("10.0.0.11",)),
    "a master's RIP for an agent": lambda: joined(agent="rs1", addresses=(f"fe80::1%{EVIL}",)),
    "an application": application,
    "a command": control,
    "a follower": replication,
    "a heartbeat": peer,
    "the role file": role,
    "files": files,
    "a fault": lambda: [faults.said(ValueError(EVIL))],
}


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    before = (logs._state.emit, logs._state.threshold)
    yield
    logs._state.emit, logs._state.threshold = before


@pytest.mark.parametrize("way", WAYS)
def test_what_is_said_of_a_strangers_words_is_printable(way: str) -> None:
    found = WAYS[way]()
    assert found
    for text in found:
        assert text.isprintable(), repr(text)


@pytest.mark.parametrize("how", ["journal", "terminal"])
def test_a_line_of_the_journal_is_one_line_whatever_it_is_given(
    how: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: how == "terminal")
    logs.setup()
    Log("test").error("said", reason=EVIL, whom=Path(EVIL), agent=ValueError(EVIL))
    said = capsys.readouterr().err
    for colour in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[31;1m", "\x1b[32m", "\x1b[35m", "\x1b[36m"):
        said = said.replace(colour, "")  # the renderer's own
    assert said.endswith("\n")
    assert said[:-1].isprintable(), repr(said)


def test_a_command_fails_in_printable_words() -> None:
    assert Failure(EVIL.replace("\r\n", "")).message.isprintable()


SAYS = "import sys; sys.stdout.buffer.write(sys.argv[1].encode()); sys.exit(1)"


def asked(check: Check | AgentSource, port: int) -> Outcome | bytes | None:
    """What comes of a real probe."""

    async def scenario() -> Outcome | bytes | None:
        answer: asyncio.Future[Outcome | bytes | None] = asyncio.get_running_loop().create_future()

        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.write(f"HTTP/1.1 {EVIL}\r\n{EVIL}: {EVIL}\r\n\r\n".encode())
            writer.close()

        server = await asyncio.start_server(speak, "127.0.0.1", port)
        probes = Probes(lambda probe, result, now: answer.set_result(result))
        probes.start([Probe(Target(ip_address("127.0.0.1"), port), check)])
        try:
            return await asyncio.wait_for(answer, 30)
        finally:
            await probes.close()
            server.close()

    return asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["exec", "http"])
def test_what_a_check_was_told_is_printable_wherever_it_is_shown(kind: str) -> None:
    extra = '[service.check]\ntype = "tcp"\n' + "interval_seconds = 1.0\n"
    check = Check(type="exec", command=(sys.executable, "-c", SAYS, EVIL)) if kind == "exec" else Check(type="http")
    outcome = asked(check, free_port())
    assert isinstance(outcome, Outcome) and not outcome.good
    assert "owned" in outcome.text or kind == "http"
    controller, table = Controller(config(2, guards=extra)), Table()
    for k in range(1, 40):
        for probe in controller.probes(k / 5):
            controller.receive_probe(probe, outcome, k / 5)
        controller.receive_kernel(table.snapshot(), k / 5)
        decision = controller.decide(k / 5)
        table.apply(decision.edits)
    document = of_master(decision, {"director": "d1", "role": "active", "uptime_seconds": 1.0, "counters": {}})
    shown = json.loads(json.dumps(document))
    assert any(outcome.text in text for text in strings(shown))
    for text in strings(shown):
        assert text.isprintable(), repr(text)
    screen = Screen()
    screen.update(shown)
    for line in screen.lines(400, 100):
        assert line.text.isprintable(), repr(line.text)
    for body in (page.render(shown, 0.0), metrics.render(shown, 0.0)[0]):
        text = body.decode() if isinstance(body, bytes) else body
        assert "\x1b" not in text and "\x9b" not in text and "\u202e" not in text


def strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in strings(part)]
    return [text for part in value for text in strings(part)] if isinstance(value, list) else []


def test_a_masters_answer_puts_nothing_into_the_file_that_root_writes(tmp_path: Path) -> None:
    """Neither by a quote that ends its string nor by a line."""
    for evil in ('rs1"\nkey = "/etc/shadow', "rs1\n", 'rs1", "10.0.0.12'):
        for given in ({"agent": evil, "addresses": ("10.0.0.11",)}, {"agent": "rs1", "addresses": (evil,)}):
            assert joined(**given)
    good = wire.Joined(wire.PROTOCOL, True, "", "rs1", ("10.0.0.11",))
    path = tmp_path / "agent.toml"
    for evil in (
        'key = "/etc/shadow"',
        'ports = [80]\nname = "rs2"',
        "[[master]]\nendpoint = 1",
        'socket = "a',
        "a\x1b",
    ):
        of_role = msgspec.structs.replace(good, role="web", settings=evil)
        with pytest.raises(KeyFileError) as refused:
            joining.configure(path, of_role, "tcp://10.0.0.1:7433", PublicKey(KEY), tmp_path / "agent.key_secret")
        assert str(refused.value).isprintable() and not path.exists()
    joining.configure(path, good, "tcp://10.0.0.1:7433", PublicKey(KEY), tmp_path / "agent.key_secret")
    assert parse(path.read_text(), AgentConfig).name == "rs1"
