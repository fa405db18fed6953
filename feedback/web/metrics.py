"""Metrics of a status in Prometheus's and OpenMetrics's text. Pure. docs/metrics.md says what each one means.

Labels of real servers are node_exporter's (collector/ipvs_linux.go), value for value, so that its `node_ipvs_*` join by
`on (local_address, local_port, proto, local_mark, remote_address, remote_port)`; traffic and connections are its, and
not exported twice. `family` is ours: the two services of one firewall mark differ in nothing else.

Invariant: no two samples have the same name and labels (Prometheus refuses the whole scrape), and what is not known is
absent, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

import feedback
from feedback.model import DestinationKey, ServiceKey
from feedback.web.view import Document

SERVICE_LABELS = ("family", "local_address", "local_port", "proto", "local_mark")
SERVER_LABELS = (*SERVICE_LABELS, "remote_address", "remote_port")

STATES = ("fresh", "stale", "lost", "never", "quiesced", "barred", "standby", "removed")

SERVER_GAUGES = (  # name, key in the document, help
    ("weight", "weight", "Weight in the kernel."),
    ("target_weight", "target_weight", "Weight that the last decision wants."),
    ("base_weight", "base_weight", "Static weight: of the configuration, or of the service's other owner."),
    ("share_ratio", "share", "Share of the service's connections that the weight stands for."),
    ("upper_threshold_connections", "upper", "Upper threshold; 0 is none."),
    ("lower_threshold_connections", "lower", "Lower threshold; 0 is none."),
    ("utilisation_ratio", "utilisation", "Use of its dominant resource, relative to what it can have."),
    ("available_ratio", "available", "Part of it that its neighbours leave it."),
    ("memory_available_ratio", "memory_available", "Memory available, relative to the total that bounds it."),
    ("capacity_connections_per_second", "capacity_per_second", "Connections that it can complete in a second."),
    ("capacity_deviation_ratio", "deviation", "Relative uncertainty of the capacity (one standard deviation)."),
    ("connections_per_second", "rate_per_second", "New connections."),
    ("cores", "cores", "CPUs that it may use."),
)

COUNTERS = (  # name, key in the document's counters, help
    ("ipvs_edits", "edits", "Edits sent to the kernel's table."),
    ("ipvs_errors", "ipvs_errors", "Edits that the kernel refused, and failed attempts to read it."),
    ("ipvs_foreign_changes", "foreign_edits", "Weights that somebody else wrote over ours."),
    ("exporter_readings", "readings", "Pages of exporters that were read."),
    (
        "faults",
        "faults",
        "Faults of the master: a service keeps its weights, a server is learned anew, or something is begun again.",
    ),
)

LINK = "link_"  # what the link counts of frames, by result


def render(document: Document, now: float, accept: str = "") -> tuple[bytes, str]:
    """The text and its content type: OpenMetrics where the client's Accept names it. `now` is the wall clock's.

    The library's own negotiation raises at a version that is no number, and repeats the client's words in the answer.
    """
    status = _Status(document, now)
    if "application/openmetrics-text" in accept:
        encode: Any = openmetrics.generate_latest  # without types in the library
        return encode(status), openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(status), "text/plain; version=0.0.4; charset=utf-8"


class _Status(Collector):
    def __init__(self, document: Document, now: float) -> None:
        self._document, self._now = document, now

    def collect(self) -> Iterator[Metric]:
        document = self._document
        services = [(_service_labels(s["virtual"]), s) for s in document["services"]]
        yield from _of_master(document, self._now)
        yield from _of_services(services)
        servers = [
            ([*labels, *_remote(d["address"])], d) for labels, service in services for d in service["destinations"]
        ]
        yield from _of_servers(servers, self._now)


def _of_master(document: Document, now: float) -> Iterator[Metric]:
    yield InfoMetricFamily("feedback_build", "Version of this master.", {"version": feedback.__version__})
    yield _gauge("start_timestamp_seconds", "When this master started.", now - document["uptime_seconds"])
    age = document.get("decision_age_seconds")
    if age is not None:
        text = "When the kernel last answered and a decision was made."
        yield _gauge("last_decision_timestamp_seconds", text, now - age)
    yield _gauge("director_active", "Whether this director is the active one.", document.get("role") != "standby")
    text = "At most so many connections exceed the limit of replication: a takeover would cut them."
    yield _gauge("director_connections_lacking", text, document.get("connections_lacking", 0))
    steering = document.get("steering")
    if steering:
        text = "Whether marks, rules and routes of ranges are as configured."
        yield _gauge("steering_settled", text, steering["settled"])
    reload = document.get("reload")
    if reload:
        yield _gauge("config_last_reload_successful", "Whether the last reload succeeded.", reload["good"])
        yield _gauge("config_last_reload_timestamp_seconds", "When the last reload was.", now - reload["age_seconds"])
    counters = document.get("counters", {})
    for name, key, text in COUNTERS:
        yield CounterMetricFamily(f"feedback_{name}", text, counters.get(key, 0))
    results = CounterMetricFamily("feedback_reports", "Frames of agents, by result.", labels=["result"])
    results.add_metric(["accepted"], counters.get(f"{LINK}accepted", 0))
    for key, count in sorted(counters.items()):
        if key.startswith(LINK) and key != f"{LINK}accepted":
            results.add_metric([key.removeprefix(LINK)], count)
    yield results


def _of_services(services: Iterable[tuple[list[str], dict[str, Any]]]) -> Iterator[Metric]:
    flow = _family("service_connections_per_second", "New connections per second of the service.", SERVICE_LABELS)
    held = _family("service_held", "Whether everything is held as it is, and no law is followed.", SERVICE_LABELS)
    info = InfoMetricFamily("feedback_service", "Scheduler and law of the service.", labels=SERVICE_LABELS)
    for labels, service in services:
        flow.add_metric(labels, service["connections_per_second"])
        held.add_metric(labels, bool(service["held"]))
        info.add_metric(labels, {"scheduler": service["scheduler"], "law": service["law"]})
    yield from (info, flow, held)


def _of_servers(servers: list[tuple[list[str], dict[str, Any]]], now: float) -> Iterator[Metric]:
    for name, key, text in SERVER_GAUGES:
        family = _family(f"real_server_{name}", text, SERVER_LABELS)
        for labels, d in servers:
            if d.get(key) is not None:
                family.add_metric(labels, d[key])
        yield family
    reported = _family("real_server_last_report_timestamp_seconds", "When its load was last sampled.", SERVER_LABELS)
    state = _family("real_server_state", "1 for the state that it is in.", (*SERVER_LABELS, "state"))
    checked = _family("real_server_check_up", "Whether its health check passes.", SERVER_LABELS)
    expiry = _family("real_server_certificate_expiry_timestamp_seconds", "When its certificate expires.", SERVER_LABELS)
    for labels, d in servers:
        check = d.get("check") or {}
        if check.get("up") is not None:
            checked.add_metric(labels, check["up"])
        if check.get("certificate_expires_at") is not None:
            expiry.add_metric(labels, check["certificate_expires_at"])
        if d.get("age_seconds") is not None:
            reported.add_metric(labels, now - d["age_seconds"])
        for word in STATES if d["state"] in STATES else (*STATES, d["state"]):
            state.add_metric([*labels, word], d["state"] == word)
    yield from (reported, state, checked, expiry)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"feedback_{name}", text, float(value))


def _family(name: str, text: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"feedback_{name}", text, labels=labels)


def _service_labels(virtual: str) -> list[str]:
    key = ServiceKey.parse(virtual)
    if key.address is None:
        return [key.family, "", "0", "FWM", f"{key.fwmark:08X}"]
    return [key.family, str(key.address), str(key.port), str(key.protocol).upper(), ""]


def _remote(address: str) -> list[str]:
    key = DestinationKey.parse(address)
    return [str(key.address), str(key.port)]
