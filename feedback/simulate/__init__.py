"""Simulate: the real `Controller` against a fast model of servers, agents and the kernel's schedulers.

For runs beyond the lab: hundreds of servers, many laws, hours. One run is `run(case, policy, traffic, draw)` and gives
a `Trace`; `figures` tells what came of it. Rooms: `case` what happens, `suite` the built-in ones, `traffic` who comes
when, `servers` processor sharing, `director` the kernel's table, `agents` the reports, `policy` who writes the weights,
`world` all of it in the order of time. The product never imports this.
"""
