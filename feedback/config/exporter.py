"""How the master reads a server's metrics exporter where no agent of ours may run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec

from feedback.config.strict import ConfigError, Port, Positive, Strict, check_word

# Only what is read is asked for. All of node_exporter's are on by default; of windows_exporter's, `tcp` is not.
NODE_PATH = "/metrics?" + "&".join(
    f"collect[]={name}" for name in ("cpu", "meminfo", "netstat", "pressure", "stat", "time", "vmstat")
)
WINDOWS_PATH = "/metrics?" + "&".join(f"collect[]={name}" for name in ("cpu", "memory", "system", "tcp"))
PATHS = {"node": NODE_PATH, "windows": WINDOWS_PATH, "custom": "/metrics"}
PORTS = {"node": 9100, "windows": 9182, "custom": 0}

Series = Annotated[str, msgspec.Meta(max_length=256)]
SERIES = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(\{[^{}]*\})?")


class Exporter(Strict, frozen=True):
    """A page in Prometheus' text format on each real server, read by the master itself. `node` is node_exporter's,
    `windows` windows_exporter's. `custom` is any page that tells how full its server is: either `gauge` and its `limit`
    (a number, or another gauge), or two cumulative counters, `busy` and `total`, of which the growth of one is a part
    of the other's. A series is a name, with labels if several have that name: `sessions{proxy="app"}`; what fits is
    added up. `host` is the Host header and the TLS name."""

    kind: str = "node"
    port: Port | None = None
    path: str | None = None
    host: str | None = None
    tls: bool = False
    verify: bool = True
    ca: Path | None = None
    username: Annotated[str, msgspec.Meta(max_length=256)] = ""
    password_file: Path | None = None
    interval_seconds: Annotated[float, msgspec.Meta(ge=1, le=60)] = 1.0
    timeout_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=30)] = 1.0
    gauge: Series = ""
    limit: Series | Positive | None = None
    busy: Series = ""
    total: Series = ""

    @property
    def asked_path(self) -> str:
        return self.path or PATHS[self.kind]

    @property
    def asked_port(self) -> int:
        return self.port or PORTS[self.kind]

    def check(self, where: str) -> None:
        """Raises ConfigError."""
        check_word(self.kind, PATHS, f"{where}.kind")
        if not self.asked_port:
            raise ConfigError(f"{where}.port: custom needs one")
        for name in ("path", "host"):
            text = getattr(self, name) or ""
            if not text.isascii() or not text.isprintable() or " " in text:
                raise ConfigError(f"{where}.{name}: {text!r}: printable ASCII without spaces")
        if not self.asked_path.startswith("/"):
            raise ConfigError(f"{where}.path: {self.path!r}: must begin with /")
        if self.ca is not None and not (self.tls and self.verify):
            raise ConfigError(f"{where}.ca: is for tls = true and verify = true")
        self._check_password(where)
        self._check_custom(where)

    def _check_password(self, where: str) -> None:
        if bool(self.username) != (self.password_file is not None):
            raise ConfigError(f"{where}: username and password_file belong together")
        if ":" in self.username or not self.username.isprintable():
            raise ConfigError(f"{where}.username: {self.username!r}: printable, without a colon")

    def _check_custom(self, where: str) -> None:
        level, counted = bool(self.gauge or self.limit is not None), bool(self.busy or self.total)
        if self.kind != "custom":
            if level or counted:
                raise ConfigError(f'{where}: gauge, limit, busy and total are for kind = "custom"')
            return
        if level == counted:
            raise ConfigError(f"{where}: custom needs gauge and limit, or busy and total")
        if level and not (self.gauge and self.limit):
            raise ConfigError(f"{where}: gauge and limit belong together")
        if counted and not (self.busy and self.total):
            raise ConfigError(f"{where}: busy and total belong together")
        for name in ("gauge", "limit", "busy", "total"):
            text = getattr(self, name)
            if text and isinstance(text, str) and not SERIES.fullmatch(text):
                raise ConfigError(f'{where}.{name}: {text!r}: expected NAME or NAME{{label="value"}}')
