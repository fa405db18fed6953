"""Configuration: one strict TOML file for each daemon. docs/configuration.md says what each key means.

Names are loaded when first used: an agent's package has neither the master's file nor the pair's.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feedback.config.agent import AGENT_PATH, AgentCheckConfig, AgentConfig, MasterLink
    from feedback.config.exporter import Exporter
    from feedback.config.failure import OnFailure, cuts, on_failure, removes, stand_ins
    from feedback.config.marking import marks
    from feedback.config.master import MASTER_PATH, Guards, MasterConfig
    from feedback.config.match import Match
    from feedback.config.service import (
        DestinationConfig,
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
    "Exporter",
    "Guards",
    "MasterConfig",
    "MasterLink",
    "Match",
    "OnFailure",
    "ServiceConfig",
    "SyncConfig",
    "cuts",
    "default_scheduler",
    "load",
    "marks",
    "on_failure",
    "parse",
    "removes",
    "service_key",
    "stand_ins",
    "to_destination",
    "to_service",
]


def __getattr__(name: str) -> object:
    rooms = ("strict", "agent", "exporter", "match", "service", "failure", "marking", "master", "sync")
    for room in rooms if name in __all__ else ():
        module = import_module(f"{__name__}.{room}")
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(f"{__name__} has no {name}")
