"""Scripts: histories of whole pools, whose edits `python -m bench.golden` compares between two checkouts.

Each is a function that makes a Stage at a place and plays on it. Deterministic: same script, same inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from tests.pipeline.stage import Place, Stage, rip, service

Script: TypeAlias = Callable[[Place], Stage]
SCHEDULERS = ("sed", "nq", "wlc", "wrr", "lc", "rr", "lblc", "lblcr", "sh", "mh", "dh", "fo", "ovf")
LAWS = ("capacity", "static", "linear", "cuberoot", "proportions", "orca", "pid", "topsis")
CHECK = '[service.check]\ntype = "tcp"\ninterval_seconds = 0.5\nrise = 2\nfall = 2\n'


def _quick(scheduler: str) -> float:
    return 0.05 if scheduler in ("sed", "wrr") else 0.2


def life(place: Place, scheduler: str, law: str = "capacity", *, adopted: bool = False, extra: str = "") -> Stage:
    """Cold start, a neighbour on the largest, its end, a server that dies with its agent and returns, a busy hour."""
    text = service(4, extra=f'scheduler = "{scheduler}"\nlaw = "{law}"\n{extra}')
    stage = Stage(text, place, turn_seconds=_quick(scheduler), adopted=adopted)
    stage.run(15)
    stage.servers[3].available = 0.5
    stage.run(10)
    stage.servers[3].available = 1.0
    stage.servers[1].silent = True
    stage.run(20)
    stage.servers[1].reboot()
    stage.servers[1].silent = False
    stage.load(0.95)
    stage.run(15)
    return stage


def known(place: Place) -> Stage:
    """Agents that know the service's cgroup, and neighbours that come and go."""
    stage = Stage(service(4, extra='scheduler = "sed"'), place)
    for server in stage.servers:
        server.known = True
    for i in (3, 1, 2, 3):
        stage.run(5)
        stage.servers[i].available = 0.4
        stage.run(5)
        stage.servers[i].available = 1.0
    return stage


def learned(place: Place, scheduler: str) -> Stage:
    """Learned thresholds, overload, and a restart while they are in force."""
    text = service(4, extra=f'scheduler = "{scheduler}"\nthresholds = "learned"')
    stage = Stage(text, place, turn_seconds=0.2)
    stage.run(20)
    stage.load(1.15)
    stage.run(10)
    stage.master.restart()
    stage.run(10)
    stage.load(0.5)
    stage.run(20)
    return stage


def tiers(place: Place, law: str, scheduler: str) -> Stage:
    """Priorities 2, 2, 1, 0, the last a spill: calm, busy, overloaded, a server lost, calm."""
    rows = ("priority = 2", "priority = 2", "priority = 1", 'priority = 0\npool = "spill"')
    text = service(4, rows=rows, extra=f'scheduler = "{scheduler}"\nlaw = "{law}"')
    stage = Stage(text, place, turn_seconds=0.2, load=0.1)
    for part in (0.1, 0.3, 0.6, 0.9, 1.1, 0.2):
        stage.load(part)
        stage.run(8)
    stage.servers[0].silent = True
    stage.run(20)
    stage.master.command("drain", destination=str(rip(1)))
    stage.run(5)
    stage.servers[0].silent = False
    stage.master.command("undrain", destination=str(rip(1)))
    stage.run(15)
    return stage


def orders(place: Place, *, adopted: bool, agents: bool) -> Stage:
    """Every order, an order's end by time, and orders over a restart."""
    stage = Stage(service(4, extra='scheduler = "sed"'), place, adopted=adopted, agents=agents)
    command = stage.master.command
    stage.run(8)
    command("drain", destination=str(rip(3)), reason="disk")
    stage.run(3)
    command("override", destination=str(rip(2)), weight=7, seconds=4.0)
    stage.run(6)
    stage.master.restart()
    stage.run(3)
    command("undrain", destination=str(rip(3)))
    stage.run(12)
    command("pause")
    stage.run(2)
    command("override", destination=str(rip(0)), weight=250)
    stage.servers[1].available = 0.3
    stage.run(4)
    stage.put(1, weight=33)
    stage.run(2)
    command("resume")
    stage.run(3)
    command("undrain", destination=str(rip(0)))
    stage.put(2, weight=0)
    stage.run(3)
    command("override", destination=str(rip(2)), weight=50, force=True)
    stage.run(3)
    command("undrain", destination=str(rip(2)))
    stage.run(3)
    stage.put(2, weight=100)
    stage.run(12)
    return stage


