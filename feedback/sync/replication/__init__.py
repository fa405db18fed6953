"""Connections, services and state from the active director to the standby."""
