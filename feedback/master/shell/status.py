"""Status: a decision as plain data for people and programs: the answer of the control socket, `show` and `explain`.

Pure. The shape is versioned: `schema` is raised when a field changes its meaning or goes away.
"""

from __future__ import annotations

from typing import Any

import msgspec

from feedback.master.account import ServiceStatus
from feedback.master.claims.health import Checked
from feedback.master.controller import Decision
from feedback.master.outcome import Status
from feedback.model import Forward, ServiceEntry, Snapshot
from feedback.web.past import Figures, Place

SCHEMA = 1


def of_decision(decision: Decision) -> dict[str, Any]:
    return {"schema": SCHEMA, "source": "master", "services": [_service(s) for s in decision.services]}


def of_master(decision: Decision | None, facts: dict[str, Any]) -> dict[str, Any]:
    """A decision and what the master says of itself. For any thread, once the decision's services are kept."""
    return of_decision(decision or Decision()) | facts


def of_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    """What can be said without a master: the kernel's table."""
    return {"schema": SCHEMA, "source": "kernel", "services": [_bare(s) for s in snapshot.services]}


def places(of: ServiceStatus) -> list[tuple[Place, Figures]]:
    """What the page's past keeps of a service and of each of its destinations."""
    virtual, found = str(of.service.key), of.figures()
    loads = [load for _, _, load, _, _, _ in found if load is not None]
    whole = (None, sum(loads) / len(loads) if loads else None, sum(figures[3] for figures in found), of.flow, None)
    return [((virtual, ""), whole), *(((virtual, of_one[0]), of_one[1:]) for of_one in found)]


def _service(status: ServiceStatus) -> dict[str, Any]:
    service = status.service
    return {
        "virtual": str(service.key),
        "scheduler": service.scheduler,
        "persistence_seconds": service.timeout_seconds if service.persistent else 0,
        "law": status.law,
        "connections_per_second": round(status.flow, 2),
        "held": status.held,
        "holder": None if status.holder is None else str(status.holder),
        "destinations": [_destination(s) for s in status.destinations],
    }


def _destination(of: Status) -> dict[str, Any]:
    kernel, estimate = of.kernel, of.estimate
    return {
        "address": str(of.key),
        "forward": Forward(of.base.forward).name.lower(),
        "weight": kernel.destination.weight if kernel else None,
        "active": kernel.active if kernel else 0,
        "inactive": kernel.inactive if kernel else 0,
        "target_weight": of.weight,
        "share": round(of.share, 4),
        "base_weight": of.base.weight,
        "upper": of.upper,
        "lower": of.lower,
        "state": of.state,
        "source": None if of.source is None else str(of.source),
        "unread": None if of.unread is None else str(of.unread),
        "age_seconds": None if of.age_seconds is None else round(of.age_seconds, 3),
        "utilisation": round(estimate.utilisation, 4) if estimate else None,
        "available": round(estimate.available, 4) if estimate else None,
        "capacity_per_second": round(estimate.capacity, 2) if estimate else None,
        "deviation": round(estimate.deviation, 4) if estimate else None,
        "rate_per_second": round(estimate.rate, 2) if estimate else None,
        "cores": estimate.cores if estimate else None,
        "memory_available": round(estimate.memory_available, 4) if estimate else None,
        "check": _check(of.checked) if of.checked else None,
        "order": {"kind": str(of.order.kind), "text": str(of.order)} if of.order else None,
        "reasons": [{"stage": s.stage, "text": str(s.fact), "value": s.value} for s in of.steps],
    }


def _check(checked: Checked) -> dict[str, Any]:
    return {
        "up": checked.up,
        "text": checked.text,
        "warning": checked.warning,
        "certificate_expires_at": checked.expires_at,
        "latency_seconds": None if checked.seconds is None else round(checked.seconds, 4),
        "unasked": msgspec.structs.asdict(checked.unasked) if checked.unasked else None,
    }


def _bare(entry: ServiceEntry) -> dict[str, Any]:
    service = entry.service
    return {
        "virtual": str(service.key),
        "scheduler": service.scheduler,
        "persistence_seconds": service.timeout_seconds if service.persistent else 0,
        "destinations": [
            {
                "address": str(e.destination.key),
                "forward": Forward(e.destination.forward).name.lower(),
                "weight": e.destination.weight,
                "active": e.active,
                "inactive": e.inactive,
                "upper": e.destination.upper,
                "lower": e.destination.lower,
            }
            for e in entry.destinations
        ],
    }
