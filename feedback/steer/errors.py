"""Why marks, rules or routes are not as they should be."""

from __future__ import annotations


class SteerError(Exception):
    """One line: what could not be done, and what to do about it."""
