"""Servers: knowledge of each real server: its reports, how far they are trusted, and its capacity."""
