"""Which director is active, and why: heartbeats, the election, and engines that obey somebody else."""
