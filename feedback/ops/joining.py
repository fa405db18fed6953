"""Joining: the real server's end of a token. Makes a key if there is none, enrolls it, puts key and link in place.

Existing files are replaced only after the master has agreed, so a token that does not work leaves an agent unchanged.
"""

from __future__ import annotations

import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path

import zmq

from feedback import wire
from feedback.config.agent import AgentConfig, MasterLink
from feedback.config.strict import ConfigError, parse
from feedback.ops import keys, roles
from feedback.ops.keys import KeyFileError, PublicKey
from feedback.ops.tokens import Token

DEADLINE_SECONDS = 10.0

_REFUSED = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "the master does not know this token: it was used, has expired, or was revoked",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the listener there does not speak CURVE: is it a master?",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the listener there is not the master that made this token",
}


def present(base: Path) -> PublicKey | None:
    """The key that this agent has already, None where there is none. Raises KeyFileError for one that is not good."""
    secret = keys.secret_of(base)
    return keys.load_secret(secret).public if secret.exists() else None


def join(token: Token, endpoint: str, base: Path, *, new_key: bool = False) -> wire.Joined:
    """Enroll the key BASE.key_secret with the master at `endpoint`. Where there is none, or with `new_key`, one is made
    and put there, with BASE.key, once the master has said yes. Raises KeyFileError."""
    key = None if new_key else present(base)
    if key is not None:
        joined = ask(token, endpoint, key)
        keys.give(keys.secret_of(base))
        return joined
    try:
        base.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base.parent, prefix=".join-") as directory:
            public, secret, key = keys.create(Path(directory) / base.name)
            joined = ask(token, endpoint, key)
            keys.give(secret)
            # The secret last: the agent reads only this file, and finds it whole.
            public.replace(base.with_name(public.name))
            secret.replace(base.with_name(secret.name))
    except OSError as error:
        raise KeyFileError(f"{base}: cannot be written: {error.strerror}") from None
    return joined


def ask(token: Token, endpoint: str, key: PublicKey) -> wire.Joined:
    """Say the one thing that a token's key may say. Raises KeyFileError with what the master, or nobody, said."""
    with _socket(token, endpoint) as (socket, monitor):
        with suppress(zmq.Again):  # its handshake was refused already, and it has nowhere to send: the monitor says why
            socket.send(wire.encode(wire.Join(wire.PROTOCOL, key)), zmq.NOBLOCK)
        deadline = time.monotonic() + DEADLINE_SECONDS
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(monitor, zmq.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ready = dict(poller.poll(int(1000 * left) + 1))
            if monitor in ready:
                event = struct.unpack_from("=H", monitor.recv_multipart()[0])[0]
                if event in _REFUSED:
                    raise KeyFileError(f"{endpoint}: {_REFUSED[event]}")
            if socket in ready:
                return _answer(endpoint, socket.recv())
    raise KeyFileError(
        f"{endpoint}: no answer within {DEADLINE_SECONDS:g} s: is a master there, and no firewall between?"
    )


def _answer(endpoint: str, data: bytes) -> wire.Joined:
    try:
        joined = wire.decode_joined(data)
    except wire.WireError as error:
        raise KeyFileError(f"{endpoint}: its answer is invalid: {error}") from None
    if not joined.accepted:
        raise KeyFileError(f"{endpoint}: {joined.reason}")
    return joined


@contextmanager
def _socket(token: Token, endpoint: str) -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    try:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.CONFLATE, 1)  # one answer, and no queue that whoever listens there could fill
        socket.setsockopt(zmq.MAXMSGSIZE, wire.REPORT_BYTES_MAX)
        socket.ipv6 = "[" in endpoint
        socket.curve_publickey, socket.curve_secretkey = token.pair.public.encode(), token.pair.secret
        socket.curve_serverkey = token.master.encode()
        monitor = socket.get_monitor_socket(sum(_REFUSED))
        try:
            socket.connect(endpoint)
            yield socket, monitor
        except zmq.ZMQError as error:
            raise KeyFileError(f"{endpoint}: {error.strerror}: expected tcp://ADDRESS:PORT") from None
        finally:
            socket.disable_monitor()
            monitor.close(linger=0)
    finally:
        socket.close(linger=0)
        context.term()


# --- the agent's configuration ---------------------------------------------------------------------------------------


def link_text(endpoint: str, master: PublicKey) -> str:
    return f'[[master]]\nendpoint = "{endpoint}"\npublic_key = "{master}"\n'


ROLE = "# Role {}, by `feedback keys join`: another join with this role makes all of it anew.\n"


class Configured(Enum):
    MADE = "made"
    OF_ROLE = "made of the role, with the masters that were in it"
    ADDED = "the master is in it now"
    UNCHANGED = "has this master already"


def configure(path: Path, joined: wire.Joined, endpoint: str, master: PublicKey, secret: Path) -> Configured:
    """Write the agent's configuration, or add the master to the one that is there. An existing one is only replaced
    where a join made it of the same role. Raises KeyFileError where what is there is not for this agent; the key is in
    place all the same."""
    link = link_text(endpoint, master)
    try:
        before = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return _write(path, _whole(path, joined, secret, [link]), Configured.MADE, link)
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path}: cannot be read: {error}") from None
    known = _has(path, before, joined, endpoint, master)
    if joined.role and before.startswith(ROLE.format(joined.role)):
        kept = [
            link_text(m.endpoint, PublicKey(m.public_key)) for m in _masters(path, before) if m.public_key != master
        ]
        return _write(path, _whole(path, joined, secret, [*kept, link]), Configured.OF_ROLE, link)
    if known:
        return Configured.UNCHANGED
    return _write(path, f"{before.rstrip()}\n\n{link}", Configured.ADDED, link)


def _whole(path: Path, joined: wire.Joined, secret: Path, links: list[str]) -> str:
    addresses = ", ".join(f'"{a}"' for a in joined.addresses)
    text = f'name = "{joined.agent}"\naddresses = [{addresses}]\nkey = "{secret}"\n'
    if joined.role:
        try:
            text = ROLE.format(joined.role) + text + roles.settings(joined.settings, joined.addresses[0])
        except (ConfigError, IndexError) as error:
            raise KeyFileError(f"{path}: what the master says of role {joined.role} does not fit: {error}") from None
    return "\n".join([text, *links])


def _write(path: Path, text: str, what: Configured, link: str) -> Configured:
    try:
        parse(text, AgentConfig, str(path))
    except ConfigError as error:
        raise KeyFileError(f"{error}: fix it by hand; what belongs there: {' '.join(link.split())}") from None
    keys.write_public(path, text)
    return what


def _masters(path: Path, text: str) -> tuple[MasterLink, ...]:
    try:
        return parse(text, AgentConfig, str(path)).master
    except ConfigError as error:
        raise KeyFileError(f"{error}: fix it by hand, or remove it and join again") from None


def _has(path: Path, text: str, joined: wire.Joined, endpoint: str, master: PublicKey) -> bool:
    """Whether a configuration names this master. Raises KeyFileError where it is of another agent."""
    try:
        config = parse(text, AgentConfig, str(path))
    except ConfigError:
        return False  # perhaps only the master is missing: what comes of it is checked as a whole
    if config.name != joined.agent or not set(config.addresses) <= set(joined.addresses):
        raise KeyFileError(
            f"{path}: belongs to {config.name} with {', '.join(config.addresses)}, but the key is now enrolled as "
            f"{joined.agent} with {', '.join(joined.addresses)}: fix it by hand; "
            f"[[master]] is {endpoint}, public_key {master}"
        )
    return any(link.public_key == master for link in config.master)
