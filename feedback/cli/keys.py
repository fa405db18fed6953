"""`feedback keys`: key pairs, and which agents a master hears. feedback.ops.keys does the work."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from feedback.cli.duration import Duration
from feedback.cli.errors import Failure
from feedback.cli.telling import told

if TYPE_CHECKING:
    from feedback.ops.keys import PublicKey

DIRECTORY = "/etc/feedback/agents"
MASTER_KEY = "/etc/feedback/master.key"
AGENT_KEY = "/etc/feedback/agent"
ROLES = "/etc/feedback/roles"
TOKEN_CHARACTERS_MAX = 1000

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
    With a token:
    On the director:       feedback keys token rs1 --rip 10.0.0.11
    On the real server:    feedback keys join --master tcp://DIRECTOR:7433

    \b
    By hand:
    On each real server:   feedback keys new /etc/feedback/agent
    On the director:       feedback keys enroll rs1 --key 'PUBLIC' --rip 10.0.0.11
                           systemctl reload feedback-master

    The director itself needs a key once: feedback keys new /etc/feedback/master.

    A public key is 40 characters, some of them special to a shell: quote it, or give the .key file instead.
    """


@keys.command()
@click.argument("path", type=click.Path(path_type=Path))
def new(path: Path) -> None:
    """Make a key pair: PATH.key (public) and PATH.key_secret (mode 0600). Prints the public key.

    Files that root makes in /etc/feedback belong to the daemons' user, feedback, if it exists.
    """
    from feedback.ops import keys as store

    with _one_line():
        public, secret, key = store.create(path)
        given = store.give_in_place(secret)
    click.echo(f"{secret}: secret, stays here{_owned(given)}; {public}: public", err=True)
    click.echo(key)


@keys.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path("/etc/feedback/pair.key"))
def pair(path: Path) -> None:
    """Make the secret of a director pair: PATH (mode 0600). Copy it to the other director; nothing else is needed.

    Files that root makes in /etc/feedback belong to the daemons' user, feedback, if it exists: keep that in the copy.
    """
    from feedback.ops import keys as files
    from feedback.ops import pair as store

    with _one_line():
        made = store.create(path)
        given = files.give_in_place(made)
    click.echo(f"{made}: secret{_owned(given)}: copy it to the other director, and to nobody else", err=True)


@keys.command()
@click.argument("path", type=click.Path(path_type=Path))
@_json
def show(path: Path, as_json: bool) -> None:
    """Print the public key of a public or a secret key file."""
    from feedback.ops import keys as store

    with _one_line():
        key = store.read_public(store.locate(path))
    if as_json:
        told({"path": str(path), "public_key": key})
    else:
        click.echo(key)


@keys.command()
@click.argument("name")
@click.option("--key", "key", required=True, metavar="PUBLIC", help="The agent's public key, or its .key file.")
@click.option(
    "--rip",
    "addresses",
    required=True,
    multiple=True,
    metavar="ADDRESS",
    help="A RIP that it may report for; repeatable.",
)
@_directory
def enroll(name: str, key: str, addresses: tuple[str, ...], directory: Path) -> None:
    """Let agent NAME report for its RIPs. Replaces NAME's earlier enrolment. The master reads it at its next reload."""
    from feedback.ops import keys as store

    with _one_line():
        written = store.enroll(directory, name, _public_key(key), addresses)
    click.echo(f"{written}: {name} may report for {', '.join(addresses)}; `systemctl reload feedback-master` tells it")


