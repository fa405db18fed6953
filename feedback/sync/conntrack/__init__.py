"""The kernel's connection tracking through a takeover: a stateful firewall beside IPVS.

Where net.ipv4.vs.conntrack is 1, masqueraded connections have entries in the tracking table, and a firewall admits
their packets because of these entries. The sync protocol does not carry them. So a director that takes over writes the
entries itself, from its records (`entries`, `table`, `tracking`). No record has an application helper's data (FTP's
sequence offsets). The active director reads that data and replicates it (`adjustments`, `reader`).
"""
