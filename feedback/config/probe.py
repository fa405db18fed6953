"""What the master asks about destinations: its own health checks, and agents that speak HAProxy's agent-check."""

from __future__ import annotations

from typing import Annotated

import msgspec

from feedback.config.strict import ConfigError, Port, Strict, check_word

Interval = Annotated[float, msgspec.Meta(ge=0.2, le=3600)]
Timeout = Annotated[float, msgspec.Meta(ge=0.05, le=60)]
Times = Annotated[int, msgspec.Meta(ge=1, le=100)]
Status = Annotated[int, msgspec.Meta(ge=100, le=599)]

KINDS = {"tcp", "http", "https", "exec"}


class Check(Strict, frozen=True):
    """Whether the service answers. `port` is the destination's own if absent. For http and https: `path`, `host` (the
    Host header, and the name in TLS), `status` (any of these), `body` (text that the first 64 KiB must contain),
    `verify` (the certificate). For exec: `command`, an absolute path and arguments, where {address} and {port} stand
    for the destination's; exit status 0 is good."""

    type: str = "tcp"
    port: Port | None = None
    interval_seconds: Interval = 2.0
    timeout_seconds: Timeout = 1.0
    rise: Times = 2
    fall: Times = 3
    path: str = "/"
    host: str | None = None
    status: Annotated[tuple[Status, ...], msgspec.Meta(min_length=1, max_length=32)] = (200,)
    body: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    verify: bool = False
    command: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()

    def check(self, where: str) -> None:
        """Raises ConfigError."""
        check_word(self.type, KINDS, f"{where}.type")
        if self.type == "exec" and not (self.command and self.command[0].startswith("/")):
            raise ConfigError(f"{where}.command: exec needs one, with an absolute path first")
        if self.type != "exec" and self.command:
            raise ConfigError(f'{where}.command: is for type = "exec"')
        for name in ("path", "host"):
            text = getattr(self, name) or ""
            if not text.isascii() or not text.isprintable() or " " in text:
                raise ConfigError(f"{where}.{name}: {text!r}: printable ASCII without spaces")
        if not self.path.startswith("/"):
            raise ConfigError(f"{where}.path: {self.path!r}: must begin with /")
        if self.verify and (self.type != "https" or not self.host):
            raise ConfigError(f"{where}.verify: needs type https, and host: the name in the certificate")


class AgentSource(Strict, frozen=True):
    """Agents that speak HAProxy's agent-check on each real server; `send` is what they are asked with, if anything."""

    port: Port = 3333
    send: Annotated[str, msgspec.Meta(max_length=256)] = ""
    interval_seconds: Interval = 2.0
    timeout_seconds: Timeout = 1.0
