"""Would a takeover work now? Every reason why not, with a remedy. Pure: facts in, findings out."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec


class Level(StrEnum):
    ERROR = "error"  # a takeover would fail, or lose something
    WARNING = "warning"  # it would work, but something is not as it should be


class Finding(msgspec.Struct, frozen=True):
    level: Level
    what: str
    mend: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon knows. `status` is that of `sync status`. `limitation` says why this director could not serve.
    `problems` are those of the kernel's replication. `foreign` is advice on addresses that are not ours."""

    status: dict[str, Any]
    limitation: str | None = None
    problems: Sequence[str] = ()
    foreign: Sequence[str] = ()
    replicates: bool = True


def examine(facts: Facts) -> tuple[Finding, ...]:
    """The findings, the worst first."""
    found = [*_pair(facts), *_replica(facts), *_tracking(facts), *_host(facts)]
    return tuple(sorted(found, key=lambda f: f.level is not Level.ERROR))


def verdict(findings: Sequence[Finding]) -> str:
    errors = sum(f.level is Level.ERROR for f in findings)
    if errors:
        return f"a takeover now would fail or lose connections: {errors} reason{'s' * (errors > 1)} above"
    return "a takeover would work now" + (", with the remarks above" if findings else "")


def _pair(facts: Facts) -> list[Finding]:
    s = facts.status
    peer, found = s["peer"], []
    if peer["age_seconds"] is None:
        what = f"{peer['name']} was never heard: no director could take over"
        return [Finding(Level.ERROR, what, f"on {peer['name']}: systemctl status feedback-sync; the same pair.key?")]
    if not peer["alive"]:
        what = f"{peer['name']} has not been heard for {peer['age_seconds']:.1f} s"
        found.append(Finding(Level.ERROR, what, f"on {peer['name']}: systemctl status feedback-sync; then the links"))
    if peer["version_differs"]:
        what = f"{peer['name']} speaks heartbeat protocol {peer['version']}"
        found.append(Finding(Level.ERROR, what, "install the same version of lvs-feedback on both"))
    roles = {s["role"], peer["role"]}
    if "active" not in roles:
        found.append(Finding(Level.ERROR, "neither director is active", f"the reason here: {s['reason']}"))
    silent = [link for link in s["links"] if not link["up"]]
    for link in silent:
        level = Level.ERROR if len(silent) == len(s["links"]) else Level.WARNING
        found.append(
            Finding(level, f"link {link['local']} to {link['peer']} is silent", "cable, switch, firewall (UDP)?")
        )
    if len(s["links"]) == 1:
        what = (
            "there is only one link: if its cable is cut, only the look at the addresses prevents two active directors"
        )
        found.append(Finding(Level.WARNING, what, "add a second [[link]] over another cable or network"))
    return found


def _replica(facts: Facts) -> list[Finding]:
    s = facts.status
    if not facts.replicates:
        what = "connections are not replicated: a takeover cuts them all"
        return [Finding(Level.WARNING, what, 'set mode = "relay" in [replication]')]
    here = s["role"] != "active"
    where, state, told = "here", s["replica"]["state"], s["replica"]["text"]
    if not here:
        where, state, told = f"on {s['peer']['name']}", s["peer"]["replica"], s["peer"]["replica"]
    found = []
    if state != "complete" and s["peer"]["age_seconds"] is not None:
        what = f"the replica {where} is not complete: {told}"
        found.append(Finding(Level.ERROR, what, "wait; if it stays so: feedback sync resync on the standby"))
    elif here and s["replica"]["lacking"]:
        what = f"the replica here is {told}: a takeover would cut them"
        found.append(
            Finding(Level.ERROR, what, "feedback sync resync, when the active director's ledger has room again")
        )
    return [*found, *_ledger(s["replica"]["ledger"])]


def _ledger(ledger: dict[str, int] | None) -> list[Finding]:
    if ledger is None or not ledger["lacking"]:
        return []
    lacking, limit = ledger["lacking"], ledger["limit"]
    what = (
        f"at most {lacking:,} connections do not fit in the ledger here, which holds {limit:,}: "
        "a standby that starts or falls behind now would lack them"
    )
    mend = "wait until they expire; ipvsadm -Ln shows which service has so many: a flood?"
    return [Finding(Level.WARNING, what, mend)]


def _tracking(facts: Facts) -> list[Finding]:
    """Findings on a stateful firewall. IPVS applies the setting to new connections only, so both directors need it
    first."""
    tracking, peer = facts.status.get("tracking"), facts.status["peer"]["name"]
    if tracking is None:
        return []
    found = []
    if tracking["peer"] is not None and tracking["here"] is not tracking["peer"]:
        here, there = ("is", "is not") if tracking["here"] else ("is not", "is")
        what = (
            f"the connection tracking {here} shared by IPVS here, and {there} on {peer}: after a takeover a stateful "
            "firewall drops masqueraded connections"
        )
        where = f"on {peer}" if tracking["here"] else "here"
        mend = f'{where}: sysctl -w net.ipv4.vs.conntrack=1, and [conntrack] mode = "auto" in sync.toml'
        found.append(Finding(Level.ERROR, what, mend))
    if tracking["untracked"]:
        what = (
            f"net.ipv4.vs.conntrack was set to 1 when {tracking['untracked']:,} connections existed: "
            "IPVS keeps these out of the tracking until they end"
        )
        found.append(Finding(Level.WARNING, what, "set it at boot, in /etc/sysctl.d; on a standby: reboot"))
    if tracking["problem"]:
        what = f"tracking entries cannot be written at a takeover: {tracking['problem']}"
        found.append(Finding(Level.ERROR, what, "modprobe nf_conntrack_netlink, and in /etc/modules-load.d"))
    refused = sum(((tracking["written"] or {}).get("refused") or {}).values())
    if refused:
        what = f"at the last takeover {refused:,} tracking entries were refused: {tracking['written']['refused']}"
        found.append(Finding(Level.WARNING, what, "ENOMEM: a larger net.netfilter.nf_conntrack_max on both directors"))
    return found


def _host(facts: Facts) -> list[Finding]:
    found = []
    if facts.limitation is not None:
        found.append(
            Finding(Level.ERROR, f"this director could not serve: {facts.limitation}", "ip -brief link; reach")
        )
    for problem in facts.problems:
        found.append(Finding(Level.ERROR, problem, "systemctl restart feedback-sync restores it; who changed it?"))
    for advice in facts.foreign:
        what, _, mend = advice.partition(": ")
        found.append(Finding(Level.ERROR, what, mend or advice))
    return found
