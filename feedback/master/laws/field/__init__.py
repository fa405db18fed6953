"""The field's own laws, as their sources have them, to compare with ours. Each keeps its own time (cycle.py)."""
