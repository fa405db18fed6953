"""The director's side of the loop: reports and kernel counts in, settings and edits out.

The rooms, in the order of a decision: `servers`, `claims`, `laws`, `bounds`, `actuate`, `claims` again, `reconcile`;
`pipeline` is that path for one service, over the rows of `pool`. `Controller` is all services and the stable public
interface; `shell` is the daemon around it.
"""

from feedback.master.controller import Controller, Decision

__all__ = ["Controller", "Decision"]