def restarts(place: Place, scheduler: str, *, adopted: bool, agents: bool) -> Stage:
    """With the state, without it, with a drain in it, with agents that are late."""
    text = service(4, weights=(100, 50, 100, 200), extra=f'scheduler = "{scheduler}"')
    stage = Stage(text, place, adopted=adopted, agents=agents, turn_seconds=_quick(scheduler))
    stage.run(10)
    stage.master.restart()
    stage.run(5)
    stage.master.restart(lost=True)
    stage.run(5)
    stage.master.command("drain", destination=str(rip(0)))
    stage.run(1)
    stage.agents = False
    stage.master.restart()
    stage.run(4)
    stage.agents = agents
    stage.run(5)
    stage.master.command("undrain", destination=str(rip(0)))
    stage.run(12)
    return stage


def silence(place: Place, policy: str) -> Stage:
    """Stale, lost, back; then all at once."""
    text = service(4, extra='scheduler = "sed"') + f'[guards]\nlost_policy = "{policy}"\nlost_seconds = 6.0\n'
    stage = Stage(text, place)
    stage.run(10)
    stage.servers[2].silent = True
    stage.run(20)
    stage.servers[2].silent = False
    stage.run(10)
    for server in stage.servers:
        server.silent = True
    stage.run(15)
    for server in stage.servers:
        server.reboot()
        server.silent = False
    stage.run(12)
    return stage


def checks(place: Place, *, adopted: bool, agents: bool) -> Stage:
    """Checks that fail, one, two, all; and agents that answer a line."""
    below = CHECK + "[service.agent_check]\nport = 3333\ninterval_seconds = 0.5\n"
    text = service(4, weights=(100, 50, 100, 200), extra='scheduler = "sed"', below=below)
    stage = Stage(text, place, adopted=adopted, agents=agents)
    stage.run(8)
    for failing in ((1,), (1, 2), (), (0, 1, 2, 3), (3,), ()):
        stage.verdicts = {rip(i): False for i in failing}
        stage.run(8)
    for line in (b"50%\n", b"drain\n", b"ready up 100%\n", b"nonsense?\n"):
        stage.verdicts = {rip(2): line}
        stage.run(5)
    return stage


def errors(place: Place, scheduler: str) -> Stage:
    """A server answers with errors, is ejected, tried, ejected again and is well again."""
    stage = Stage(service(4, extra=f'scheduler = "{scheduler}"'), place, turn_seconds=0.2)
    for server in stage.servers:
        server.application = True
    stage.run(8)
    stage.servers[2].failing = True
    stage.run(20)
    stage.master.restart()
    stage.run(5)
    stage.servers[2].failing = False
    stage.run(30)
    return stage


def owner(place: Place, scheduler: str) -> Stage:
    """Another owner: reloads, zeros, takes out, puts back, makes the service anew, fights."""
    text = service(4, extra=f'scheduler = "{scheduler}"')
    stage = Stage(text, place, adopted=True, turn_seconds=_quick(scheduler))
    table, key = stage.master.table, stage.service
    stage.run(10)
    stage.put(1, weight=0)
    stage.run(3)
    stage.put(1, weight=100)
    stage.run(12)
    stage.put(2, weight=300)
    stage.run(5)
    gone = table.rows[key].pop(rip(0))
    stage.run(3)
    table.rows[key][rip(0)] = gone
    stage.put(0, weight=100)
    stage.run(12)
    for i in range(4):
        stage.put(i, weight=100)
    stage.run(6)
    made, there = table.services.pop(key), table.rows.pop(key)
    stage.run(2)
    table.services[key], table.rows[key] = made, there
    for i in range(4):
        stage.put(i, weight=50)
    stage.run(5)
    for _ in range(6):
        stage.put(3, weight=100)
        stage.run(1)
    stage.run(40)
    return stage


