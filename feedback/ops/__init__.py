"""What every daemon needs of its surroundings: systemd, keys, logs. Shells: no decision is made here."""
