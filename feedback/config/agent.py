"""agent.toml: what a real server's agent is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from feedback.config.strict import ConfigError, File, Strict, check_address, check_endpoint
from feedback.wire import Name

AGENT_PATH = Path("/etc/feedback/agent.toml")


class MasterLink(Strict, frozen=True):
    """Where the agent finds one master: its endpoint and the master's public key (40 characters, Z85)."""

    endpoint: str
    public_key: Annotated[str, msgspec.Meta(min_length=40, max_length=40)]


class AgentConfig(File, frozen=True):
    """A real server's agent. `addresses` are the RIPs it speaks for; `cgroup` is the directory of the cgroup that
    bounds the real server (the host if absent) and `service_cgroup` the one of the service inside it; `socket` is the
    datagram socket where applications speak."""

    name: Name
    addresses: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=64)]
    master: Annotated[tuple[MasterLink, ...], msgspec.Meta(min_length=1, max_length=16)]
    key: Path = Path("/etc/feedback/agent.key_secret")
    interval_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=60)] = 0.2
    idle_interval_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=600)] = 1.0
    cgroup: Path | None = None
    service_cgroup: Path | None = None
    ports: Annotated[tuple[int, ...], msgspec.Meta(max_length=64)] = ()
    socket: Path | None = None

    def check(self, source: str) -> None:
        for i, text in enumerate(self.addresses):
            check_address(text, f"{source}: addresses[{i}]")
        for i, link in enumerate(self.master):
            check_endpoint(link.endpoint, f"{source}: master[{i}].endpoint")
        for i, port in enumerate(self.ports):
            if not 1 <= port <= 65535:
                raise ConfigError(f"{source}: ports[{i}]: {port} is not in 1..65535")
        if self.service_cgroup is not None and self.cgroup is None:
            raise ConfigError(f"{source}: service_cgroup: needs cgroup, the directory that bounds it")
