"""The kernel's connection tracking through a takeover: a stateful firewall beside IPVS.

Where net.ipv4.vs.conntrack is 1, masqueraded connections have entries in the tracking table, and a firewall lets them
through by these. The sync protocol does not carry them. So a director that takes over writes the entries itself, from
its records (`entries`, `table`, `tracking`). An application helper's data (FTP's sequence offsets) is in no record: the
active director reads and replicates it (`adjustments`, `reader`).
"""
