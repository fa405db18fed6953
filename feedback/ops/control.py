"""Control: the Unix socket for commands to a daemon. One JSON line in, one JSON line out, then it closes. Where
the answer is a feed, its lines follow until one side has had enough.

File permissions are the access control: the socket is made 0660. A stale socket file of a dead daemon is replaced; one
where somebody answers is not.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import struct
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from feedback.ops.feed import Feed

REQUEST_BYTES_MAX = 64 * 1024
TIMEOUT_SECONDS = 5.0
CLIENTS_MAX = 64  # at a time; the next one finds its connection closed

FEED_SECONDS = 30.0  # without a line: the daemon is stuck

Answer: TypeAlias = dict[str, Any] | Feed
Handler = Callable[[dict[str, Any]], Answer]


class ControlError(Exception):
    """One line for the operator."""


class NotRunningError(ControlError):
    """Nobody answers at the socket."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks: the kernel's word (SO_PEERCRED), None where it has none."""

    uid: int | None

    def who(self, sudo_user: object) -> str:
        """A name for people. Root may say for whom it acts."""
        if self.uid == 0 and isinstance(sudo_user, str) and 0 < len(sudo_user) <= 32 and sudo_user.isprintable():
            return sudo_user
        if self.uid is None:
            return ""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"uid {self.uid}"


NOBODY = Peer(None)
asking: ContextVar[Peer] = ContextVar("asking", default=NOBODY)  # for a handler that wants to know


async def serve(path: Path, handler: Handler) -> asyncio.Server:
    """Answer requests at `path`. Raises ControlError if it cannot be made or another daemon answers there."""
    try:
        _make_room(path)
        before = os.umask(0o117)
        try:
            return await asyncio.start_unix_server(_client(handler), str(path), limit=REQUEST_BYTES_MAX)
        finally:
            os.umask(before)
    except OSError as error:
        raise ControlError(f"{path}: cannot make the control socket: {error.strerror or error}") from None


def _make_room(path: Path) -> None:
    if path.exists() and _answers(path):
        raise ControlError(f"{path}: another daemon answers there: stop it first, or give this one another socket")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)


def _client(handler: Handler) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    served: set[asyncio.StreamWriter] = set()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(served) >= CLIENTS_MAX:
            writer.close()
            return
        served.add(writer)
        try:
            line = await asyncio.wait_for(reader.readline(), TIMEOUT_SECONDS)
            asking.set(_peer(writer))
            answer = answered(handler, line)
            if isinstance(answer, Feed):
                await _feed(writer, answer)
            else:
                await _write(writer, json.dumps(answer).encode() + b"\n")
        except (TimeoutError, ValueError, OSError):
            pass  # a client that went away, stalls or sends too much loses its answer, nothing else
        finally:
            served.discard(writer)
            writer.close()

    return serve_one


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await asyncio.wait_for(writer.drain(), TIMEOUT_SECONDS)


async def _feed(writer: asyncio.StreamWriter, feed: Feed) -> None:
    try:
        await _write(writer, b'{"feed": true}\n')
        async for batch in feed.batches():
            await _write(writer, batch)
    except asyncio.CancelledError:
        pass  # the daemon stops: the reader sees the end of the line
    finally:
        feed.close()


def _peer(writer: asyncio.StreamWriter) -> Peer:
    try:
        raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return Peer(None)
    return Peer(struct.unpack("3i", raw)[1])


def answered(handler: Handler, line: bytes) -> Answer:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        return {"error": "not a JSON line"}
    if not isinstance(request, dict):
        return {"error": "expected a JSON object"}
    return handler(request)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        return probe.connect_ex(str(path)) == 0


def ask(path: Path, request: dict[str, Any], daemon: str = "feedback master") -> dict[str, Any]:
    """Ask the `daemon` at `path`. Raises NotRunningError if nobody is there, else ControlError with what it said."""
    lines = _lines(path, request, daemon)
    answer, _ = next(lines)
    if "feed" not in answer:
        for _ in lines:  # until the daemon has closed, or it would be left with an open end
            pass
    return answer


def follow(path: Path, request: dict[str, Any], daemon: str = "feedback master") -> Iterator[bytes]:
    """The lines of a feed, as they come, each with its newline. Raises as `ask` does, and where it ends by itself."""
    lines = _lines(path, request, daemon)
    next(lines)
    for _, line in lines:
        if not line.endswith(b"\n"):
            break
        if line.startswith(b'{"end"'):
            raise ControlError(f"{path}: the daemon ended the connection: {json.loads(line)['end']}")
        yield line
    raise ControlError(f"{path}: the daemon has gone")


def _lines(path: Path, request: dict[str, Any], daemon: str) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The first line as an answer, then those of the feed."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_SECONDS)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                yield _answer(path, lines.readline()), b""
                connection.settimeout(FEED_SECONDS)
                for line in lines:
                    yield {}, line
    except PermissionError:
        raise ControlError(f"{path}: permission denied: run as root or as a member of its group") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise NotRunningError(f"{path}: no daemon answers: is `{daemon}` running?") from None
    except OSError as error:
        raise ControlError(f"{path}: {error}") from None


def _answer(path: Path, line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        raise ControlError(f"{path}: the daemon's answer is not JSON") from None
    if not isinstance(answer, dict) or "error" in answer:
        raise ControlError(str(answer.get("error")) if isinstance(answer, dict) else "unexpected answer")
    return answer
