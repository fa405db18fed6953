"""Every daemon's surroundings: systemd, keys, logs. Shells: no decision is made here."""
