"""The director pair: replication and takeover. Not built yet: see docs/limitations.md."""
