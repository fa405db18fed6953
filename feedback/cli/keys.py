"""`feedback keys`: key pairs, and which agents a master hears. What it does lives in feedback.ops.keys."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from feedback.cli.errors import Failure

if TYPE_CHECKING:
    from feedback.ops.keys import PublicKey

DIRECTORY = "/etc/feedback/agents"

_directory = click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=DIRECTORY,
    show_default=True,
    help="The enrolment directory: the master's `enrolled`.",
)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON value on standard output.")


@click.group()
def keys() -> None:
    """Make keys, and enroll agents with a master.

    \b
    On each real server:   feedback keys new /etc/feedback/agent
    On the director:       feedback keys new /etc/feedback/master
                           feedback keys enroll rs1 --key 'PUBLIC' --rip 10.0.0.11
                           systemctl reload feedback-master

    A public key is 40 characters with signs that a shell knows: quote it, or give the .key file instead.
    """


@keys.command()
@click.argument("path", type=click.Path(path_type=Path))
def new(path: Path) -> None:
    """Make a key pair: PATH.key (public) and PATH.key_secret (mode 0600). Prints the public key."""
    from feedback.ops import keys as store

    with _one_line():
        public, secret, key = store.create(path)
    click.echo(f"{secret}: secret, stays here; {public}: public", err=True)
    click.echo(key)


@keys.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("/etc/feedback/pair.key"))
def pair(path: Path) -> None:
    """Make the secret of a director pair: PATH (mode 0600). Copy it to the other director; there is nothing else."""
    from feedback.ops import pair as store

    with _one_line():
        made = store.create(path)
    click.echo(f"{made}: secret: copy it to the other director, and to nobody else", err=True)


@keys.command()
@click.argument("path", type=click.Path(path_type=Path))
@_json
def show(path: Path, as_json: bool) -> None:
    """Print the public key of a public or a secret key file."""
    from feedback.ops import keys as store

    with _one_line():
        key = store.read_public(store.locate(path))
    click.echo(json.dumps({"path": str(path), "public_key": key}) if as_json else key)


@keys.command()
@click.argument("name")
@click.option("--key", "key", required=True, metavar="PUBLIC", help="The agent's public key, or its .key file.")
@click.option(
    "--rip", "addresses", required=True, multiple=True, metavar="ADDRESS", help="A RIP it may speak for; repeatable."
)
@_directory
def enroll(name: str, key: str, addresses: tuple[str, ...], directory: Path) -> None:
    """Let agent NAME speak for its RIPs; replaces what NAME was enrolled with. The master hears of it on reload."""
    from feedback.ops import keys as store

    with _one_line():
        written = store.enroll(directory, name, _public_key(key), addresses)
    click.echo(f"{written}: {name} may speak for {', '.join(addresses)}; `systemctl reload feedback-master` tells it")


@keys.command()
@click.argument("name")
@_directory
def revoke(name: str, directory: Path) -> None:
    """Remove agent NAME's enrolment. The master stops hearing it on reload."""
    from feedback.ops import keys as store

    with _one_line():
        removed = store.revoke(directory, name)
    click.echo(f"{removed}: removed; `systemctl reload feedback-master` tells the master")


@keys.command("list")
@_directory
@_json
def list_(directory: Path, as_json: bool) -> None:
    """List the enrolled agents. Exit 1 if an enrolment is refused; it is named on standard error."""
    from feedback.ops import keys as store

    with _one_line():
        enrolments = store.enrolled(directory)
    found = [
        {"name": e.name, "public_key": e.public_key, "addresses": sorted(map(str, e.addresses))}
        for e in sorted(enrolments.by_key.values(), key=lambda e: e.name)
    ]
    if as_json:
        click.echo(json.dumps(found))
    else:
        for row in found:
            click.echo(f"{row['name']:<20} {row['public_key']}  {' '.join(row['addresses'])}")
    for problem in enrolments.problems:
        click.echo(problem, err=True)
    sys.exit(1 if enrolments.problems else 0)


def _public_key(text: str) -> PublicKey:
    from feedback.ops import keys as store

    path = Path(text)
    return store.read_public(path) if path.suffix in {".key", ".key_secret"} else store.public_key(text)


@contextmanager
def _one_line() -> Iterator[None]:
    """An error for the operator is one line and exit code 1."""
    from feedback.ops.keys import KeyFileError

    try:
        yield
    except KeyFileError as error:
        raise Failure(str(error)) from None
