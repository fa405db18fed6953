"""Session values: from this server's applications to the masters, and from other servers to files for applications.

A stand-in constantly gets the latest session values of its server, so that it can continue where that server ends. They
are kept in one file for each port, PORT.json, a map from session to value, replaced by a rename. Nothing is opened
before there is something to send or to receive.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import zmq

from feedback import wire
from feedback.agent.signals.files import SignalError
from feedback.agent.uplink import SESSIONS, State, Uplink
from feedback.config.agent import MasterLink
from feedback.ops import files
from feedback.ops.keys import KeyPair
from feedback.ops.logs import Log
from feedback.sessions import REPEAT_SECONDS, Sessions

TURN_SECONDS = 0.1  # what is heard is in its file after that time at most
SPEAKERS_MAX = 16  # servers for which one stands in


class Desk:
    """The session values of one agent. `own` are its applications' words, `directory` is where those of others go
    (None: no stand-in)."""

    def __init__(
        self,
        name: str,
        masters: tuple[MasterLink, ...],
        pair: KeyPair,
        context: zmq.Context[zmq.Socket[bytes]],
        log: Log,
        own: Sessions | None,
        directory: Path | None,
    ) -> None:
        """Raises SignalError where the directory cannot be used."""
        self._name, self._log, self._own, self._directory = name, log, own, directory
        self._uplinks = [Uplink(context, link, pair, log, SESSIONS, self._hear) for link in masters]
        self._here = wire.encode(wire.Sessions(wire.PROTOCOL, name))
        self._greeted = [float("-inf")] * len(masters)  # when each was told so
        self._speakers: dict[str, Sessions] = {}
        self._written: dict[int, str] = {}
        self._turned_at = 0.0
        self._failed = ""
        if directory is not None:
            try:
                directory.mkdir(exist_ok=True)
                _clear(directory)
            except OSError as error:
                raise SignalError(f"{directory}: cannot be used for sessions: {error.strerror or error}") from None

    def due(self) -> float:
        """When `turn` is due at the latest, beside the samples."""
        return self._turned_at + TURN_SECONDS if self._directory is not None else float("inf")

    def turn(self, now: float) -> bool:
        """Send and take. True if our applications have said something new."""
        if self._directory is None and not self._own:
            return False
        self._turned_at = now
        connected = [self._listen(number, uplink, now) for number, uplink in enumerate(self._uplinks)]
        news = self._own.news(now) if self._own is not None and any(connected) else ()
        if news:
            said = wire.encode(wire.Sessions(wire.PROTOCOL, self._name, news))
            for uplink, there in zip(self._uplinks, connected):
                if there:
                    uplink.send(said)
        if self._directory is not None:
            self._write(now)
        return bool(news)

    def _listen(self, number: int, uplink: Uplink, now: float) -> bool:
        """Take what a master says. True where it hears us: it has been told that we are there, upon which it tells all
        that it knows; and of ours it knows nothing yet."""
        uplink.tick(now)
        if uplink.state is not State.CONNECTED:
            self._greeted[number] = float("-inf")
            return False
        # The handshake is over before the socket takes anything: then it is tried at the next turn.
        if now - self._greeted[number] >= REPEAT_SECONDS and uplink.send(self._here):
            if self._own is not None and self._greeted[number] == float("-inf"):
                self._own.retell()
            self._greeted[number] = now
        return self._greeted[number] != float("-inf")

    def _hear(self, data: bytes) -> None:
        try:
            said = wire.decode_sessions(data)
            if said.agent not in self._speakers and len(self._speakers) >= SPEAKERS_MAX:
                raise ValueError(f"more than {SPEAKERS_MAX} servers to stand in for")
            self._speakers.setdefault(said.agent, Sessions()).take(said.sessions, self._turned_at)
        except ValueError as error:  # WireError is one
            self._complain(f"a master's message is invalid: {error}")

    def _write(self, now: float) -> None:
        assert self._directory is not None
        try:
            for port, values in self._by_port(now).items():
                text = msgspec.json.encode(values).decode()
                if text != self._written.get(port):
                    files.write(self._directory / f"{port}.json", text)
                    self._written[port] = text
        except OSError as error:
            self._complain(f"{self._directory}: {error.strerror or error}")
        else:
            self._failed = ""

    def _by_port(self, now: float) -> dict[int, dict[str, str]]:
        """The last word of each session, whoever had it last; ports that have none any more are empty."""
        for sessions in self._speakers.values():
            sessions.expire(now)
        self._speakers = {name: sessions for name, sessions in self._speakers.items() if len(sessions)}
        words = [word for sessions in self._speakers.values() for word in sessions.latest()]
        ports: dict[int, dict[str, str]] = {port: {} for port in self._written}
        for (port, session), _said_at, value in sorted(words, key=lambda word: word[1]):
            ports.setdefault(port, {})[session] = value
        return ports

    def _complain(self, reason: str) -> None:
        if reason != self._failed:
            self._failed = reason
            self._log.error("sessions-failed", reason=reason)

    def close(self) -> None:
        for uplink in self._uplinks:
            uplink.close()


def _clear(directory: Path) -> None:
    """Words from before a restart are older than any that a master still has."""
    for path in directory.glob("*.json"):
        if path.stem.isdecimal():
            path.unlink()
