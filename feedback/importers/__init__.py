"""Other tools' configuration as our TOML. Pure: text in, services and remarks out.

One file for each format. Nothing is guessed and nothing is silently dropped: whatever has no equivalent becomes a
remark with its line. Invariant: `feedback master check` accepts the written TOML.
"""

from feedback.importers.draft import Draft, Imported, ImportFormatError, Remark
from feedback.importers.written import as_toml

__all__ = ["Draft", "ImportFormatError", "Imported", "Remark", "as_toml"]
