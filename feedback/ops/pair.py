"""The pair's secret: one file, the same on both directors, from which every key between them is derived.

Each director trusts the other with everything, so separate keys would protect nothing; one file is copied once, and
nothing else is exchanged. The file holds 40 characters of Z85 and a comment. Derivation is BLAKE2b with a label for
each purpose: what is said with one key says nothing of another.

Source: RFC 7693 (BLAKE2, keyed and personalised), RFC 32 (Z85), RFC 26 (CurveZMQ).
"""

from __future__ import annotations

import os
import struct
from hashlib import blake2b
from pathlib import Path

import zmq
from zmq.utils import z85

from feedback.ops.keys import KeyFileError, KeyPair, SecretKey, locate, public_key, refuse_exposed

_COMMENT = "# lvs-feedback: the secret of a director pair. The same file on both; nobody else may read it.\n"


class PairSecret:
    """32 bytes that never show in a repr or a message."""

    __slots__ = ("_bytes",)

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise ValueError("a pair's secret has 32 bytes")
        self._bytes = secret

    def __repr__(self) -> str:
        return "PairSecret(...)"

    def derive(self, purpose: str) -> bytes:
        """32 bytes for one purpose."""
        return blake2b(purpose.encode(), key=self._bytes, digest_size=32, person=b"lvs-feedback").digest()

    def director(self, name: str) -> KeyPair:
        """The CURVE key pair of the director `name`; both can make both."""
        secret = z85.encode(self.derive(f"director {name}"))
        return KeyPair(public_key(zmq.curve_public(secret).decode("ascii")), SecretKey(secret))


def create(path: Path) -> Path:
    """Make a new secret. Never overwrites. Raises KeyFileError."""
    text = _COMMENT + z85.encode(os.urandom(32)).decode("ascii") + "\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise KeyFileError(f"{path}: already exists: remove it on both directors for a new one") from None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def load(path: Path) -> PairSecret:
    """Read the secret; `credential:NAME` is found in systemd's credentials. Raises KeyFileError."""
    found = locate(path)
    if found == path:
        refuse_exposed(found, "`feedback keys pair` makes it; copy it to the other director")
    try:
        lines = [line.strip() for line in found.read_text(encoding="ascii").splitlines()]
        (text,) = [line for line in lines if line and not line.startswith("# ")]
        return PairSecret(z85.decode(text.encode("ascii")))
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, struct.error):
        raise KeyFileError(f"{path}: not a pair's secret: expected what `feedback keys pair` writes") from None
