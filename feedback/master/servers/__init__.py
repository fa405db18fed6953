"""Servers: what is known of each real server: its reports, how far they are trusted, and what it can complete."""
