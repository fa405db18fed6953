"""Simulate: the real `Controller` against a fast model of servers, agents and the kernel's schedulers.

For runs that are too large for the lab: hundreds of servers, many laws, hours. One run is `run(case, policy, traffic,
draw)`, which returns a `Trace`; `figures` computes the results from it. Rooms: `case` has what happens, `suite` the
built-in cases, `traffic` the arrivals, `servers` processor sharing, `director` the kernel's table, `flow` the requests
between these two, `agents` the reports, `policy` the writers of weights, and `world` runs all of it in the order of
time. The product never imports this.
"""
