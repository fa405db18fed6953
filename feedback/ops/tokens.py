"""Tokens: how a real server is enrolled without copying keys by hand.

A token is a text for the real server's administrator: the secret of a one-time CURVE key, and the master's public key,
so that the joining side can verify the master. The director keeps `NAME.token` beside the enrolments, with the one-time
key's public half only, the name, the RIPs and an end. With that key only `wire.Join` can be sent; the first to send it
gets NAME's place, and the file is removed before the enrolment is written: a token works once, or not at all.

Invariant: what a token enrolls is the name and the RIPs that the director wrote down, whatever the joining side says.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Annotated

import msgspec
import zmq
from zmq.utils import z85

from feedback.config.strict import ConfigError, convert
from feedback.endpoints import Address
from feedback.ops import files, keys
from feedback.ops.keys import TOKEN_SUFFIX, KeyFileError, KeyPair, NamedFile, PublicKey, SecretKey

PREFIX = "feedback-join-"
OVERLAP_SECONDS = 3600  # how long a key is good beside the one that takes its place
PENDING_MAX = 1000  # tokens that are read; more of them are a mistake, or somebody's joke
_CHECK_BYTES = 4
USED = "the token was used or revoked"


class Token(msgspec.Struct, frozen=True):
    """The token as the joining side holds it."""

    pair: KeyPair
    master: PublicKey


class Pending(msgspec.Struct, frozen=True):
    """The token as the director knows it. `expires_at` is in seconds of the wall clock."""

    name: str
    public_key: PublicKey
    addresses: frozenset[Address]
    expires_at: int
    path: Path
    role: str = ""
    settings: str = ""  # of that role, for the answer to who joins


class _File(NamedFile, frozen=True):
    public_key: str
    addresses: Annotated[list[str], msgspec.Meta(min_length=1, max_length=64)]
    expires_at: Annotated[int, msgspec.Meta(ge=0, le=2**40)]
    role: Annotated[str, msgspec.Meta(max_length=64)] = ""
    settings: Annotated[str, msgspec.Meta(max_length=8192)] = ""


def issue(
    directory: Path,
    name: str,
    addresses: Iterable[str],
    master: PublicKey,
    expires_at: int,
    role: str = "",
    settings: str = "",
) -> str:
    """Make a token for NAME, in place of an older one: the text to hand over. `settings` are those of its role, as
    roles.py reads them. Raises KeyFileError."""
    keys.checked_name(name)
    wanted = keys.rips(addresses, name)
    if not wanted:
        raise KeyFileError(f"{name}: at least one RIP is needed")
    keys.refuse_taken(directory, name, None, wanted)
    public, secret = zmq.curve_keypair()
    lines = [
        f'name = "{name}"',
        f'public_key = "{public.decode("ascii")}"',
        f"addresses = [{', '.join(chr(34) + str(a) + chr(34) for a in sorted(wanted, key=str))}]",
        f"expires_at = {expires_at}",
    ]
    if role:
        lines += [f'role = "{keys.checked_name(role)}"', f"settings = {json.dumps(settings, ensure_ascii=False)}"]
    keys.write_public(directory / f"{name}{TOKEN_SUFFIX}", "\n".join(lines) + "\n")
    return _text(z85.decode(secret) + z85.decode(master.encode("ascii")))


def _text(body: bytes) -> str:
    return PREFIX + base64.urlsafe_b64encode(body + _checksum(body)).decode("ascii").rstrip("=")


def read(text: str) -> Token:
    """Raises KeyFileError; the text itself is never told, it is a secret."""
    try:
        raw = base64.b64decode(text.strip().removeprefix(PREFIX) + "=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    body = raw[:64]
    if len(body) != 64 or text.strip() != _text(body):
        raise KeyFileError(f"not a complete token: a token begins with {PREFIX} and has 105 characters")
    secret = z85.encode(body[:32])
    public = keys.public_key(zmq.curve_public(secret).decode("ascii"))
    return Token(KeyPair(public, SecretKey(secret)), keys.public_key(z85.encode(body[32:]).decode("ascii")))


def _checksum(body: bytes) -> bytes:
    return blake2b(body, digest_size=_CHECK_BYTES, person=b"lvs-feedback").digest()


def pending(directory: Path, now: float) -> tuple[dict[str, Pending], tuple[str, ...]]:
    """The tokens that are valid at `now` (wall clock), by public key; and a line for each file that is refused."""
    found: dict[str, Pending] = {}
    problems: list[str] = []
    try:
        paths = sorted(p for p in directory.iterdir() if p.suffix == TOKEN_SUFFIX and not p.name.startswith("."))
    except OSError:
        return {}, ()  # the enrolments are in the same directory: who reads those will say it
    for path in paths[:PENDING_MAX]:
        try:
            made = read_pending(path)
        except KeyFileError as error:
            problems.append(str(error))
            continue
        if now < made.expires_at:
            found[made.public_key] = made
    return found, tuple(problems)


def read_pending(path: Path) -> Pending:
    """Raises KeyFileError."""
    return _made(keys.read_file(path, _File), path)


def _made(raw: _File, path: Path) -> Pending:
    addresses = keys.rips(raw.addresses, str(path))
    key = keys.public_key(raw.public_key)
    return Pending(
        raw.name, key, addresses, raw.expires_at, path, raw.role and keys.checked_name(raw.role), raw.settings
    )


def redeem(waiting: Pending, key: PublicKey, now: float) -> None:
    """Enroll `key` in the token's place; a key that NAME has already stays good for an hour. Raises KeyFileError.

    What is good is the file that is there now, not what was read when its holder connected: the token may have been
    taken back since, or another one made. It is claimed before it is believed, so that of two that come at once one has
    it, and it is that one's.
    """
    if key == waiting.public_key:
        raise KeyFileError("a token works once: make another")
    _check(waiting, waiting.path, now)
    keys.refuse_taken(waiting.path.parent, waiting.name, key, waiting.addresses)
    try:
        private = files.claim(waiting.path)
    except FileNotFoundError:
        raise KeyFileError(USED) from None
    except OSError as error:
        raise KeyFileError(
            f"this master may not write its enrolments ({error.strerror}): enroll by hand: feedback keys enroll"
        ) from None
    try:
        _check(waiting, private, now)
    except KeyFileError:
        files.put_back(private, waiting.path)
        raise
    files.discard(private)
    addresses = [str(a) for a in waiting.addresses]
    keys.enroll(waiting.path.parent, waiting.name, key, addresses, previous_until=int(now) + OVERLAP_SECONDS)


def _check(waiting: Pending, path: Path, now: float) -> None:
    """Whether the file at `path` is this very token, and good. Raises KeyFileError."""
    if now >= waiting.expires_at:
        raise KeyFileError("the token has expired")
    try:
        there = _made(convert(files.read(path), _File, str(path)), waiting.path)
    except FileNotFoundError:
        raise KeyFileError(USED) from None
    except (OSError, UnicodeDecodeError, ConfigError) as error:
        raise KeyFileError(f"the token can no longer be read: {error}") from None
    if there != waiting:
        raise KeyFileError("another token has replaced this one")
