"""The operator's interface, one file for each command. It asks daemons and prints; it decides nothing."""
