"""An application's reports about itself, by datagram to a Unix socket: one JSON or MessagePack map in each.

    {"port": 80, "utilisation": 0.4, "in_flight": 12, "latency_seconds": 0.02, "drain": false}

The newest report for each port counts, for five seconds: an application that died reports nothing, and its last report
must not outlive it. It can also send what another server needs to continue a session, at most 256 bytes
(docs/failure.md):

    {"port": 80, "session": "u7", "value": "17408"}

A datagram that does not fit is counted and dropped. Datagrams cannot block the application: it sends
without waiting and loses what nobody reads.

Source: wire.Application is the schema; unix(7).
"""

from __future__ import annotations

import contextlib
import select
import socket
import stat
from pathlib import Path
from typing import Annotated, Any

import msgpack
import msgspec

from feedback.agent.signals.files import SignalError
from feedback.refusals import RefusalError
from feedback.sessions import Sessions
from feedback.wire import SESSION_PATTERN, Application, Session

EXPIRES_SECONDS = 5.0
DATAGRAM_BYTES_MAX = 2048
DATAGRAMS_PER_SAMPLE = 256  # an application gone wild costs no more than this
LISTEN_SECONDS = 0.02
PORTS_MAX = 64  # as many as a report takes


def decode(data: bytes) -> Application | Session:
    """Raises ValueError with what is wrong."""
    if len(data) > DATAGRAM_BYTES_MAX:
        raise RefusalError(f"more than {DATAGRAM_BYTES_MAX} bytes")
    kind: type[_Strict | _StrictSession] = _StrictSession if b"session" in data else _Strict
    try:
        # A JSON map begins with a brace (or space); a MessagePack map with 0x80..0x8f, 0xde or 0xdf.
        if data[:1] in {b"{", b" ", b"\n", b"\t"}:
            found = msgspec.json.decode(data, type=kind)
        else:
            raw: Any = msgpack.unpackb(data, strict_map_key=True)
            found = msgspec.convert(raw, kind)
        return Session(found.port, found.session, found.value) if isinstance(found, _StrictSession) else found
    except (msgspec.MsgspecError, msgpack.UnpackException, ValueError, RecursionError) as error:
        raise RefusalError(str(error) or type(error).__name__) from None


class _Strict(Application, frozen=True, forbid_unknown_fields=True):
    """A misspelt key is refused: an application that says `drian` must hear of it."""


class _StrictSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A map, as applications speak; on the wire it is an array."""

    session: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=SESSION_PATTERN)]
    value: str
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0


class ApplicationSource:
    """Owns the socket's path: makes it, and removes it at close. `refused` counts datagrams that did not fit;
    `sessions` has the last words on sessions."""

    def __init__(self, path: Path, mode: int = 0o666) -> None:
        self.path = path
        self.refused = 0
        self.problem = ""  # the last refusal's text
        self.sessions = Sessions()
        self._listened_at = 0.0
        self._heard: dict[int, tuple[float, Application]] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._ready = select.poll()
        self._ready.register(self._socket, select.POLLIN)
        try:
            _remove_stale(path)
            self._socket.bind(str(path))
            path.chmod(mode)  # any local application may speak; the directory's mode narrows it
        except OSError as error:
            self._socket.close()
            raise SignalError(f"{path}: cannot listen there: {error.strerror or error}") from None

    def due(self) -> float:
        """When `listen` is due. While sessions speak, often: the kernel may queue ten datagrams, and drops the rest."""
        return self._listened_at + LISTEN_SECONDS if len(self.sessions) else float("inf")

    def listen(self, now: float) -> None:
        """Take what was said meanwhile."""
        self._listened_at = now
        if not self._ready.poll(0):
            return  # nearly always; to be told so by an exception costs several times as much
        for _ in range(DATAGRAMS_PER_SAMPLE):
            try:
                data = self._socket.recv(DATAGRAM_BYTES_MAX + 1)
            except OSError:  # nothing more; recv on a bound datagram socket fails for no other reason
                break
            self._hear(data, now)

    def sample(self, now: float) -> tuple[Application, ...]:
        self.listen(now)
        if not self._heard:
            return ()  # on most servers always
        for port in [p for p, (heard_at, _) in self._heard.items() if now - heard_at > EXPIRES_SECONDS]:
            del self._heard[port]
        return tuple(application for _, application in self._heard.values())

    def _hear(self, data: bytes, now: float) -> None:
        try:
            application = decode(data)
            if isinstance(application, Session):
                self.sessions.hear(application.port, application.session, application.value, now)
                return
            if application.port not in self._heard and len(self._heard) >= PORTS_MAX:
                raise RefusalError(f"more than {PORTS_MAX} ports")
        except ValueError as error:
            self.refused += 1
            self.problem = str(error)
            return
        self._heard[application.port] = (now, application)

    def close(self) -> None:
        self._socket.close()
        with contextlib.suppress(OSError):
            self.path.unlink()


def _remove_stale(path: Path) -> None:
    """What a killed agent left. Never anything but a socket: the path comes from a configuration file."""
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise OSError(None, "it exists and is not a socket")
    path.unlink(missing_ok=True)
