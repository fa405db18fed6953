"""Files and the control socket: configurations, state, role, enrolments, keys, recordings, cases, requests."""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from feedback.config import AgentConfig, ConfigError, MasterConfig, SyncConfig, parse
from feedback.config.agent import Role
from feedback.config.strict import File
from feedback.master import Controller
from feedback.master import state as master_state
from feedback.master.laws import UnknownLawError
from feedback.master.shell.recording import RecordingError, line, read
from feedback.master.state import StateError
from feedback.ops import control, keys, pair, roles, tokens
from feedback.ops.keys import KeyFileError
from feedback.ops.role import RoleFile
from feedback.simulate import case
from tests.fuzz.mutation import JSON_TOKENS, TOML_TOKENS, write_json, write_toml
from tests.fuzz.target import Take, Target

Reader = Callable[[Path], object]


def _configuration(kind: type[File]) -> Callable[[bytes], None]:
    def take(data: bytes) -> None:
        found = parse(data.decode(), kind, source="fuzz.toml")
        if isinstance(found, MasterConfig):
            Controller(found)

    return take


def _state(data: bytes) -> None:
    found = master_state.decode(data)
    Controller(MasterConfig(ownership="weights")).restore(found)
    assert master_state.decode(master_state.encode(found)) == found


def _in_file(reader: Reader, name: str = "fuzz") -> Callable[[], AbstractContextManager[Take]]:
    """`reader` of a file of mode 0600 with the input in it."""

    @contextmanager
    def opened() -> Iterator[Take]:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / name

            def take(data: bytes) -> None:
                path.unlink(missing_ok=True)
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                reader(path)

            yield take

    return opened


def _role(path: Path) -> None:
    assert RoleFile(path).read().role in {"active", "standby"}


def _token(data: bytes) -> None:
    held = tokens.read(data.decode())
    assert len(held.pair.public) == len(held.pair.secret) == len(held.master) == 40


def _recording(data: bytes) -> None:
    for entry in read(data.splitlines(keepends=True), "fuzz"):
        line(entry.at, entry.what)


def _case(data: bytes) -> None:
    case.parse(data.decode())


def _settings(data: bytes) -> None:
    """What goes from a director to a server and is read there again says the same."""
    found = parse(data.decode(), Role, source="fuzz.toml")
    found.check("fuzz.toml")
    assert parse(roles.text_of(found), Role) == found


def _request(data: bytes) -> None:
    answer = control.answered(lambda request: {"said": str(request.get("command"))[:10]}, data)
    assert isinstance(answer, dict)
    json.dumps(answer)


def _toml(data: bytes) -> Any:
    return tomllib.loads(data.decode())


CONFIGURATION: dict[str, Any] = {
    "refuses": (ConfigError, UnknownLawError, UnicodeDecodeError),
    "tokens": TOML_TOKENS,
    "trees": _toml,
    "write": write_toml,
    "cpu_seconds": 3.0,  # tomllib is slow, and these files are the operator's own
}
DOCUMENT: dict[str, Any] = {"tokens": JSON_TOKENS, "trees": json.loads, "write": write_json}
TARGETS = (
    Target(name="master-toml", take=_configuration(MasterConfig), **CONFIGURATION),
    Target(name="agent-toml", take=_configuration(AgentConfig), **CONFIGURATION),
    Target(name="role-toml", take=_settings, **CONFIGURATION),
    Target(name="sync-toml", take=_configuration(SyncConfig), **CONFIGURATION),
    Target(name="case-toml", take=_case, **CONFIGURATION),
    Target(name="enrolment", opened=_in_file(keys.read_enrolment, "rs1.toml"), refuses=(KeyFileError,),
           tokens=TOML_TOKENS, trees=_toml, write=write_toml, cpu_seconds=3.0),
    Target(name="token-file", opened=_in_file(tokens.read_pending, "rs1.token"), refuses=(KeyFileError,),
           tokens=TOML_TOKENS, trees=_toml, write=write_toml, cpu_seconds=3.0),
    Target(name="token", take=_token, refuses=(KeyFileError, UnicodeDecodeError),
           tokens=(b"feedback-join-", b"=", b"A" * 91, b"\xff", b"-_")),
    Target(name="key-file", opened=_in_file(keys.load_secret), refuses=(KeyFileError,),
           tokens=(b"curve\n", b'"', b"secret-key = ", b"\xff", b"=")),
    Target(name="pair-secret", opened=_in_file(pair.load), refuses=(KeyFileError,), tokens=(b"\n", b"# ", b"\xff")),
    Target(name="master-state", take=_state, refuses=(StateError,), **DOCUMENT),
    Target(name="role", opened=_in_file(_role), **DOCUMENT),
    Target(name="recording", take=_recording, refuses=(RecordingError,), tokens=JSON_TOKENS),
    Target(name="control-request", take=_request, **DOCUMENT),
)  # fmt: skip
