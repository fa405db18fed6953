"""Real load on the cluster: an HTTP server with a known cost, an open-loop client, a noisy neighbour.

Each is a program of its own, `python -m feedback.lab.workload.NAME`. It imports only the standard library and makes few
system calls, because both are slow in the guest.
"""