@keys.command()
@click.argument("name")
@click.option("--rip", "addresses", multiple=True, metavar="ADDRESS", help="A RIP that it may report for; repeatable.")
@click.option("--for", "seconds", type=Duration(), default="1h", show_default=True, help="How long the token is valid.")
@click.option(
    "--master-key",
    type=click.Path(path_type=Path, dir_okay=False),
    default=MASTER_KEY,
    show_default=True,
    help="The master's public key file; the token carries it.",
)
@click.option("--role", default="", metavar="ROLE", help="The server's agent.toml has the settings of ROLES/ROLE.toml.")
@click.option(
    "--roles",
    "roles_directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROLES,
    show_default=True,
    help="Where the roles are.",
)
@_directory
@_json
def token(
    name: str,
    addresses: tuple[str, ...],
    seconds: float,
    master_key: Path,
    role: str,
    roles_directory: Path,
    directory: Path,
    as_json: bool,
) -> None:
    """Make a token with which one real server enrolls itself as NAME, once, for these RIPs.

    Without --rip, for an enrolled agent: a new key for the same RIPs. The old one stays valid until the new one
    reports, an hour at most. The token is a secret until it is used: hand it over like a password. `keys revoke NAME`
    revokes it. The master needs no reload.

    With --role the join gives the server the settings that all agents of that role share:
    /etc/feedback/roles/ROLE.toml is an agent.toml without name, addresses, key and masters. After a change there,
    make a new token and join again.

    \b
    feedback keys token rs1 --rip 10.0.0.11
    feedback keys token rs2 --rip 10.0.0.12 --rip 2001:db8::12 --role web --for 1d
    """
    from feedback.ops import keys as store
    from feedback.ops import roles, tokens

    with _one_line():
        if not addresses:
            enrolled = directory / f"{store.checked_name(name)}.toml"
            if not enrolled.exists():
                raise store.KeyFileError(f"{name} is not enrolled yet: say for which RIPs it may report: --rip ADDRESS")
            addresses = tuple(map(str, store.read_enrolment(enrolled).addresses))
        expires_at = int(time.time() + seconds)
        settings = roles.read(roles_directory, role) if role else ""
        master = store.read_public(store.locate(master_key))
        text = tokens.issue(directory, name, addresses, master, expires_at, role, settings)
    if as_json:
        told(
            {"name": name, "token": text, "addresses": list(addresses), "expires_at": expires_at, "role": role or None}
        )
        return
    until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(expires_at))
    click.echo(f"{name} for {', '.join(addresses)}, once, until {until}. On that real server:", err=True)
    click.echo("feedback keys join --master tcp://THIS-DIRECTOR:7433   (it asks for the token)", err=True)
    click.echo(text)


@keys.command()
@click.argument("token", required=False)
@click.option(
    "--token-file",
    type=click.File("r"),
    metavar="FILE",
    help="File with the token; `-` is standard input.",
)
@click.option("--master", "endpoint", required=True, metavar="tcp://ADDRESS:PORT", help="Where the master listens.")
@click.option(
    "--key",
    "base",
    type=click.Path(path_type=Path),
    default=AGENT_KEY,
    show_default=True,
    help="The agent's key: PATH.key, and PATH.key_secret (mode 0600). An existing one is kept.",
)
@click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    default="/etc/feedback/agent.toml",
    show_default=True,
    help="The agent's configuration: it is made, or the master is added to it.",
)
@click.option("--no-config", is_flag=True, help="Print its contents instead of writing it.")
@click.option("--new-key", is_flag=True, help="Make a new key in place of the existing one.")
def join(
    token: str | None,
    token_file: IO[str] | None,
    endpoint: str,
    base: Path,
    config: Path,
    no_config: bool,
    new_key: bool,
) -> None:
    """Enroll this real server with the token that `feedback keys token` made on the director.

    Asks for the token, or reads it from standard input or --token-file. It may also be the argument TOKEN, but other
    users of this host can see command arguments.

    Makes a key here and has it enrolled for the token's name and RIPs. Its secret never leaves this machine. An
    existing key is kept, so an agent can join both masters of a pair, with a token from each. With --new-key it is
    exchanged, for this master alone. The other master hears the agent again after a join there, without --new-key. Only
    the master that made the token accepts it."""
    from feedback.ops import joining, tokens
    from feedback.ops import keys as store

    with _one_line():
        held = tokens.read(_token(token, token_file))
        kept = not new_key and joining.present(base) is not None
        joined = joining.join(held, endpoint, base, new_key=new_key)
        secret, which = store.secret_of(base), "the key that was there" if kept else "a new key"
        click.echo(f"{secret}: {which}, enrolled as {joined.agent}, for {', '.join(joined.addresses)}", err=True)
        if no_config:
            click.echo(joining.link_text(endpoint, held.master), nl=False)
            return
        done = joining.configure(config, joined, endpoint, held.master, secret)
    click.echo(f"{config}: {done.value}", err=True)
    if joined.role and done not in (joining.Configured.MADE, joining.Configured.OF_ROLE):
        said = f"its settings stay, since no join made it of role {joined.role}: remove it and join again for those"
        click.echo(f"{config}: {said}", err=True)
    click.echo("now: systemctl enable --now feedback-agent, or, if it runs: systemctl reload feedback-agent", err=True)


