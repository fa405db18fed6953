"""The kernel's connection tracking through a takeover: a stateful firewall beside IPVS.

Where net.ipv4.vs.conntrack is 1, masqueraded connections have entries in the tracking table, and a firewall lets them
through by these. The sync protocol carries none of it. So a director that takes over writes the entries itself, from
the records that it has (`entries`, `table`, `writer`). What has to do with an application's helper (the
sequence offsets of FTP) is in no record at all: the active director reads it and it travels (`adjustments`, `reader`).
"""
