"""What moves with the active role on this host: the addresses, who has them, and their announcement."""
