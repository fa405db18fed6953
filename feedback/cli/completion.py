"""`feedback completion`: the script that a shell loads. click makes it. It asks the installed command at each Tab."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash   feedback completion bash > /etc/bash_completion.d/feedback
    zsh    feedback completion zsh > ~/.zfunc/_feedback          (a directory in fpath)
    fish   feedback completion fish > ~/.config/fish/completions/feedback.fish
    """
    from click.shell_completion import get_completion_class

    from feedback.cli.main import main

    made = get_completion_class(shell)
    assert made is not None, "click knows the shells of the choice"
    try:
        text = made(main, {}, "feedback", "_FEEDBACK_COMPLETE").source()
    except RuntimeError as error:  # click looks for the shell to see its version
        from feedback.cli.errors import Failure

        raise Failure(str(error)) from None
    click.echo(text)
