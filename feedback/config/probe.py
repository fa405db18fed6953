"""The master's probes of destinations: its own health checks, and agents that speak HAProxy's agent-check."""

from __future__ import annotations

from typing import Annotated

import msgspec

from feedback.config.strict import ConfigError, Port, Strict, check_word

Interval = Annotated[float, msgspec.Meta(ge=0.2, le=3600)]
Timeout = Annotated[float, msgspec.Meta(ge=0.05, le=60)]
Times = Annotated[int, msgspec.Meta(ge=1, le=100)]
Status = Annotated[int, msgspec.Meta(ge=100, le=599)]

Text = Annotated[str, msgspec.Meta(max_length=1024)]

KINDS = {"tcp", "tls", "udp", "dns", "http", "https", "exec"}
OWN = {  # keys that say something to these kinds only
    "command": {"exec"},
    "send": {"tcp", "tls", "udp"},
    "expect": {"tcp", "tls", "udp"},
    "quit": {"tcp", "tls"},
    "reply": {"udp"},
    "name": {"dns"},
    "record": {"dns"},
    "transport": {"dns"},
    "answer": {"dns"},
    "path": {"http", "https"},
    "host": {"http", "https", "tls"},
    "status": {"http", "https"},
    "body": {"http", "https"},
    "expiry_days": {"https", "tls"},
    "weight_header": {"http", "https"},
    "weight_json": {"http", "https"},
}


class Check(Strict, frozen=True):
    """Whether the service answers. `through` says by which way it is asked: at its `rip`, or as a client's packet
    travels, by the `service`. `port` is the destination's own if absent. For tcp, tls and udp: `send` and
    `expect`, a character a byte (U+0000 to U+00FF), the expected anywhere in the first 4 KiB, and `quit`, said before
    closing; for udp `reply` false: silence is good, a refusal is not. For dns: the `name` and `record` that is asked,
    over `transport`, and `answer`, one of the records as text. For http and https: `path`, `host` (the Host header, and
    the name in TLS), `status` (any of these), `body` (text that the first 64 KiB must contain), and where the server
    says its weight: `weight_header`, or `weight_json`, a JSON pointer (RFC 6901) into the body. For tls and https:
    `verify` (the certificate), `expiry_days` (so long before it expires there is a warning; 0: none). For exec:
    `command`, an absolute path and arguments, where {address} and {port} stand for the destination's; exit status 0 is
    good."""

    type: str = "tcp"
    through: str = "rip"
    port: Port | None = None
    interval_seconds: Interval = 2.0
    timeout_seconds: Timeout = 1.0
    rise: Times = 2
    fall: Times = 3
    send: Text = ""
    expect: Text = ""
    quit: Text = ""
    reply: bool = True
    name: Annotated[str, msgspec.Meta(max_length=255)] = ""
    record: Annotated[str, msgspec.Meta(pattern="^[A-Z0-9]{1,16}$")] = "A"
    transport: str = "udp"
    answer: Text = ""
    path: str = "/"
    host: str | None = None
    status: Annotated[tuple[Status, ...], msgspec.Meta(min_length=1, max_length=32)] = (200,)
    body: Text = ""
    verify: bool = False
    expiry_days: Annotated[int, msgspec.Meta(ge=0, le=365)] = 14
    command: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    weight_header: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{0,64}$")] = ""
    weight_json: Annotated[str, msgspec.Meta(max_length=256)] = ""

    @property
    def weighs(self) -> bool:
        """Whether a server says its weight in its answer."""
        return bool(self.weight_header or self.weight_json)

    @property
    def sent(self) -> bytes:
        return self.send.encode("latin-1")

    @property
    def expected(self) -> bytes:
        return self.expect.encode("latin-1")

    @property
    def parting(self) -> bytes:
        return self.quit.encode("latin-1")

    def check(self, where: str) -> None:
        """Raises ConfigError."""
        check_word(self.type, KINDS, f"{where}.type")
        check_word(self.through, {"rip", "service"}, f"{where}.through")
        if self.through == "service" and self.type == "exec":
            raise ConfigError(
                f"{where}.through: an exec program sends its own packets: they cannot go through the service"
            )
        for key, kinds in OWN.items():
            if self.type not in kinds and getattr(self, key) != _DEFAULTS[key]:
                told = " or ".join(f'"{kind}"' for kind in sorted(kinds))
                raise ConfigError(f"{where}.{key}: is for type = {told}")
        if self.type == "exec" and not (self.command and self.command[0].startswith("/")):
            raise ConfigError(f"{where}.command: exec needs one, with an absolute path first")
        for key in ("send", "expect", "quit"):
            if any(ord(sign) > 0xFF for sign in getattr(self, key)):
                raise ConfigError(f"{where}.{key}: {getattr(self, key)!r}: each character is a byte, up to U+00FF")
        if self.type == "udp" and not self.send:
            raise ConfigError(f"{where}.send: udp needs it: a server answers only a request")
        if not self.reply and self.expect:
            raise ConfigError(f"{where}.reply: with false nothing is expected: leave out expect")
        if self.type == "dns":
            self._check_dns(where)
        self._check_http(where)

    def _check_dns(self, where: str) -> None:
        check_word(self.transport, {"udp", "tcp"}, f"{where}.transport")
        try:
            from dns import exception, name, rdatatype
        except ImportError:
            raise ConfigError(f"{where}.type: dns needs dnspython: pip install 'lvs-feedback[director]'") from None
        if not self.name:
            raise ConfigError(f"{where}.name: dns needs it: the name to query")
        try:
            name.from_text(self.name)
            kind = rdatatype.from_text(self.record)
        except (exception.DNSException, ValueError) as error:
            raise ConfigError(f"{where}: {self.name!r}, {self.record!r}: cannot be queried: {error}") from None
        if rdatatype.is_metatype(kind):
            raise ConfigError(f"{where}.record: {self.record!r}: is no record type")

    def _check_http(self, where: str) -> None:
        for name in ("path", "host"):
            text = getattr(self, name) or ""
            if not text.isascii() or not text.isprintable() or " " in text:
                raise ConfigError(f"{where}.{name}: {text!r}: printable ASCII without spaces")
        if self.weight_header and self.weight_json:
            raise ConfigError(f"{where}.weight_json: a weight is in a header or in the body: leave one out")
        if self.weight_json and (not self.weight_json.startswith("/") or "\n" in self.weight_json):
            raise ConfigError(f"{where}.weight_json: {self.weight_json!r}: expected a JSON pointer, as /load/weight")
        if not self.path.startswith("/"):
            raise ConfigError(f"{where}.path: {self.path!r}: must begin with /")
        if self.verify and (self.type not in ("https", "tls") or not self.host):
            raise ConfigError(f"{where}.verify: needs type https or tls, and host: the name in the certificate")


_DEFAULTS = {field.name: field.default for field in msgspec.structs.fields(Check)}


class AgentSource(Strict, frozen=True):
    """Agents that speak HAProxy's agent-check on each real server; `send` is what they are asked with, if anything."""

    port: Port = 3333
    send: Annotated[str, msgspec.Meta(max_length=256)] = ""
    interval_seconds: Interval = 2.0
    timeout_seconds: Timeout = 1.0
