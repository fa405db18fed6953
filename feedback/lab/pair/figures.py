"""Figures from the outcomes of streams, and from who answered. Pure except for reading a finished run's files.

Input is in seconds; output is in milliseconds where the name says so. The names are those of the scenarios' table, with
the policy's name before them unless it is feedback.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median

from feedback.lab.figures import Figures
from feedback.lab.pair import looks
from feedback.lab.pair.looks import D2, Look
from feedback.lab.pair.topology import FLOATING
from feedback.lab.trace import Trace
from feedback.lab.workload import streams
from feedback.lab.workload.records import Record
from feedback.lab.workload.streams import Stream


def prefix(variant: str) -> str:
    return "" if variant == "feedback" else f"{variant}_"


def of_streams(found: Sequence[Stream]) -> Figures:
    """`established` and `survived` count all connections that had sent something, and downloads. Those that had sent
    nothing are counted apart as `mute`, since the kernel synchronises no connection before its third packet."""
    kinds: dict[str, list[Stream]] = {}
    for stream in found:
        kinds.setdefault(stream.kind, []).append(stream)
    connections = [s for kind in ("talk", "idle", "download") for s in kinds.get(kind, [])]
    gaps = [1000 * s.gap_seconds for s in kinds.get("talk", [])]
    every = [1000 * s.gap_seconds for kind in ("talk", "idle") for s in kinds.get(kind, [])]
    figures: Figures = {
        "established": len(connections),
        "survived": sum(s.survived for s in connections),
        "gap_ms": median(gaps) if gaps else math.nan,
        "gap_max_ms": max(every, default=math.nan),
    }
    for kind, name in (("idle", "idle"), ("download", "downloads"), ("mute", "mute")):
        if kind in kinds:
            figures |= {name: len(kinds[kind]), f"{name}_survived": sum(s.survived for s in kinds[kind])}
    if "download" in kinds:
        figures["download_stall_max_ms"] = max(1000 * s.gap_seconds for s in kinds["download"])
    if "udp" in kinds:
        figures["udp_lost"] = sum(s.sent - s.received for s in kinds["udp"])
        figures["udp_moved"] = sum(not s.survived for s in kinds["udp"])
    return figures


def delay_max_ms(records: Iterable[Record], begin: float, end: float) -> float:
    """The longest time from the sending of a record to its echo, among those sent between these moments. A lost record
    counts until it was given up."""
    delays = (record.latency_seconds for record in records if begin <= record.intended < end)
    return 1000 * max(delays, default=math.nan)


def of_ways(found: Iterable[Stream]) -> Figures:
    """How many streams were lost, by way: direct routing or masquerading, IPv4 or IPv6."""
    lost: Figures = {}
    for stream in found:
        if stream.kind in ("talk", "idle", "download"):
            name = f"lost_{stream.target}"
            lost[name] = lost.get(name, 0) + (not stream.survived)
    return lost


def of_takeover(seen: Sequence[Look], died: float) -> Figures:
    """`vip_ms` counts until the last of the VIPs answers on the standby, `gateway_ms` likewise."""
    at = [1000 * (looks.answered_at(looks.of(seen, i), D2, died) - died) for i in range(len(FLOATING))]
    front = [i for i, (_, interface) in enumerate(FLOATING) if interface == "eth0"]
    return {
        "vip_ms": max(at[i] for i in front),
        "gateway_ms": max(at[i] for i in range(len(FLOATING)) if i not in front),
        "both_active_ms": both_active_ms(seen),
    }


def both_active_ms(seen: Sequence[Look], begin: float = -math.inf, end: float = math.inf) -> float:
    """The longest time for which both directors answered for the same address."""
    each = [looks.seconds_with(looks.of(seen, i), looks.BOTH, begin, end) for i in range(len(FLOATING))]
    return 1000 * max(each)


def role_changes(seen: Sequence[Look], begin: float = -math.inf, end: float = math.inf) -> int:
    """The largest number of changes of owner of any address."""
    return max(looks.changes(looks.of(seen, i), begin, end) for i in range(len(FLOATING)))


def of_visits(trace: Trace) -> Figures:
    """How many clients of the persistent service reached another real server afterwards."""
    visits = [event.details["found"] for event in trace.events if event.what == "visits"]
    if len(visits) < 2:
        return {}
    before, after = visits[0], visits[-1]
    return {"persistent_moved": sum(before[source] != after[source] for source in before)}


def unanswered(trace: Trace) -> int:
    """How many of the new connections to the persistent service nobody answered."""
    visits = [event.details["found"] for event in trace.events if event.what == "visits"]
    return sum(answer.startswith("nobody") for found in visits for answer in found.values())


def of_cpu(trace: Trace) -> Figures:
    """The idle part of the machine's time before anything happened, and what the lab itself used."""
    marks = {event.what: event for event in trace.events if event.what.startswith("busy ")}
    if len(marks) < 2:
        return {}
    before, after = marks["busy from"], marks["busy to"]
    seconds = after.at - before.at
    own = sum(
        after.details["used_seconds"].get(name, used) - used
        for name, used in before.details["used_seconds"].items()
        if not name.startswith(("d1-", "d2-"))
    )
    idle = after.details["idle_seconds"] - before.details["idle_seconds"]
    return {"idle_share": idle / seconds, "lab_cpu_share": own / seconds}


def read_looks(trace: Trace) -> list[Look]:
    return looks.read(trace.output / looks.FILE)


def read_streams(trace: Trace) -> list[Stream]:
    return streams.read(trace.output / streams.FILE)


def common(trace: Trace) -> Figures:
    """What every scenario of the pair reports of its streams."""
    found = read_streams(trace)
    return of_streams(found) | of_ways(found) | of_visits(trace) | of_cpu(trace)


def named(variant: str, figures: Figures) -> Figures:
    return {f"{prefix(variant)}{name}": value for name, value in figures.items()}
