"""How the packages are made: debian/ has Debian's rules, the rest is here."""
