"""An internal fault, as reported to an operator."""

from __future__ import annotations

from feedback.refusals import printable

SAID_MAX = 200


def said(error: BaseException) -> str:
    """The error and its place, in one printable line."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace is not None else ""
    return printable(f"{type(error).__name__}: {error}{place}"[:SAID_MAX])