def reloads(place: Place, *, agents: bool) -> Stage:
    """Weights, servers and checks in the file that come and go."""
    stage = Stage(service(4, extra='scheduler = "sed"'), place, agents=agents, turn_seconds=0.2)
    for servers, weights, below in (
        ((0, 1, 2, 3), (100, 100, 100, 100), ""),
        ((0, 1, 2, 3), (10, 20, 40, 80), ""),
        ((0, 1, 3), (10, 20, 80), CHECK),
        ((0, 1, 2, 3), (10, 20, 40, 80), CHECK),
        ((0, 1, 2, 3), (0, 20, 40, 80), CHECK),
        ((0, 1, 2, 3), (100, 20, 40, 80), ""),
    ):
        stage.reload(service(servers, weights=weights, extra='scheduler = "sed"', below=below))
        stage.run(12)
    return stage


def other(place: Place, protocol: str = "udp") -> Stage:
    """A service whose agents cannot count its connections."""
    text = service(4, protocol=protocol, extra='scheduler = "wrr"')
    stage = Stage(text, place, turn_seconds=0.2)
    stage.run(25)
    stage.servers[3].available = 0.5
    stage.run(20)
    return stage


def several(place: Place) -> Stage:
    """Three services of the same servers."""
    text = "".join(service(4, number=n, extra=f'scheduler = "{s}"') for n, s in enumerate(("sed", "wlc", "wrr")))
    stage = Stage(text, place)
    stage.run(15)
    stage.servers[2].available = 0.4
    stage.run(10)
    stage.master.restart()
    stage.run(5)
    return stage


SCRIPTS: dict[str, Script] = {
    **{f"life-{s}": partial(life, scheduler=s) for s in SCHEDULERS},
    **{f"adopted-{s}": partial(life, scheduler=s, adopted=True) for s in ("sed", "wlc", "wrr")},
    **{f"law-{law}": partial(life, scheduler="sed", law=law) for law in LAWS[1:]},
    "known": known,
    **{f"learned-{s}": partial(learned, scheduler=s) for s in ("sed", "wlc")},
    **{
        f"{law}-{s}": partial(tiers, law=law, scheduler=s)
        for law in ("failover", "overflow", "spillover")
        for s in ("sed", "wlc", "fo", "ovf")
    },
    **{
        f"orders-{'adopted' if a else 'owned'}{'' if g else '-without-agents'}": partial(orders, adopted=a, agents=g)
        for a in (False, True)
        for g in (True, False)
    },
    **{
        f"restarts-{s}-{'adopted' if a else 'owned'}{'' if g else '-without-agents'}": partial(
            restarts, scheduler=s, adopted=a, agents=g
        )
        for s in ("sed", "wlc")
        for a in (False, True)
        for g in (True, False)
    },
    **{f"silence-{p}": partial(silence, policy=p) for p in ("hold", "static", "quiesce")},
    **{
        f"checks-{'adopted' if a else 'owned'}{'' if g else '-without-agents'}": partial(checks, adopted=a, agents=g)
        for a in (False, True)
        for g in (True, False)
    },
    **{f"errors-{s}": partial(errors, scheduler=s) for s in ("sed", "wlc")},
    **{f"owner-{s}": partial(owner, scheduler=s) for s in ("sed", "wlc", "wrr")},
    **{f"reloads{'' if g else '-without-agents'}": partial(reloads, agents=g) for g in (True, False)},
    "udp": other,
    "several": several,
}
