"""The field's own laws, as their sources have them, to stand beside ours. Each keeps its own time (cycle.py)."""
