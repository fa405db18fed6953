"""Status documents for the pages: one by hand, with a server for each kind of trouble, and one of a real controller."""

from __future__ import annotations

from typing import Any

from feedback.master.controller import Controller
from feedback.master.shell.status import of_master
from tests.master.builders import Table, config, report

NOW = 1_800_000_000.0  # the wall clock of the tests


def destination(address: str, **given: Any) -> dict[str, Any]:
    return {
        "address": address,
        "forward": "route",
        "weight": 100,
        "active": 7,
        "inactive": 30,
        "target_weight": 100,
        "share": 0.25,
        "base_weight": 100,
        "upper": 0,
        "lower": 0,
        "state": "fresh",
        "age_seconds": 0.25,
        "utilisation": 0.5,
        "available": 1.0,
        "capacity_per_second": 80.0,
        "deviation": 0.05,
        "rate_per_second": 40.0,
        "cores": 2.0,
        "memory_available": 0.75,
        "reasons": [{"stage": "law", "text": "80/s", "value": 0.25}, {"stage": "actuate", "text": "sed", "value": 100}],
    } | given


EXPIRING = {
    "up": True,
    "text": "200 in 3 ms",
    "warning": "the certificate expires on 2027-01-24, in 9 days",
    "certificate_expires_at": NOW + 9.5 * 86400,
}
UNKNOWN = dict.fromkeys(
    ("utilisation", "available", "capacity_per_second", "deviation", "rate_per_second", "cores", "memory_available")
)


def service(virtual: str, *destinations: dict[str, Any], **given: Any) -> dict[str, Any]:
    return {
        "virtual": virtual,
        "scheduler": "sed",
        "persistence_seconds": 0,
        "law": "capacity",
        "connections_per_second": 120.5,
        "held": "",
        "destinations": list(destinations),
    } | given


def document(*services: dict[str, Any], **given: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "source": "master",
        "services": list(services),
        "director": "d1",
        "role": "active",
        "uptime_seconds": 3600.0,
        "decision_age_seconds": 0.125,
        "counters": {"edits": 12, "link_accepted": 5000, "link_malformed": 2},
    } | given


def troubled() -> dict[str, Any]:
    zero = [
        {"stage": "law", "text": "80/s", "value": 0.25},
        {"stage": "guard", "text": "answers with errors: out for 4 s more", "value": 0.0},
        {"stage": "actuate", "text": "sed: 0.0 % of the pool", "value": 0},
    ]
    return document(
        service(
            "tcp:10.0.0.100:80",
            destination("10.0.0.11:80", check=EXPIRING),
            destination("10.0.0.12:80", state="lost", age_seconds=42.0, check={"up": None, "text": "not yet"}),
            destination("10.0.0.13:80", weight=0, target_weight=0, share=0.0, reasons=zero),
            destination("10.0.0.14:80", state="quiesced", weight=0, target_weight=0, share=0.0),
        ),
        service("udp:[2001:db8::1]:53", destination("[2001:db8::11]:53", state="never", age_seconds=None, **UNKNOWN)),
        service("fwmark:7", destination("10.0.0.11:0", upper=500, lower=400), held="3 of 4 agents fell silent"),
        service("fwmark:7:ipv6", destination("[2001:db8::11]:0")),
        reload={"good": False, "age_seconds": 60.0},
        steering={"state": "kept", "settled": True, "problem": ""},
    )


def real() -> dict[str, Any]:
    """Two servers that reported, one that never did, as a controller decides."""
    controller, table = Controller(config(3)), Table()
    for k in range(1, 40):
        for i in (1, 2):
            controller.receive_report(report(i, at=k / 5, sequence=k, busy=k * i / 20, opened=k * 10), k / 5)
        controller.receive_kernel(table.snapshot(), k / 5)
        decision = controller.decide(k / 5)
        table.apply(decision.edits)
    return of_master(decision, {k: v for k, v in document().items() if k not in {"services", "schema", "source"}})
