"""agent.toml: the configuration of a real server's agent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional, Union

import msgspec

from feedback.config.strict import (
    ConfigError,
    File,
    Network,
    Strict,
    check_address,
    check_endpoint,
    check_listen,
    check_network,
)
from feedback.wire import Name

AGENT_PATH = Path("/etc/feedback/agent.toml")


class MasterLink(Strict, frozen=True):
    """Where the agent finds one master: its endpoint and the master's public key (40 characters, Z85)."""

    endpoint: str
    public_key: Annotated[str, msgspec.Meta(min_length=40, max_length=40)]


class AgentCheckConfig(Strict, frozen=True):
    """Where HAProxy's agent-check is answered: an explicit address (3333 is the usual port), and who may ask, since the
    protocol has no authentication."""

    listen: str
    allow: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=64)]
    smoothing_seconds: Annotated[float, msgspec.Meta(ge=0.2, le=60)] = 3.0

    def networks(self) -> tuple[Network, ...]:
        return tuple(check_network(text, f"agent_check.allow[{i}]") for i, text in enumerate(self.allow))


class AgentSettings(File, frozen=True):
    """The settings that agents may share. `cgroup` is the directory of the cgroup that bounds the real server (the host
    if absent) and `service_cgroup` the one of the service inside it, or a list of all that work for it; `socket` is the
    datagram socket where applications speak, and `sessions` the directory where they read what is known of the sessions
    of servers for which this one stands in. `signals` is `portable` where only those of psutil are wanted."""

    interval_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=60)] = 0.2
    idle_interval_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=600)] = 1.0
    cgroup: Optional[Path] = None
    service_cgroup: Union[str, Annotated[tuple[str, ...], msgspec.Meta(max_length=16)]] = ()
    ports: Annotated[tuple[int, ...], msgspec.Meta(max_length=64)] = ()
    socket: Optional[Path] = None
    sessions: Optional[Path] = None
    signals: Literal["auto", "portable"] = "auto"
    agent_check: Optional[AgentCheckConfig] = None

    def services(self) -> tuple[Path, ...]:
        """The cgroups of the service; empty where they are not known."""
        texts = (self.service_cgroup,) if isinstance(self.service_cgroup, str) else self.service_cgroup
        return tuple(Path(text) for text in texts)

    def check(self, source: str) -> None:
        for i, port in enumerate(self.ports):
            if not 1 <= port <= 65535:
                raise ConfigError(f"{source}: ports[{i}]: {port} is not in 1..65535")
        self._check_services(source)
        if self.signals == "portable" and (self.cgroup is not None or self.services()):
            raise ConfigError(f"{source}: signals: portable ones have no cgroup: leave out cgroup and service_cgroup")
        if self.sessions is not None and not self.sessions.is_absolute():
            raise ConfigError(f"{source}: sessions: {str(self.sessions)!r}: expected an absolute path")
        if self.agent_check is not None:
            self._check_listen(self.agent_check.listen, f"{source}: agent_check.listen")
            for i, text in enumerate(self.agent_check.allow):
                check_network(text, f"{source}: agent_check.allow[{i}]")

    def _check_listen(self, listen: str, where: str) -> None:
        check_listen(listen, where)

    def _check_services(self, source: str) -> None:
        """Each is one of its own: what is inside another would count twice."""
        services = self.services()
        for i, path in enumerate(services):
            if not path.is_absolute():
                raise ConfigError(f"{source}: service_cgroup: {str(path)!r}: expected an absolute path")
            for other in services[:i]:
                if path == other or path in other.parents or other in path.parents:
                    raise ConfigError(f"{source}: service_cgroup: {path} and {other} overlap: name the outer one only")


class AgentConfig(AgentSettings, frozen=True, kw_only=True):
    """A real server's agent. `addresses` are the RIPs it speaks for."""

    name: Name
    addresses: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=64)]
    master: Annotated[tuple[MasterLink, ...], msgspec.Meta(min_length=1, max_length=16)]
    key: Path = Path("/etc/feedback/agent.key_secret")

    def check(self, source: str) -> None:
        for i, text in enumerate(self.addresses):
            check_address(text, f"{source}: addresses[{i}]")
        for i, link in enumerate(self.master):
            check_endpoint(link.endpoint, f"{source}: master[{i}].endpoint")
        super().check(source)


class Role(AgentSettings, frozen=True):
    """The common settings of a group of agents, from the director's file. `agent_check.listen` may be `:PORT`: that
    of the first RIP of each."""

    def _check_listen(self, listen: str, where: str) -> None:
        check_listen(f"0.0.0.0{listen}" if listen.startswith(":") else listen, where)
