"""Mirror: the active director's services on the standby, as rules text (`ipvsadm -S`) and then its differences.

Pure. `Original` returns what to send after each look at the active kernel. `Copy` holds what was received and returns
what the standby's kernel lacks, so an edit that somebody else makes there lasts until the next look. Rules are text
because every LVS operator can read it, and because feedback.ipvs.text already refuses malformed rules. Services that
carry a master's own checks belong to that director and are not mirrored.
Invariant: after a table and all changes in order, the copy equals the original.
"""

from __future__ import annotations

from feedback.ipvs import text
from feedback.ipvs.difference import Table, applied, difference, of_edits, of_snapshot
from feedback.model import Edit, Snapshot
from feedback.refusals import RefusalError


class MirrorError(RefusalError):
    """What was received is no table, or does not fit the table before it. The text says why."""


class Original:
    """The active end."""

    def __init__(self) -> None:
        self._sent: Table | None = None

    def start(self, snapshot: Snapshot) -> str:
        """The whole table, for a new session."""
        snapshot = snapshot.without_checks()
        self._sent = of_snapshot(snapshot)
        return text.format_table(snapshot)

    def changes(self, snapshot: Snapshot) -> str:
        """What changed since the last call. Empty if nothing did, or if the whole table was never sent."""
        if self._sent is None:
            return ""
        now = of_snapshot(snapshot.without_checks())
        edits = difference(now, self._sent)
        self._sent = now
        return "".join(text.format_edit(edit) + "\n" for edit in edits)


class Copy:
    """The standby's end. Before the first whole table it asks for no edits: an empty copy removes nothing."""

    def __init__(self) -> None:
        self._table: Table | None = None

    def take_table(self, rules: str) -> None:
        """Raises MirrorError, and leaves the copy unchanged."""
        try:
            self._table = of_edits(text.parse(rules))
        except ValueError as error:
            raise MirrorError(f"the active director's table: {error}") from None

    def take_changes(self, rules: str) -> tuple[Edit, ...]:
        """The changes as edits. Raises MirrorError, and leaves the copy unchanged: then a whole table is needed."""
        if self._table is None:
            raise MirrorError("changes came before a table")
        try:
            edits = text.parse(rules)
            self._table = applied(self._table, edits)
        except ValueError as error:
            raise MirrorError(f"the active director's changes: {error}") from None
        return edits

    def edits(self, have: Snapshot) -> tuple[Edit, ...]:
        """The edits that make the standby's kernel like the active director's."""
        return () if self._table is None else difference(self._table, of_snapshot(have.without_checks()))

    @property
    def services(self) -> int:
        return len(self._table or ())
