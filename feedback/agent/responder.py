"""The port for HAProxy's agent-check: accept, perhaps read a word, answer, close. It never waits: the agent's poll()
does.

The protocol has no authentication, so only a list of networks may ask, and nobody else gets a byte. A client that wants
one service's answer sends its port at once; one that says nothing within a tenth of a second gets the server's. Limits:
bytes of a question, and connections a second, which also bounds how many wait (the port rests beyond that, and when no
descriptor is left). Strangers are counted separately, so they do not use up the allowance of permitted clients.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from ipaddress import ip_address

from feedback.agent.agentcheck import QUESTION_BYTES_MAX
from feedback.agent.signals.files import SignalError
from feedback.config.strict import Network
from feedback.endpoints import parse_endpoint
from feedback.ops.descriptors import NONE_LEFT

QUESTION_SECONDS = 0.1
CONNECTIONS_PER_SECOND = 64
STRANGERS_PER_SECOND = 1024  # taken and closed at 30 us each: 3 % of a core

Answer = Callable[[bytes, float], bytes]


class Responder:
    """Answers at ADDRESS:PORT. `attach` it to a poll object; then call `turn` with what poll() found. Raises
    SignalError where the port cannot be had."""

    def __init__(self, listen: str, allow: tuple[Network, ...], answer: Answer) -> None:
        self._allow, self._answer = allow, answer
        self._waiting: dict[int, tuple[socket.socket, float]] = {}
        self._poll: select.poll | None = None
        self._budget, self._strangers, self._budget_at = 0, 0, float("-inf")
        self._listens = False
        address, port = parse_endpoint(listen)
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        try:
            self._socket = socket.create_server((str(address), port), family=family, backlog=64)
        except OSError as error:
            reason = error.strerror.lower() if error.strerror else str(error)
            raise SignalError(f"agent_check.listen: {listen}: {reason}: `ss -lntp` shows who listens") from None
        self._socket.setblocking(False)
        self.port = int(self._socket.getsockname()[1])

    def attach(self, poll: select.poll) -> None:
        self._poll = poll
        self._listen(True)

    def owns(self, descriptor: int) -> bool:
        return descriptor in self._waiting or descriptor == self._socket.fileno()

    def due(self) -> float:
        """When `turn` wants to be called although nothing came."""
        deadlines = [deadline for _, deadline in self._waiting.values()]
        if not self._listens:
            deadlines.append(self._budget_at + 1)
        return min(deadlines, default=float("inf"))

    def turn(self, ready: list[int], now: float) -> None:
        for descriptor in ready:
            if descriptor == self._socket.fileno():
                self._accept(now)
            elif descriptor in self._waiting:
                self._reply(descriptor, now)
        for descriptor in [d for d, (_, deadline) in self._waiting.items() if now >= deadline]:
            self._reply(descriptor, now)
        if not self._listens and now >= self._budget_at + 1:
            self._listen(True)

    def close(self) -> None:
        for descriptor in list(self._waiting):
            self._drop(descriptor)
        if self._poll is not None:
            self._listen(False)
        self._socket.close()

    def _listen(self, wanted: bool) -> None:
        assert self._poll is not None
        if wanted and not self._listens:
            self._poll.register(self._socket, select.POLLIN)
        elif self._listens and not wanted:
            self._poll.unregister(self._socket)
        self._listens = wanted

    def _accept(self, now: float) -> None:
        assert self._poll is not None
        if now >= self._budget_at + 1:
            self._budget, self._strangers, self._budget_at = CONNECTIONS_PER_SECOND, STRANGERS_PER_SECOND, now
        while self._budget > 0 and self._strangers > 0:
            try:
                client, peer = self._socket.accept()
            except OSError as error:  # nobody more, or one that went before we came
                if error.errno in NONE_LEFT:
                    break  # whom we cannot take stays in the kernel's queue, and poll() would not wait any more
                return
            address = ip_address(peer[0].partition("%")[0])
            if not any(address in network for network in self._allow):
                self._strangers -= 1
                client.close()
                continue
            self._budget -= 1
            client.setblocking(False)
            self._waiting[client.fileno()] = (client, now + QUESTION_SECONDS)
            self._poll.register(client, select.POLLIN)
        self._listen(False)

    def _reply(self, descriptor: int, now: float) -> None:
        client = self._waiting[descriptor][0]
        with contextlib.suppress(OSError):  # one that went gets no answer
            try:
                question = client.recv(QUESTION_BYTES_MAX)
            except BlockingIOError:
                question = b""
            client.send(self._answer(question, now))
            client.shutdown(socket.SHUT_WR)
        self._drop(descriptor)

    def _drop(self, descriptor: int) -> None:
        client = self._waiting.pop(descriptor)[0]
        if self._poll is not None:
            self._poll.unregister(descriptor)
        client.close()
