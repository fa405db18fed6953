"""`show` and `explain` against a master's answer, as an operator runs them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from feedback.cli.main import COMMANDS, main
from feedback.cli.show import chains
from feedback.master.shell.status import of_decision
from feedback.ops.control import serve
from tests.master.test_controller import Bench, config


def status() -> dict[str, Any]:
    bench = Bench(config(2), [100, 300])
    bench.run(5)
    bench.controller.receive_kernel(bench.table.snapshot(), bench.now)
    return of_decision(bench.controller.decide(bench.now))


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Path]:
    path, loop, ready = tmp_path / "s.sock", asyncio.new_event_loop(), threading.Event()
    answer = status()

    async def run() -> None:
        server = await serve(path, lambda request: answer)
        ready.set()
        async with server:
            await stop.wait()

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert ready.wait(5)
    yield path
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


def run(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_show_has_ipvsadms_look_with_load_target_and_age(control: Path) -> None:
    result = run("show", "--control", str(control))
    lines = result.output.splitlines()
    assert result.exit_code == 0
    assert lines[0] == "Prot LocalAddress:Port Scheduler Flags"
    assert lines[1].startswith("  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn")
    assert lines[2] == "TCP  10.0.0.100:80 sed"
    assert lines[3].startswith("  -> 10.0.0.11:80                 Route   ")
    assert " 50% " in lines[3] and lines[3].endswith("fresh")


def test_show_json_has_a_schema_version_and_every_figure(control: Path) -> None:
    answer = json.loads(run("show", "--control", str(control), "--json").output)
    assert answer["schema"] == 1
    first = answer["services"][0]["destinations"][0]
    assert {"weight", "share", "utilisation", "capacity_per_second", "age_seconds", "reasons"} <= first.keys()


@pytest.mark.parametrize("destination", ["10.0.0.11", "10.0.0.11:80"])
def test_explain_prints_each_stage_with_its_value(control: Path, destination: str) -> None:
    result = run("explain", destination, "--control", str(control))
    assert result.exit_code == 0
    assert "10.0.0.11:80 in tcp:10.0.0.100:80 (sed, law capacity): weight" in result.output
    assert "law" in result.output and "actuate" in result.output and "capacity 10" in result.output


@pytest.mark.parametrize(
    "check, expected",
    [
        ({"up": True, "text": "tls: connected, 3 ms", "warning": ""}, ["check up tls: connected, 3 ms"]),
        (
            {"up": False, "text": "tcp: refused", "warning": "expires in 2 days"},
            ["check down tcp: refused", "expires in 2 days"],
        ),
        ({"up": None, "text": "not asked: why"}, ["check not asked: why"]),
        (None, []),
    ],
)
def test_explain_says_how_the_check_stands(check: dict[str, Any] | None, expected: list[str]) -> None:
    (destination, *_) = status()["services"][0]["destinations"]
    found = {"virtual": "tcp:10.0.0.100:80", "scheduler": "sed", "law": "capacity"} | destination | {"check": check}
    lines = [" ".join(line.split()) for line in chains([found]).splitlines()]
    assert lines[1 : 1 + len(expected)] == expected
    assert lines[1 + len(expected)].startswith("source agent, ")
    assert lines[2 + len(expected)].startswith("law ")


def test_an_unknown_destination_is_an_error_that_names_the_known(control: Path) -> None:
    result = run("explain", "10.9.9.9", "--control", str(control))
    assert result.exit_code == 1
    assert "10.0.0.11:80" in result.output


def test_without_a_master_the_exit_status_is_3(tmp_path: Path) -> None:
    result = run("show", "--control", str(tmp_path / "none"))
    assert result.exit_code == 3
    assert "is `feedback master` running?" in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output and len(result.output.splitlines()) > 5
