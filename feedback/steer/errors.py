"""Errors about marks, rules and routes."""

from __future__ import annotations


class SteerError(Exception):
    """One line: what could not be done, and what to do about it."""
