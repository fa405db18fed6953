"""Other tools' configuration as our TOML. Pure: text in, services and remarks out.

One file a format. Nothing is guessed and nothing passes in silence: what has no place in our configuration becomes a
remark with its line. Invariant: the TOML that is written is one that `feedback master check` takes.
"""

from feedback.importers.draft import Draft, Imported, ImportFormatError, Remark
from feedback.importers.written import as_toml

__all__ = ["Draft", "ImportFormatError", "Imported", "Remark", "as_toml"]
