"""A real Prometheus scrapes a real master; its rules and the dashboard rest on metrics that are there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from feedback.web.metrics import render
from tests.master.test_daemon import Site, run, site, until
from tests.ports import free_port
from tests.web.documents import NOW, troubled

__all__ = ["site"]  # the fixture

CONTRIB = Path(__file__).parents[2] / "contrib"
RULES = CONTRIB / "prometheus" / "feedback.rules.yml"

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="Debian's package prometheus is absent",
)


def promtool(*arguments: str, directory: Path = RULES.parent) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_the_rules_are_sound_and_fire_when_they_should_and_only_then() -> None:
    promtool("check", "rules", RULES.name)
    promtool("test", "rules", "feedback.test.yml")


def expressions() -> dict[str, str]:
    """Of the rules and the panels, by name, with the dashboard's variables filled in."""
    found = {}
    for block in re.split(r"- alert: ", RULES.read_text())[1:]:
        name, _, rest = block.partition("\n")
        one = re.search(r"expr: (?:\|\n)?(.*?)\n +(?:for|labels):", rest, re.DOTALL)
        assert one is not None, name
        found[name] = " ".join(one[1].split())
    for panel in json.loads((CONTRIB / "grafana" / "feedback.json").read_text())["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = re.sub(r"\$\w+", ".*", target["expr"])
    return found


def test_rules_and_panels_name_only_metrics_that_there_are() -> None:
    exported = set(re.findall(r"^(feedback_\w+)", render(troubled(), NOW)[0].decode(), re.MULTILINE))
    used = {name: set(re.findall(r"\bfeedback_\w+", text)) - exported for name, text in expressions().items()}
    assert {name: missing for name, missing in used.items() if missing} == {}


@contextmanager
def prometheus(directory: Path, target: int) -> Iterator[int]:
    """One that scrapes the target each second, with our rules. Its port."""
    port = free_port()
    config = directory / "prometheus.yml"
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(RULES)],
                "scrape_configs": [
                    {"job_name": "feedback", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]},
                ],
            }
        )
    )
    promtool("check", "config", str(config))
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory}/tsdb"]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            yield port
        finally:
            process.terminate()
            process.wait(60)


def ask(port: int, path: str, **parameters: str) -> Any:
    url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)["data"]


def value(port: int, query: str) -> list[float]:
    return sorted(float(series["value"][1]) for series in ask(port, "query", query=query)["result"])


@needs_prometheus
def test_a_real_prometheus_scrapes_a_real_master_without_error(site: Site, tmp_path: Path) -> None:
    pages = free_port()
    site.write(f'[http]\nlisten = "127.0.0.1:{pages}"')

    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        with prometheus(tmp_path, pages) as port, zmq.Context() as context:
            until(lambda: answers(port))
            site.report(context, 9.0)  # its discovery publishes the first target after 5 s
            until(lambda: value(port, "feedback_real_server_weight") == sorted(site.weights()))
            target = ask(port, "targets")["activeTargets"][0]
            assert (target["health"], target["lastError"]) == ("up", "")
            assert value(port, 'feedback_reports_total{result="accepted"}')[0] > 20
            assert value(port, 'sum(feedback_real_server_state{state="fresh"})') == [2]
            for name, query in expressions().items():
                assert isinstance(ask(port, "query", query=query)["result"], list), name
            assert [r["health"] for g in ask(port, "rules")["groups"] for r in g["rules"]].count("ok") == 20
            assert [a for a in ask(port, "alerts")["alerts"] if a["state"] == "firing"] == []

    run(site, work)


def answers(port: int) -> bool:
    try:
        return bool(ask(port, "status/runtimeinfo"))
    except OSError:
        time.sleep(0.05)
        return False
