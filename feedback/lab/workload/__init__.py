"""Real load on the cluster: an HTTP server with a known cost, an open-loop client, a noisy neighbour.

Each is a program of its own, `python -m feedback.lab.workload.NAME`, that imports the standard library only: a start
in the guest costs, and so does each system call of the client and the server.
"""
