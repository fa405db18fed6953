"""What goes with the active role on this host: the addresses, who has them, and that everybody hears of it."""
