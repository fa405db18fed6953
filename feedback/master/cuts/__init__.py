"""Cuts: ending the flows of a destination, and telling their clients. Pure.

course.py is the course of one destination, as the pipeline sees it; plan.py which flow is told when; segments.py the
bytes. The shell (shell/cutter.py) reads the kernel's table, sends and hears.

How a client is told: its destination leaves the table, and so does the kernel's entry of the connection. One segment
from the virtual address with a sequence number that cannot be right (a poke) makes the client answer with an ACK, as
RFC 9293 has it; nobody has an entry for that any more, so the director's own TCP says RST, and the client knows. That
ACK bears the exact numbers of the connection: a RST with them ends it at the server too. A healthy connection that is
poked goes on as if nothing had been. Source: RFC 9293 (3.10.7.4), RFC 5961; measured on 6.1.
"""
