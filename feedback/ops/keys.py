"""Key pairs and enrolments: which public key belongs to which agent, and for which addresses it may report.

Key files have zmq.auth's certificate format: `NAME.key` (public) and `NAME.key_secret` (0600). An enrolment is one TOML
file per agent in the enrolment directory, written atomically, so that adding and removing one never touches another. A
faulty enrolment keeps out only its own agent, so a revocation always takes effect. Secrets never appear in a repr, a
message or a log.

Source: zmq.auth.certs, RFC 26 (CurveZMQ), RFC 32 (Z85).
"""

from __future__ import annotations

import os
import pwd
import stat
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, NewType, Optional, TypeVar

import msgspec
import zmq
from zmq.utils import z85

from feedback.config.strict import ConfigError, convert
from feedback.endpoints import Address, parse_address
from feedback.ops import files, systemd
from feedback.refusals import RefusalError
from feedback.wire import Name

PublicKey = NewType("PublicKey", str)  # 40 characters, Z85
SecretKey = NewType("SecretKey", bytes)  # 40 characters, Z85; bytes, so that it is never formatted by accident

CREDENTIAL = "credential:"
DIRECTORY = Path("/etc/feedback")  # where the units look for their keys
DAEMON_USER = "feedback"  # of the units
# Why a file may not be read, and what to do. A credential's is systemd's own.
OWNED = "it must belong to the daemon's user: chown feedback {}"
MOUNTED = "systemd's mount for credentials does not reach this unit: in a container, run mount --make-rshared /"
CERTIFICATE_BYTES_MAX = 64 * 1024
TOKEN_SUFFIX = ".token"  # of a token that waits for its agent: tokens.py


class KeyFileError(RefusalError):
    """One line for the operator: the file, what was wrong, what to do."""


class KeyPair(msgspec.Struct, frozen=True):
    public: PublicKey
    secret: SecretKey

    def __repr__(self) -> str:
        return f"KeyPair({self.public})"


class Enrolment(msgspec.Struct, frozen=True):
    """An agent that may speak: its name, its key, and the RIPs it may speak for. `until` is when the key ends (seconds
    of the wall clock), if another one takes its place; the new key's first report ends it too."""

    name: str
    public_key: PublicKey
    addresses: frozenset[Address]
    until: Optional[int] = None


class Enrolments(msgspec.Struct, frozen=True):
    """A directory of them; `problems` has a line for each file that is refused."""

    by_key: dict[PublicKey, Enrolment]
    problems: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.by_key)


class NamedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name


class _EnrolmentFile(NamedFile, frozen=True):
    public_key: str
    addresses: list[str] = msgspec.field(default_factory=list)
    previous_key: Optional[str] = None
    previous_until: Annotated[int, msgspec.Meta(ge=0, le=2**40)] = 0


# Keys


def public_key(text: str) -> PublicKey:
    """Check a public key. Raises KeyFileError."""
    try:
        good = len(text) == 40 and len(z85.decode(text.encode("ascii"))) == 32
    except (KeyError, ValueError, struct.error):  # a sign that is none of Z85's, no ASCII, a group beyond 32 bits
        good = False
    if not good:
        raise KeyFileError(f"{text[:48]!r} is not a public key: expected 40 characters of Z85 (quote it in a shell)")
    return PublicKey(text)


def read_public(path: Path) -> PublicKey:
    """The public key out of a public or a secret file. Raises KeyFileError."""
    return public_key(_load(path, OWNED)[0].decode("ascii", "replace"))


def load_secret(path: Path) -> KeyPair:
    """The key pair of a secret file. `credential:NAME` is found in systemd's credentials. Raises KeyFileError."""
    found = locate(path)
    # The manager guards its credentials by ACL, which shows as group permission in the mode: not ours to judge.
    if found == path:
        refuse_exposed(found, f"`feedback keys new {_base(found)}` makes it")
    public, secret = _load(found, OWNED if found == path else MOUNTED)
    if secret is None:
        raise KeyFileError(f"{path}: holds only a public key: name the .key_secret file")
    try:
        derived = zmq.curve_public(secret)
    except (zmq.ZMQError, ValueError):
        raise KeyFileError(f"{path}: the secret key is malformed: make a new pair with `feedback keys new`") from None
    if derived != public:
        raise KeyFileError(f"{path}: public and secret key do not belong together: make a new pair")
    return KeyPair(public_key(public.decode("ascii")), SecretKey(secret))


def locate(path: Path) -> Path:
    """Resolve `credential:NAME`. Raises KeyFileError."""
    if not str(path).startswith(CREDENTIAL):
        return path
    name = str(path).removeprefix(CREDENTIAL)
    found = systemd.credential(name)
    if found is None:
        raise KeyFileError(f"{path}: no such credential: LoadCredential={name}:FILE in the unit passes it")
    return found


