"""Roles: the common settings of a group of agents, in one file on the director, /etc/feedback/roles/NAME.toml.

A token carries it to each server of the group (tokens.py), and a join there makes agent.toml of it (joining.py). The
token carries text newly written here from the parsed file, and the other side parses it as strictly: no line of the
operator's file, nor a comment, ever reaches a server.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from feedback.config.agent import Role
from feedback.config.strict import ConfigError, parse
from feedback.endpoints import format_endpoint, parse_address
from feedback.ops import files
from feedback.ops.keys import KeyFileError, checked_name

DIRECTORY = Path("/etc/feedback/roles")
TEXT_MAX = 8192  # characters; a message of the master's may have twice as many bytes


def read(directory: Path, name: str) -> str:
    """The settings of a role, as they are sent. Raises KeyFileError."""
    path = directory / f"{checked_name(name)}.toml"
    try:
        text = text_of(parse(files.read(path), Role, str(path)))
    except FileNotFoundError:
        raise KeyFileError(f"{path}: no such role: write its agents' common settings into this file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except ConfigError as error:
        raise KeyFileError(str(error)) from None
    if not text.replace("\n", "").isprintable():
        raise KeyFileError(f"{path}: has something that cannot be printed")
    if len(text) > TEXT_MAX:
        raise KeyFileError(f"{path}: too long: {len(text)} characters, at most {TEXT_MAX} can be sent")
    return text


def settings(text: str, address: str) -> str:
    """What agent.toml of the server at `address` has of a role. Raises ConfigError for what no role says."""
    role = parse(text, Role, "role")
    if role.agent_check is not None and role.agent_check.listen.startswith(":"):
        port = int(role.agent_check.listen[1:])
        listen = format_endpoint(parse_address(address), port)
        role = msgspec.structs.replace(role, agent_check=msgspec.structs.replace(role.agent_check, listen=listen))
    return text_of(role)


def text_of(role: Role) -> str:
    """The role as TOML, without values that are the default."""
    default: dict[str, Any] = msgspec.to_builtins(Role(), enc_hook=str)
    said: dict[str, Any] = msgspec.to_builtins(role, enc_hook=str)
    table = said.pop("agent_check")
    lines = [_line(name, value) for name, value in said.items() if value != default[name]]
    if table is not None:
        lines += ["", "[agent_check]", *(_line(name, value) for name, value in table.items())]
    return "".join(f"{line}\n" for line in lines)


def _line(name: str, value: object) -> str:
    """Strings, numbers and lists are in TOML as in JSON."""
    return f"{name} = {json.dumps(value, ensure_ascii=False)}"
