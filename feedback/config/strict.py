"""Shared by every configuration file: strict TOML -> types, and one-line errors that name file, key and remedy.

An unknown key, a wrong type or a value out of range is refused, and nothing is guessed. Reading the file is the only
I/O here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, TypeVar, Union

import msgspec

from feedback.config.refusal import readable
from feedback.endpoints import Address, parse_address, parse_endpoint
from feedback.refusals import RefusalError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Network = Union[IPv4Network, IPv6Network]

Positive = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


# Parts of a dotted key, bare or quoted: tomllib keeps each beginning of a key as a tuple, 12 MB for one of 3,400 bytes.
_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*"""
PARTS_MAX = 64
_LONG_KEY = re.compile(rf"(?<![\w-])(?:{_PART}){{{PARTS_MAX}}}")


class ConfigError(RefusalError):
    """One line for the operator: `FILE: KEY.PATH: what was wrong, what was expected`."""


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class File(Strict, frozen=True):
    """A whole file. `check` says what types alone cannot."""

    def check(self, source: str) -> None:
        """Raises ConfigError."""


C = TypeVar("C", bound=File)


def load(path: Path, kind: type[C]) -> C:
    """Read and check a file. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file: see examples/ for one to start from") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return parse(text, kind, source=str(path))


def parse(text: str, kind: type[C], source: str = "configuration") -> C:
    """TOML text -> checked configuration. Raises ConfigError."""
    config = convert(text, kind, source)
    config.check(source)
    return config


S = TypeVar("S", bound=msgspec.Struct)


def convert(text: str, kind: type[S], source: str) -> S:
    """TOML text -> types. Raises ConfigError, for whatever text."""
    if _LONG_KEY.search(text):
        raise ConfigError(f"{source}: not readable TOML: nested too deeply: a key has more than {PARTS_MAX} parts")
    try:
        return msgspec.convert(tomllib.loads(text), kind, dec_hook=_path_hook)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {readable(str(error), kind)}") from None
    except ValueError as error:  # tomllib's own, and int()'s of a number with thousands of digits
        quotes = ": a string needs quotes" if str(error).startswith("Invalid value") else ""
        raise ConfigError(f"{source}: not TOML: {error}{quotes}") from None
    except RecursionError:
        raise ConfigError(f"{source}: not readable TOML: nested too deeply") from None


def _path_hook(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"Expected a path as a string, got {type(value).__name__}")


def check_address(text: str, where: str) -> Address:
    """No scope behind a `%`: it is any text at all, and IPVS knows none."""
    try:
        return parse_address(text)
    except ValueError:
        raise ConfigError(f"{where}: {text!r} is not an IPv4 or IPv6 address") from None


def check_word(word: str, words: Iterable[str], where: str) -> None:
    if word not in set(words):
        raise ConfigError(f"{where}: {word!r}: expected one of {', '.join(sorted(words))}")


def check_endpoint(endpoint: str, where: str) -> None:
    scheme, _, rest = endpoint.partition("://")
    if scheme != "tcp":
        raise ConfigError(f"{where}: {endpoint!r}: expected tcp://ADDRESS:PORT")
    try:
        parse_endpoint(rest)
    except ValueError as error:
        raise ConfigError(f"{where}: {endpoint!r}: expected tcp://ADDRESS:PORT: {error}") from None


def check_listen(text: str, where: str) -> None:
    """ADDRESS:PORT to listen at."""
    try:
        parse_endpoint(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None


def check_network(text: str, where: str) -> Network:
    """An address or a network in CIDR form."""
    try:
        return ip_network(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}: expected an address or a network like 10.0.1.0/24") from None