def refuse_exposed(path: Path, remedy: str) -> None:
    """Raises KeyFileError if the secret is not there (with the remedy) or others may read it."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        raise KeyFileError(f"{path}: no such file: {remedy}") from None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise KeyFileError(f"{path}: others may read this secret (mode {mode:04o}): chmod 600 {path}")


def _load(path: Path, permission: str) -> tuple[bytes, bytes | None]:
    """Raises KeyFileError; with what `permission` says where it may not be read."""
    try:
        with path.open("rb") as file:
            return _read_certificate(file.read(CERTIFICATE_BYTES_MAX))
    except PermissionError:
        raise KeyFileError(f"{path}: cannot be read: {permission.format(path)}") from None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from None
    except KeyError:
        raise KeyFileError(f"{path}: not a key file: expected what `feedback keys new` writes") from None


def _read_certificate(data: bytes) -> tuple[bytes, bytes | None]:
    """Its public and its secret key. zmq.auth reads the same, but brings logging along. Raises KeyError without one."""
    fields: dict[bytes, bytes] = {}
    for line in data.splitlines():
        name, equals, value = line.partition(b"=")
        if equals:
            fields.setdefault(name.strip(), value.strip(b" \t'\""))
    return fields[b"public-key"], fields.get(b"secret-key")


def secret_of(base: Path) -> Path:
    return base.with_name(base.name + ".key_secret")


def _base(path: Path) -> Path:
    """`/etc/feedback/agent.key_secret` and `/etc/feedback/agent.key` -> `/etc/feedback/agent`."""
    return path.with_suffix("") if path.suffix in {".key", ".key_secret"} else path


def create(path: Path) -> tuple[Path, Path, PublicKey]:
    """Make a pair: (public file, secret file, public key). Never overwrites. Raises KeyFileError."""
    base = _base(path)
    public, secret = base.with_name(base.name + ".key"), secret_of(base)
    for existing in (public, secret):
        if existing.exists():
            raise KeyFileError(f"{existing}: already exists: remove it first if its agent should lose its identity")
    import tempfile  # late, as zmq.auth: the agent's process makes no key

    import zmq.auth

    try:
        # A directory of mode 0700: zmq.auth writes the secret with the umask's mode, nobody may see it before chmod.
        with tempfile.TemporaryDirectory(dir=base.parent, prefix=".keys-") as directory:
            made_public, made_secret = zmq.auth.create_certificates(directory, base.name)
            Path(made_public).chmod(0o644)
            Path(made_secret).chmod(0o600)
            os.link(made_secret, secret)  # link, not rename: fails if somebody was faster
            os.link(made_public, public)
    except OSError as error:
        raise KeyFileError(f"{base}: cannot be written: {error.strerror}") from None
    return public, secret, read_public(public)


def give(secret: Path) -> bool:
    """The daemons' user owns the secret, where there is that user and we may; nobody else can read it either way.
    Returns whether it was given. Raises KeyFileError."""
    if os.geteuid() != 0:
        return False
    try:
        user = pwd.getpwnam(DAEMON_USER)
        with files.opened(secret) as descriptor:
            os.fchown(descriptor, user.pw_uid, user.pw_gid)
    except KeyError:
        return False
    except OSError as error:
        raise KeyFileError(f"{secret}: cannot be given to {DAEMON_USER}: {error.strerror}") from None
    return True


def give_in_place(secret: Path) -> bool:
    """The same for one that a unit reads where it is; what is made elsewhere stays with who made it."""
    return secret.parent.resolve() == DIRECTORY.resolve() and give(secret)


# Enrolments


def enroll(
    directory: Path, name: str, key: PublicKey, addresses: Iterable[str], *, previous_until: int | None = None
) -> Path:
    """Write an agent's enrolment, or replace the one of this name; with `previous_until` the key that it had stays good
    until then, so that there is no gap. Raises KeyFileError."""
    wanted = _enrolment(_EnrolmentFile(checked_name(name), key, list(addresses)), name)
    refuse_taken(directory, name, key, wanted.addresses)
    path = directory / f"{name}.toml"
    lines = [
        f'name = "{name}"',
        f'public_key = "{key}"',
        f"addresses = [{', '.join(chr(34) + str(a) + chr(34) for a in sorted(wanted.addresses, key=str))}]",
    ]
    if previous_until is not None and path.exists():
        before = read_enrolment(path)
        if before.public_key != key:
            lines += [f'previous_key = "{before.public_key}"', f"previous_until = {previous_until}"]
    return write_public(path, "\n".join(lines) + "\n")


def refuse_taken(directory: Path, name: str, key: PublicKey | None, addresses: frozenset[Address]) -> None:
    """Raises KeyFileError where another agent has the key or one of the addresses."""
    for other in enrolled(directory).by_key.values() if directory.is_dir() else ():
        if other.name != name and other.public_key == key:
            raise KeyFileError(f"{name}: this key is enrolled as {other.name}: each agent needs its own key")
        if other.name != name and other.addresses & addresses:
            shared = min(map(str, other.addresses & addresses))
            raise KeyFileError(f"{name}: {shared} is enrolled for {other.name}: revoke that first")


def revoke(directory: Path, name: str) -> Path:
    """Remove an agent's enrolment, and a token that would bring it back. Raises KeyFileError."""
    path = directory / f"{checked_name(name)}.toml"
    there = [p for p in (directory / f"{name}{TOKEN_SUFFIX}", path) if p.exists()]
    if not there:
        raise KeyFileError(f"{path}: no such enrolment: `feedback keys list` shows them")
    for found in there:
        try:
            found.unlink(missing_ok=True)
        except OSError as error:
            raise KeyFileError(f"{found}: cannot be removed: {error.strerror}") from None
    return there[-1]


