"""Which director is active, and why: heartbeats, the election, and engines that follow another program's choice."""
