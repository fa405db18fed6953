"""Configuration: one file for each daemon, TOML, strict. What a key means is said in docs/configuration.md."""

from feedback.config.agent import AGENT_PATH, AgentCheckConfig, AgentConfig, MasterLink
from feedback.config.master import (
    MASTER_PATH,
    DestinationConfig,
    Guards,
    MasterConfig,
    ServiceConfig,
    default_scheduler,
    service_key,
    to_destination,
    to_service,
)
from feedback.config.strict import ConfigError, load, parse
from feedback.config.sync import SYNC_PATH, SyncConfig

__all__ = [
    "AGENT_PATH",
    "MASTER_PATH",
    "SYNC_PATH",
    "AgentCheckConfig",
    "AgentConfig",
    "ConfigError",
    "DestinationConfig",
    "Guards",
    "MasterConfig",
    "MasterLink",
    "ServiceConfig",
    "SyncConfig",
    "default_scheduler",
    "load",
    "parse",
    "service_key",
    "to_destination",
    "to_service",
]
