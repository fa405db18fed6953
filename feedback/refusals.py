"""What came from outside and is refused: said in one printable line of bounded length."""

from __future__ import annotations

SAID_MAX, SAID_END = 1000, 300  # characters of a refusal, and of its end


def printable(text: str) -> str:
    """For one line of a log or a terminal: what a stranger's message quotes must not end the line, nor colour it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shortened(text: str) -> str:
    """Its beginning says where, its end what was expected; what it quotes in between may be as long as a message."""
    return text if len(text) <= SAID_MAX else f"{text[: SAID_MAX - SAID_END]} ... {text[-SAID_END:]}"


class RefusalError(ValueError):
    """One line: where, what was wrong, what was expected. Printable and of bounded length, whatever it quotes."""

    def __init__(self, text: str) -> None:
        super().__init__(shortened(printable(shortened(text))))  # what is made printable grows
