"""The director's side of the loop: reports and kernel counts in, settings and edits out.

The stages, one file each, in this order: `fleet`, `estimate`, `laws/`, `limits`, `guard`, `actuate`, `reconcile`.
`Controller` strings them together and is the stable public face; `daemon` and `link` are the shell around it.
"""

from feedback.master.controller import Controller, Decision

__all__ = ["Controller", "Decision"]
