"""Bounds: what no law can cross. In the order in which they run: guard (with eject and doubt), then limits (sizing)."""
