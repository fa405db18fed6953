"""The manual pages, made from the commands and docs/configuration.md: `make man`, or

    python -m feedback.cli.manual docs/configuration.md man

Other prose is here. A test compares the pages in man/ with this, so that no option and no key is missing.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from feedback.cli.main import main

DAEMONS = {
    "agent": "load agent of a Linux Virtual Server real server",
    "master": "load-informed scheduler of a Linux Virtual Server director",
    "sync": "director pair of Linux Virtual Server: replication and takeover",
}

EXIT = """\
.SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
Failed; one line on standard error says what and why.
.TP
.B 2
Wrong usage.
.TP
.B 3
No daemon answers at the control socket.
"""

ENVIRONMENT = """\
.SH ENVIRONMENT
.TP
.B NO_COLOR
No colours.
.TP
.B SUDO_USER
The user named in an order that root gives by sudo.
"""

FILES = {
    "feedback": [
        ("/etc/feedback", "Configuration, keys, enrolments."),
        ("/run/feedback/master.sock", "The master's control socket."),
        ("/run/feedback/sync.sock", "The sync daemon's."),
    ],
    "agent": [
        ("/etc/feedback/agent.toml", "Configuration: feedback.toml(5)."),
        ("/etc/feedback/agent.key_secret", "Its secret key, mode 0600."),
    ],
    "master": [
        ("/etc/feedback/master.toml", "Configuration: feedback.toml(5)."),
        ("/etc/feedback/master.key_secret", "Its secret key, mode 0600."),
        ("/etc/feedback/agents", "Enrolments, one file for each agent."),
        ("/run/feedback/master.sock", "Control socket for commands, mode 0660."),
        ("/run/feedback/master.steer", "Where its marks, rules and routes are, if any."),
        (
            "/var/lib/feedback/master.json",
            "State for a restarted master, or the other director's; orders too.",
        ),
    ],
    "sync": [
        ("/etc/feedback/sync.toml", "Configuration: feedback.toml(5)."),
        ("/etc/feedback/pair.key", "The pair's secret, the same on both directors, mode 0600."),
        ("/run/feedback/sync.sock", "Control socket for commands, mode 0660."),
        ("/run/feedback/role.json", "The role, for the master."),
    ],
}

SIGNALS = """\
.SH SIGNALS
.TP
.B SIGHUP
Read the configuration again; a bad one leaves the old one in force.
.TP
.B SIGTERM
Stop. The kernel's table stays as it is.
"""

ALL = ("feedback(1)", "feedback-agent(8)", "feedback-master(8)", "feedback-sync(8)", "feedback.toml(5)")
ELSEWHERE = ("ipvsadm(8)", "keepalived.conf(5)")


def pages(configuration: str) -> dict[str, str]:
    """File name -> page. `configuration` is docs/configuration.md."""
    found = {"feedback.1": _commands_page(), "feedback.toml.5": _configuration_page(configuration)}
    return found | {f"feedback-{name}.8": _daemon_page(name) for name in DAEMONS}


# --- pages -----------------------------------------------------------------------------------------------------------


def _commands_page() -> str:
    parts = [
        _head("feedback", 1, "load-informed scheduling for Linux Virtual Server"),
        ".SH SYNOPSIS\n.B feedback\n.I COMMAND\n[\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]\n",
        ".SH DESCRIPTION\n" + _prose(main.help or ""),
        ".SH COMMANDS\n",
    ]
    context = click.Context(main, info_name="feedback")
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        if name in DAEMONS:
            parts.append(f".SS feedback {name}\nThe daemon, and commands about it: {_bold(f'feedback-{name}(8)')}.\n")
        else:
            parts += _command(command, context, name)
    return "".join([*parts, EXIT, _files("feedback"), ENVIRONMENT, _see("feedback(1)")])


def _daemon_page(name: str) -> str:
    context = click.Context(main, info_name="feedback")
    command = main.get_command(context, name)
    assert isinstance(command, click.Group)
    inner = click.Context(command, info_name=name, parent=context)
    parts = [
        _head(f"feedback-{name}", 8, DAEMONS[name]),
        f".SH SYNOPSIS\n.B feedback {name}\n[\\fIOPTIONS\\fR] [\\fICOMMAND\\fR]\n",
        ".SH DESCRIPTION\n" + _prose(inspect.cleandoc(command.help or "")),
        ".SH OPTIONS\n" + "".join(_options(command, inner)),
        ".SH COMMANDS\n",
    ]
    for inside in command.list_commands(inner):
        found = command.get_command(inner, inside)
        assert found is not None
        parts += _command(found, inner, inside)
    see = _see(f"feedback-{name}(8)")
    return "".join([*parts, SIGNALS, EXIT, _files(name), see])


def _configuration_page(markdown: str) -> str:
    """Tables become lists of keys; the rest stays prose."""
    parts = [_head("feedback.toml", 5, "configuration of the lvs-feedback daemons"), ".SH DESCRIPTION\n"]
    for line in markdown.splitlines():
        if line.startswith(("# ", "| key |", "| law |")) or re.fullmatch(r"\|[-| ]+\|", line):
            continue
        if line.startswith("## "):
            parts.append(f".SH {_plain(line[3:])}\n")
        elif line.startswith("### "):
            parts.append(f".SS {_plain(line[4:])}\n")
        elif line.startswith("| "):
            cells = [c.strip() for c in re.split(r"(?<!\\)\|", line.strip("|"))]
            said = _plain(cells[1]) if len(cells) > 2 else ""
            default = f" {said}" if said.startswith("(") else f" (default: {said})" if said else ""
            parts.append(f".TP\n\\fB{_plain(cells[0])}\\fR{default}\n{_plain(cells[-1])}\n")
        elif line.strip():
            parts.append(_plain(line) + "\n")
        else:
            parts.append(".PP\n")
    return "".join([*parts, _see("feedback.toml(5)")])


# --- parts of pages --------------------------------------------------------------------------------------------------


def _head(name: str, section: int, what: str) -> str:
    title = f'.TH {_escaped(name).upper()} {section} "" "lvs\\-feedback"\n'
    return f"{title}.SH NAME\n{_escaped(name)} \\- {_escaped(what)}\n"


def _command(command: click.Command, parent: click.Context, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f".SS {_escaped(usage)}\n"
    yield _prose(inspect.cleandoc(command.help or ""))
    yield from _options(command, context)
    if isinstance(command, click.Group):
        for inside in command.list_commands(context):
            found = command.get_command(context, inside)
            assert found is not None
            yield from _command(found, context, inside)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option):
            yield f".TP\n{_bold(record[0])}\n{_escaped(record[1])}\n"


def _prose(text: str) -> str:
    """click's help: paragraphs; those that begin with \\b keep their lines."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if paragraph.startswith("\b"):
            lines = paragraph.removeprefix("\b").strip("\n").splitlines()
            parts.append(".PP\n.nf\n" + "".join(f"{_escaped(line)}\n" for line in lines) + ".fi\n")
        else:
            parts.append(".PP\n" + _escaped(" ".join(paragraph.split())) + "\n")
    return "".join(parts)


def _files(name: str) -> str:
    listed = "".join(f".TP\n.I {_escaped(path)}\n{_escaped(what)}\n" for path, what in FILES[name])
    return ".SH FILES\n" + listed


def _see(own: str) -> str:
    others = [page for page in ALL if page != own] + list(ELSEWHERE)
    return ".SH SEE ALSO\n" + ",\n".join(_bold(page) for page in others) + "\n"


def _bold(text: str) -> str:
    return f"\\fB{_escaped(text)}\\fR"


def _plain(text: str) -> str:
    """Markdown's signs away; escaped."""
    return _escaped(text.replace("`", "").replace("**", "").replace("\\|", "|").strip("# "))


def _escaped(text: str) -> str:
    """For roff: no sign of ours is one of its own."""
    safe = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^(?=[.'])", r"\\&", safe)


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.mkdir(exist_ok=True)
    for file, page in pages(source.read_text(encoding="utf-8")).items():
        (target / file).write_text(page, encoding="utf-8")
