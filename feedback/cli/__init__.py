"""The operator's face: one file a command. It asks daemons and prints; it decides nothing."""
