"""Cuts: ending the flows of a destination, and telling their clients. Pure.

course.py is the course of one destination, as the pipeline sees it; plan.py says when each flow is told; segments.py
has the bytes. The shell (shell/cutter.py) reads the kernel's table, sends and listens.

How a client is told: its destination leaves the table, and so does the kernel's entry of the connection. One segment
from the virtual address with an impossible sequence number (a poke) makes the client answer with an ACK (RFC 9293). The
ACK no longer matches an entry, so the director's own TCP answers with RST, which tells the client. The ACK has the
exact numbers of the connection: a RST with them ends it at the server too. A healthy connection ignores a poke. Source:
RFC 9293 (3.10.7.4), RFC 5961; measured on 6.1.
"""