def enrolled(directory: Path) -> Enrolments:
    """All enrolments. Raises KeyFileError if the directory cannot be read."""
    try:
        paths = sorted(p for p in directory.iterdir() if p.suffix == ".toml" and not p.name.startswith("."))
    except OSError as error:
        raise KeyFileError(f"{directory}: cannot be read: {error.strerror}: `feedback keys enroll` makes it") from None
    enrolments: dict[PublicKey, Enrolment] = {}
    owners: dict[Address, str] = {}
    problems: list[str] = []
    for path in paths:
        try:
            found = _read(path)
            for enrolment in found:
                _refuse_shared(enrolment, enrolments, owners, path)
        except KeyFileError as error:
            problems.append(str(error))
            continue
        enrolments |= {enrolment.public_key: enrolment for enrolment in found}
        owners.update(dict.fromkeys(found[0].addresses, found[0].name))
    return Enrolments(enrolments, tuple(problems))


def read_enrolment(path: Path) -> Enrolment:
    """One enrolment file: its present key. Raises KeyFileError."""
    return _read(path)[0]


def _read(path: Path) -> tuple[Enrolment, ...]:
    """The present key's, and the previous one's where it is good yet."""
    raw = read_file(path, _EnrolmentFile)
    present = _enrolment(raw, str(path))
    if raw.previous_key is None or raw.previous_key == raw.public_key:
        return (present,)
    before = _enrolment(msgspec.structs.replace(raw, public_key=raw.previous_key), f"{path}: previous_key")
    return present, msgspec.structs.replace(before, until=raw.previous_until)


F = TypeVar("F", bound="NamedFile")


def read_file(path: Path, kind: type[F]) -> F:
    """A file of the directory that is called as what it names. Raises KeyFileError."""
    try:
        found = convert(files.read(path), kind, str(path))
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise KeyFileError(f"{path}: cannot be read: {error}") from None
    except ConfigError as error:
        raise KeyFileError(str(error)) from None
    if path.stem != found.name:
        raise KeyFileError(f"{path}: name is {found.name!r}: expected the file's own, {path.stem!r}")
    return found


def _refuse_shared(
    enrolment: Enrolment, known: dict[PublicKey, Enrolment], owners: dict[Address, str], path: Path
) -> None:
    if enrolment.public_key in known:
        raise KeyFileError(f"{path}: public_key: already belongs to {known[enrolment.public_key].name}")
    for address in enrolment.addresses & owners.keys():
        raise KeyFileError(f"{path}: addresses: {address} already belongs to {owners[address]}")


def _enrolment(raw: _EnrolmentFile, where: str) -> Enrolment:
    if not raw.addresses:
        raise KeyFileError(f"{where}: addresses: expected at least one RIP")
    try:
        return Enrolment(raw.name, public_key(raw.public_key), rips(raw.addresses, where))
    except KeyFileError as error:
        raise error if str(error).startswith(where) else KeyFileError(f"{where}: public_key: {error}") from None


def rips(addresses: Iterable[str], where: str) -> frozenset[Address]:
    """Raises KeyFileError."""
    try:
        return frozenset(parse_address(text) for text in addresses)
    except ValueError as error:
        raise KeyFileError(f"{where}: addresses: {error}") from None


def checked_name(name: str) -> str:
    """The wire's rule for names; it also keeps a name from leaving the directory."""
    try:
        return msgspec.convert(name, Name)
    except msgspec.ValidationError:
        raise KeyFileError(f"{name!r} is not a valid name: letters, digits, '.', '_' and '-', at most 64") from None


def write_public(path: Path, text: str) -> Path:
    """Whole or not at all, for everybody to read: public keys only, and the master is another user. Raises
    KeyFileError."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        files.write(path, text)
    except OSError as error:
        raise KeyFileError(f"{path.parent}: cannot be written: {error.strerror}") from None
    return path
