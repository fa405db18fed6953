"""The manual pages say what the commands and the configuration are: nothing is missing, nothing is of yesterday."""

from __future__ import annotations

import re
import shutil
import subprocess
import typing
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from feedback.cli.main import main
from feedback.cli.manual import DAEMONS, pages
from feedback.config import AgentConfig, MasterConfig, SyncConfig

ROOT = Path(__file__).parents[2]
MAN = ROOT / "man"
NAMES = ["feedback.1", "feedback-agent.8", "feedback-master.8", "feedback-sync.8", "feedback.toml.5"]


def page(name: str) -> str:
    """As a reader sees it."""
    return re.sub(r"\\f[BIR]", "", (MAN / name).read_text()).replace("\\-", "-").replace("\\e", "\\")


def commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, (*path, name))


COMMANDS = [c for c in commands(main, ("feedback",)) if len(c[0]) > 1]


@pytest.mark.parametrize("name", NAMES)
def test_the_pages_are_of_today(name: str) -> None:
    made = pages((ROOT / "docs/configuration.md").read_text())
    assert (MAN / name).read_text() == made[name], "run: make man"


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(p) for p, _ in COMMANDS])
def test_every_command_and_option_is_on_its_page_with_words(path: tuple[str, ...], command: click.Command) -> None:
    text = page(f"feedback-{path[1]}.8" if path[1] in DAEMONS else "feedback.1")
    assert " ".join(path) in text
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{' '.join(path)} {parameter.opts}: has no help"
            for option in parameter.opts:
                assert option in text, f"{' '.join(path)} {option}"


def keys(kind: type, seen: tuple[type, ...] = ()) -> Iterator[str]:
    for field in msgspec.structs.fields(kind):
        yield field.encode_name
        for inner in _structs(field.type):
            if inner not in seen:
                yield from keys(inner, (*seen, inner))


def _structs(found: object) -> Iterator[type]:
    if isinstance(found, type) and issubclass(found, msgspec.Struct):
        yield found
    for argument in typing.get_args(found):
        yield from _structs(argument)


@pytest.mark.parametrize("kind", [AgentConfig, MasterConfig, SyncConfig])
def test_every_key_of_the_configuration_is_on_its_page(kind: type) -> None:
    text = page("feedback.toml.5")
    missing = [key for key in sorted(set(keys(kind))) if not re.search(rf"\b{key}\b", text)]
    assert missing == [], "write of them in docs/configuration.md, then: make man"


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_groff_has_nothing_to_say_against_them(name: str) -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-K", "utf8", "-z", str(MAN / name)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


def test_the_units_name_pages_that_there_are() -> None:
    named = set()
    for unit in (ROOT / "systemd").glob("*.service"):
        named |= set(re.findall(r"man:([\w.-]+)\((\d)\)", unit.read_text()))
    assert named
    assert {f"{name}.{section}" for name, section in named} <= set(NAMES)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_that_its_shell_reads(shell: str, tmp_path: Path) -> None:
    from click.testing import CliRunner

    answer = CliRunner().invoke(main, ["completion", shell])
    assert answer.exit_code == 0, answer.output
    assert "_FEEDBACK_COMPLETE" in answer.output
    if found := shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(answer.output)
        assert subprocess.run([found, "-n", str(script)], check=False).returncode == 0


def test_completion_completes_commands_and_their_options() -> None:
    from click.testing import CliRunner

    environment = {"_FEEDBACK_COMPLETE": "bash_complete", "COMP_WORDS": "feedback dra", "COMP_CWORD": "1"}
    assert "drain" in CliRunner().invoke(main, [], env=environment, prog_name="feedback").output
    environment |= {"COMP_WORDS": "feedback drain --wa", "COMP_CWORD": "2"}
    assert "--wait" in CliRunner().invoke(main, [], env=environment, prog_name="feedback").output
