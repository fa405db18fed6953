"""The text that Prometheus scrapes: golden, rightly typed, joinable with node_exporter, and never a duplicate."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from feedback.web.metrics import render
from tests.web.documents import NOW, destination, document, real, service, troubled

GOLDEN = Path(__file__).with_name("metrics.txt")
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def text(made: dict[str, Any], accept: str = "") -> str:
    return render(made, NOW, accept)[0].decode()


def test_the_text_is_as_agreed() -> None:
    """Names and labels are an interface: other people's dashboards and alerts rest on them."""
    assert text(troubled()) == GOLDEN.read_text()


@pytest.mark.parametrize("parse, accept", [(parse_text, ""), (parse_openmetrics, OPENMETRICS)])
@pytest.mark.parametrize("made", [troubled(), real(), document(), document(decision_age_seconds=None)])
def test_both_formats_parse_and_no_sample_is_there_twice(
    parse: Callable[[str], Any], accept: str, made: dict[str, Any]
) -> None:
    families = list(parse(text(made, accept)))
    samples = [(s.name, tuple(sorted(s.labels.items()))) for f in families for s in f.samples]
    assert len(samples) == len(set(samples)) > 0


def test_the_types_are_what_the_names_say() -> None:
    for family in parse_text(text(troubled())):
        counted = any(s.name.endswith("_total") for s in family.samples)
        assert family.type == ("counter" if counted else "gauge"), family.name
        assert family.documentation.endswith(".")


@pytest.mark.parametrize(
    "virtual, address, labels",
    [
        (
            "tcp:10.0.0.100:80",
            "10.0.0.11:8080",
            {"proto": "TCP", "local_address": "10.0.0.100", "local_port": "80", "local_mark": "",
             "remote_address": "10.0.0.11", "remote_port": "8080", "family": "ipv4"},
        ),
        (
            "udp:[2001:db8::1]:53",
            "[2001:db8::11]:53",
            {"proto": "UDP", "local_address": "2001:db8::1", "local_port": "53", "local_mark": "",
             "remote_address": "2001:db8::11", "remote_port": "53", "family": "ipv6"},
        ),
        (
            "fwmark:268439552",  # node_exporter's own fixture: /proc/net/ip_vs says FWM 10001000
            "192.168.49.32:3306",
            {"proto": "FWM", "local_address": "", "local_port": "0", "local_mark": "10001000",
             "remote_address": "192.168.49.32", "remote_port": "3306", "family": "ipv4"},
        ),
    ],
)  # fmt: skip
def test_labels_are_node_exporters(virtual: str, address: str, labels: dict[str, str]) -> None:
    made = document(service(virtual, destination(address)))
    weights = [s for f in parse_text(text(made)) for s in f.samples if s.name == "feedback_real_server_weight"]
    assert [s.labels for s in weights] == [labels]


def test_what_is_not_known_is_absent_and_not_zero() -> None:
    made = document(service("tcp:10.0.0.100:80", destination("10.0.0.11:80", weight=None, utilisation=None)))
    found = {s.name for f in parse_text(text(made)) for s in f.samples}
    assert "feedback_real_server_weight" not in found
    assert "feedback_real_server_utilisation_ratio" not in found
    assert "feedback_real_server_target_weight" in found


def test_times_are_moments_and_not_ages() -> None:
    found = {s.name: s.value for f in parse_text(text(troubled())) for s in f.samples}
    assert found["feedback_start_timestamp_seconds"] == NOW - 3600
    assert found["feedback_last_decision_timestamp_seconds"] == NOW - 0.125
    assert found["feedback_config_last_reload_successful"] == 0


@pytest.mark.parametrize(
    "accept, expected",
    [
        ("application/openmetrics-text; version=nonsense", "application/openmetrics-text"),
        (OPENMETRICS, "application/openmetrics-text"),
        ("text/plain;version=..", "text/plain"),
        (",;=,", "text/plain"),
        ("\xff", "text/plain"),
    ],
)
def test_any_accept_is_answered(accept: str, expected: str) -> None:
    assert render(troubled(), NOW, accept)[1].startswith(expected)


@given(st.text(max_size=30), st.text(max_size=30))
def test_words_from_outside_cannot_break_the_text(law: str, result: str) -> None:
    made = document(service("tcp:10.0.0.100:80", law=law), counters={f"link_{result}": 3})
    families = {f.name: f for f in parse_text(text(made))}
    assert [s.labels["law"] for s in families["feedback_service_info"].samples] == [law]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is in Debian's package prometheus")
@pytest.mark.parametrize("made", [troubled(), real()])
def test_promtool_has_nothing_to_complain_of(made: dict[str, Any]) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text(made), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_each_metric_and_each_alert_is_explained() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    rules = (Path(__file__).parents[2] / "contrib" / "prometheus" / "feedback.rules.yml").read_text()
    names = {f.name.removeprefix("feedback_") for f in parse_text(text(troubled()))}
    names -= {"real_server_lower_threshold_connections"}  # named with the upper one
    alerts = re.findall(r"alert: (\w+)", rules)
    assert [name for name in (*names, *alerts) if name not in docs] == []