def _token(word: str | None, file: IO[str] | None) -> str:
    if word is not None and word != "-":
        click.echo("other users of this host may have seen the token: leave it out, and you are asked for it", err=True)
        return word
    if file is not None:
        return file.readline(TOKEN_CHARACTERS_MAX)
    if word is None and sys.stdin.isatty():
        return str(click.prompt("Token", hide_input=True))
    return sys.stdin.readline(TOKEN_CHARACTERS_MAX)


@keys.command()
@click.argument("name")
@click.option("--key", "key", required=True, metavar="PUBLIC", help="The agent's new public key, or its .key file.")
@click.option("--for", "seconds", type=Duration(), default="1h", show_default=True, help="How long both are valid.")
@_directory
def rotate(name: str, key: str, seconds: float, directory: Path) -> None:
    """Enroll NAME's next key beside the present one, for the same RIPs.

    Both are valid until the new one reports or the time is over, so there is no moment without a key. With a token it
    is one step: `feedback keys token NAME`, and `feedback keys join --new-key` there."""
    from feedback.ops import keys as store

    with _one_line():
        present = store.read_enrolment(directory / f"{store.checked_name(name)}.toml")
        until = int(time.time() + seconds)
        written = store.enroll(
            directory, name, _public_key(key), tuple(map(str, present.addresses)), previous_until=until
        )
    click.echo(f"{written}: {name} has two keys until the new one reports; `systemctl reload feedback-master` tells it")


@keys.command()
@click.argument("name")
@_directory
def revoke(name: str, directory: Path) -> None:
    """Remove agent NAME's enrolment, and its token. The master stops hearing it on reload."""
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
    from feedback.ops import tokens

    now = time.time()
    with _one_line():
        enrolments = store.enrolled(directory)
    waiting, problems = tokens.pending(directory, now)
    found = [
        _row(e.name, e.public_key, e.addresses, "enrolled" if e.until is None else "previous", e.until)
        for e in enrolments.by_key.values()
        if e.until is None or now < e.until
    ] + [_row(t.name, t.public_key, t.addresses, "token", t.expires_at) for t in waiting.values()]
    found.sort(key=lambda row: (row["name"], row["state"]))
    if as_json:
        told({"agents": found})
    else:
        for row in found:
            left = "" if row["until"] is None else f"  {row['state']}, {max(0, row['until'] - now) / 60:.0f} min left"
            click.echo(f"{row['name']:<20} {row['public_key']}  {' '.join(row['addresses'])}{left}")
    for problem in (*enrolments.problems, *problems):
        click.echo(problem, err=True)
    sys.exit(1 if enrolments.problems or problems else 0)


def _row(name: str, key: str, addresses: Iterable[object], state: str, until: int | None) -> dict[str, Any]:
    """`state`: enrolled; previous, a key that is being replaced; token, not yet used."""
    return {
        "name": name,
        "public_key": key,
        "addresses": sorted(map(str, addresses)),
        "state": state,
        "until": until,
    }


def _owned(given: bool) -> str:
    return " (it belongs to feedback, mode 0600)" if given else ""


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
