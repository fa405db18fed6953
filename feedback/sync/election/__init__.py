"""Which director is active, and why: heartbeats, the election, and engines that follow somebody else's."""
