"""Configurations, keys, clock, daemons and agents. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from feedback.doctor.facts import Facts, Finding, Level
from feedback.ipvs.text import removal
from feedback.model import ServiceKey

SILENT_SECONDS = 5.0
FORGOTTEN_SECONDS = 86400.0  # an order without an end is mentioned after a day


def examine(facts: Facts) -> Iterator[Finding]:
    yield from _configurations(facts)
    for path in facts.unreadable:
        what = f"{path}: does not belong to the daemons' user, feedback: they cannot read it"
        yield Finding(Level.ERROR, "keys", what, f"chown feedback {path}")
    yield from _clock(facts)
    if facts.directs:
        yield from _master(facts)
        yield from facts.sync
        if facts.sync_problem:
            yield Finding(Level.ERROR, "sync", facts.sync_problem, "systemctl enable --now feedback-sync")
    if facts.status is not None:
        yield from _agents(facts, facts.status)
        yield from _checks(facts.status)
        yield from _orders(facts, facts.status)


def _configurations(facts: Facts) -> Iterator[Finding]:
    if not facts.configurations:
        mend = "copy one of examples/ to /etc/feedback: master.toml on a director, agent.toml on a real server"
        yield Finding(Level.ERROR, "configuration", "nothing is configured here", mend)
    for found in facts.configurations:
        if not found.good:
            what, mend = _split(found.text)
            yield Finding(Level.ERROR, "configuration", what, mend or f"edit {found.path}; then: feedback check")


def _split(text: str) -> tuple[str, str]:
    """Our own errors end in what to do, behind the last colon, where it is a command."""
    what, _, mend = text.rpartition(": ")
    return (what, mend) if mend.startswith(("chmod ", "chown ")) else (text, "")


def _clock(facts: Facts) -> Iterator[Finding]:
    if facts.clock_synchronised is False:
        what = "the clock is not synchronised: orders end at the wrong time on a director, and logs cannot be compared"
        yield Finding(Level.WARNING, "clock", what, "timedatectl set-ntp true   (or start chrony)")


def _master(facts: Facts) -> Iterator[Finding]:
    status = facts.status
    if status is None:
        if facts.master_problem:
            mend = "systemctl enable --now feedback-master; journalctl -u feedback-master"
            yield Finding(Level.ERROR, "master", facts.master_problem, mend)
        return
    age = status.get("decision_age_seconds")
    if age is not None and age > SILENT_SECONDS:
        what = f"the master has made no decision for {age:.0f} s: weights stay as they are"
        yield Finding(Level.ERROR, "master", what, "journalctl -u feedback-master")
    if status.get("reload", {}).get("good") is False:
        what = "the last reload was refused: the old configuration is in force"
        yield Finding(Level.WARNING, "master", what, "feedback check; then: systemctl reload feedback-master")
    for left in status.get("left", ()):
        what = f"{left}: was made by this master, is no longer in its file, and keeps its last weights"
        mend = f"{removal(ServiceKey.parse(left))}   (or for all: remove_unlisted = true in master.toml, and reload)"
        yield Finding(Level.WARNING, "service", what, mend)


def _agents(facts: Facts, status: dict[str, Any]) -> Iterator[Finding]:
    told: set[str] = set()
    for service in status["services"]:
        for d in service["destinations"]:
            address = d["address"].rpartition(":")[0].strip("[]")
            if address not in told and (found := _agent(facts, address, d)) is not None:
                told.add(address)
                yield found
        destinations = [d for d in service["destinations"] if d["state"] != "quiesced"]
        if destinations and all(d["state"] == "never" for d in destinations):
            what = f"{service['virtual']}: no destination has an agent: its weights stay as they are"
            yield Finding(Level.WARNING, "agents", what, "install feedback-agent on its real servers, or agent_check")


def _agent(facts: Facts, address: str, d: dict[str, Any]) -> Finding | None:
    if d["state"] in ("stale", "lost"):
        what = f"the agent of {address} is {d['state']}: last report {d['age_seconds'] or 0:.0f} s ago"
        return Finding(Level.WARNING, "agents", what, f"on {address}: systemctl status feedback-agent")
    if d["state"] != "never":
        return None
    if address not in facts.enrolled:
        what = f"no agent is enrolled for {address}"
        return Finding(Level.WARNING, "agents", what, f"feedback keys enroll NAME --key PUBLIC --rip {address}")
    what = f"the agent of {address} has not reported since the master started"
    mend = f"on {address}: systemctl enable --now feedback-agent; port 7433 open to here?"
    return Finding(Level.WARNING, "agents", what, mend)


def _checks(status: dict[str, Any]) -> Iterator[Finding]:
    """Findings for the warnings of checks, once for each real server; and for what prevents checks, once."""
    unasked: dict[str, tuple[str, str]] = {}
    for service in status["services"]:
        for d in service["destinations"]:
            if d.get("check") and (found := d["check"].get("unasked")):
                unasked.setdefault(found["mend"], (found["reason"], d["address"]))
    for mend, (reason, destination) in unasked.items():
        yield Finding(Level.ERROR, "check", f"the check of {destination} cannot run: {reason}", mend)
    warned = {
        (d["address"].rpartition(":")[0].strip("[]"), d["check"]["warning"]): d["address"]
        for service in status["services"]
        for d in service["destinations"]
        if d.get("check") and d["check"].get("warning")
    }
    for (address, warning), destination in sorted(warned.items()):
        mend = f"on {address}: renew it, and reload its server; feedback explain {destination} shows the check"
        yield Finding(Level.WARNING, "check", f"{address}: {warning}", mend)


def _orders(facts: Facts, status: dict[str, Any]) -> Iterator[Finding]:
    for order in status.get("orders", ()):
        days = (facts.now - order["at"]) / 86400
        if order["until"] is None and days * 86400 > FORGOTTEN_SECONDS:
            where = order["destination"] or order["service"] or "everything"
            what = (
                f"{where}: {order['kind']} by {order['who'] or '?'} has been in force for {days:.0f} d and has no end"
            )
            word = "resume" if order["kind"] == "pause" else "undrain"
            subject = order["service"] if word == "resume" else order["destination"]
            yield Finding(Level.ADVICE, "orders", what, f"feedback {word} {subject}".strip())
