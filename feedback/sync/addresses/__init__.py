"""What moves with the active role on this host: the addresses and ranges, who has them, and their announcement."""
