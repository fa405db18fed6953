"""What README and docs tell people to type, write and open is there: every command is parsed by the real commands,
every configuration by the real loader, every path, link, unit and make target exists. What the commands do is tested
where they live; `make deb` runs those of an installation for real."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import click
import pytest

from feedback.cli.main import main
from feedback.config import AgentConfig, MasterConfig, SyncConfig, load, parse
from tests.docs.pages import PAGES, ROOT, Block, anchors, blocks, commands, links, prose, spans

CONFIGURATIONS = {"agent": AgentConfig, "master": MasterConfig, "sync": SyncConfig}
# Pages whose unmarked blocks are commands and nothing else, so that a typing error in a program's name is found too.
GUIDES = {"install.md", "first-director.md", "operations.md"}
PROGRAMS = {
    *("apt-get", "cp", "feedback", "ip", "ipvsadm", "journalctl", "ln", "make", "mkdir", "modprobe", "pip", "promtool"),
    *("python3", "ssh", "sysctl", "systemctl", "systemd-analyze", "systemd-sysusers", "systemd-tmpfiles", "tar"),
    *("timeout", "/opt/lvs-feedback/bin/pip"),
}
FOREIGN_UNITS = {"keepalived", "ldirectord", "nginx.service"}
# In these places of a repository a path is meant to exist.
PLACES = r"(?:docs|examples|contrib|systemd|feedback|tests|bench|debian)/[\w./*-]+"
ALL = [(page, block) for page in PAGES for block in blocks(page)]


def lines(block: Block) -> list[list[str]]:
    """The commands of a block, known by their first word: a block may show output beside them."""
    if block.language not in {"", "indented", "sh"}:
        return []
    text = block.text.replace("\\\n", " ").splitlines()
    return [
        words
        for line in text
        if line.removeprefix("$ ").split(" ")[0] in PROGRAMS
        for words in commands(line)
        if words[0] in PROGRAMS
    ]


TYPED = [pytest.param(words, id=f"{block}-{' '.join(words)}") for _, block in ALL for words in lines(block)]
OURS = [parameter for parameter in TYPED if parameter.values[0][0] == "feedback"]  # type: ignore[index]


def dry(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """Parse a command line to its end, and do nothing. Raises click.UsageError."""
    # The files that an example names are not here.
    monkeypatch.setattr(click.File, "convert", lambda self, value, parameter, context: value)
    monkeypatch.setattr(click.Command, "invoke", lambda self, context: None)
    main.main(words, prog_name="feedback", standalone_mode=False)


@pytest.mark.parametrize("words", OURS)
def test_a_command_is_understood(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    dry(monkeypatch, words[1:])


@pytest.mark.parametrize(
    "line",
    ["feedback drian 10.0.0.11", "feedback drain 10.0.0.11 --weight 3", "feedback sync takeover", "feedback drain"],
)
def test_one_that_is_none_is_found_out(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(click.UsageError):
        dry(monkeypatch, line.split()[1:])


MENTIONED = sorted({(page.name, span) for page in PAGES for span in spans(page) if re.match(r"feedback [a-z-]", span)})


@pytest.mark.parametrize(("page", "span"), MENTIONED, ids=[f"{page}-{span}" for page, span in MENTIONED])
def test_a_command_that_is_mentioned_exists_with_its_options(page: str, span: str) -> None:
    """In a sentence arguments may be missing or be words like RIP."""
    (words,) = commands(span)[:1]
    command: click.Command = main
    context = click.Context(main, info_name="feedback")
    for word in words[1:]:
        if isinstance(command, click.Group) and re.fullmatch(r"[a-z-]+", word) and not word.startswith("-"):
            found = command.get_command(context, word)
            assert found is not None, f"{page}: `{span}`: {command.name} has no command {word!r}"
            command, context = found, click.Context(found, parent=context, info_name=word)
        elif word.startswith("-"):
            known = {option for parameter in command.get_params(context) for option in parameter.opts}
            assert word.split("=")[0] in known, f"{page}: `{span}`: {command.name} has no option {word}"


GUIDE_LINES = [
    pytest.param(line, id=f"{block}-{line}")
    for page, block in ALL
    if page.name in GUIDES and block.language in {"", "indented", "sh"}
    for line in block.text.splitlines()
]


@pytest.mark.parametrize("line", GUIDE_LINES)
def test_a_guide_names_programs_that_there_are(line: str) -> None:
    for words in commands(line):
        assert words[0] in PROGRAMS, f"{words[0]!r}: no program that the guides use"
    subprocess.run(["sh", "-n", "-c", line], check=True)


@pytest.mark.parametrize("words", [p for p in TYPED if p.values[0][0] in {"make", "systemctl", "cp"}])  # type: ignore[index]
def test_what_other_programs_are_told_is_there(words: list[str]) -> None:
    program, *arguments = [word for word in words if not word.startswith("-")]
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets)
    elif program == "systemctl":
        units = {unit.stem for unit in (ROOT / "systemd").glob("*.service")} | FOREIGN_UNITS
        assert {word for word in arguments[1:] if "=" not in word} <= units
    else:
        assert [source for source in arguments[:-1] if not (ROOT / source).exists()] == []


@pytest.mark.parametrize("block", [b for _, b in ALL if b.language == "toml"], ids=str)
def test_a_configuration_is_taken(block: Block, tmp_path: Path) -> None:
    named = re.match(r"# /etc/feedback/(agent|master|sync)\.toml", block.text)
    if named:
        path = tmp_path / f"{named[1]}.toml"
        path.write_text(block.text)
        load(path, CONFIGURATIONS[named[1]])
    elif block.text.startswith("[[service]]"):
        parse(block.text, MasterConfig)
    else:
        assert block.page.name == "simulate.md"  # a case: tests/simulate has its loader
        tomllib.loads(block.text)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_an_example_is_taken(path: Path) -> None:
    load(path, CONFIGURATIONS[path.stem.split("-")[0]])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_that_are_named_exist(page: Path) -> None:
    text = re.sub(r"\]\([^)]*\)", "]", prose(page))
    for found in re.findall(rf"(?<![\w/.-]){PLACES}", text):
        path = found.rstrip(".*").removesuffix("/")
        assert (ROOT / path).exists() or (ROOT / f"{path}.py").exists(), f"{page.name}: {found}"


def test_the_index_has_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    assert {ROOT / "docs" / link for link in links(index)} == {*(ROOT / "docs").glob("*.md")} - {index}


def test_each_test_that_security_names_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "security.md").read_text(encoding="utf-8"))
    assert len(named) > 30
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()]
    assert missing == []
