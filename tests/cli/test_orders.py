"""An operator's commands at a real master: what they do to the kernel's table, what they print, what they refuse."""

from __future__ import annotations

import getpass
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from feedback.cli.main import main
from feedback.ipvs import FakeKernel
from feedback.model import SetDestination
from feedback.ops import process
from feedback.ops.role import Role, RoleFile, RoleSaid
from tests.master import test_daemon
from tests.master.builders import VIRTUAL, rip
from tests.master.test_daemon import Site, run, until
from tests.patience import process_seconds

site = test_daemon.site  # a fixture


class Operator:
    def __init__(self, site: Site) -> None:
        self.site = site

    def __call__(self, *words: str | int, **environment: str) -> Result:
        arguments = [*map(str, words), "--control", str(self.site.control)]
        return CliRunner(env={"SUDO_USER": "", **environment}).invoke(main, arguments)

    def json(self, *words: str | int) -> dict[str, Any]:
        answer = self(*words, "--json")
        assert answer.exit_code == 0, answer.output
        found: dict[str, Any] = json.loads(answer.stdout)
        assert found["schema"] == 1
        return found

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self("events").stdout.splitlines()]

    def weights(self) -> list[int | None]:
        """In force, as the master saw them last."""
        found = self("show", "--json")
        return [] if found.exit_code else [d["weight"] for d in json.loads(found.stdout)["services"][0]["destinations"]]

    def holder(self) -> str | None:
        found = self("show", "--json")
        if found.exit_code:
            return None
        holder: str | None = json.loads(found.stdout)["services"][0]["holder"]
        return holder


def test_drain_undrain_override_and_pause_change_the_kernels_table_and_say_who(site: Site) -> None:
    say = Operator(site)

    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        answer = say("drain", "10.0.0.11", "-r", "new disk")
        assert answer.exit_code == 0
        assert f"drain        10.0.0.11:80 in {VIRTUAL}  until lifted, by {getpass.getuser()}" in answer.output
        until(lambda: site.weights() == [0, 100])
        explained = say("explain", "10.0.0.11").output
        assert f"orders            0  drained by {getpass.getuser()}: new disk" in explained
        assert f"quiesced [drained by {getpass.getuser()}: new disk]" in say("show").output
        assert say.json("undrain", "10.0.0.11")["lifted"][0]["reason"] == "new disk"
        until(lambda: site.weights() == [100, 100])

        say.json("override", "10.0.0.12:80", 7, "--for", "1m")
        until(lambda: site.weights() == [100, 7])
        (order,) = say.json("orders")["orders"]
        assert 55 < order["left_seconds"] <= 60
        assert "override 7   10.0.0.12:80" in say("orders").output
        say.json("override", "10.0.0.12", "--end")
        until(lambda: site.weights() == [100, 100])
        assert say("orders").output == "no orders\n"

        say.json("pause", "-r", "migration")
        until(lambda: "[paused by" in say("show").output)
        entry = site.kernel.snapshot().entry(VIRTUAL)
        changed = entry.entry(rip(1)).destination  # type: ignore[union-attr]
        site.kernel.apply([SetDestination(VIRTUAL, type(changed)(changed.key, 3, changed.forward))])
        time.sleep(0.3)
        assert site.weights() == [3, 100]
        say.json("resume")
        assert say("resume").exit_code == 1

    run(site, work)


def test_orders_survive_a_restart_of_the_master_and_end_on_time_after_it(site: Site) -> None:
    say = Operator(site)

    def first() -> None:
        until(lambda: site.weights() == [100, 100])
        say.json("drain", "10.0.0.11")
        say.json("override", "10.0.0.12", 7, "--for", "6s")
        until(lambda: site.weights() == [0, 7])

    def second() -> None:
        until(lambda: len(_orders(say)) == 2)
        assert site.weights() == [0, 7]
        until(lambda: len(_orders(say)) == 1)
        until(lambda: site.weights()[1] != 7)
        assert site.weights()[0] == 0

    run(site, first)
    run(site, second)


def _orders(say: Operator) -> list[Any]:
    answer = say("orders", "--json")
    return json.loads(answer.stdout)["orders"] if answer.exit_code == 0 else []


def test_drain_waits_until_the_last_connection_has_ended(site: Site) -> None:
    say, answers = Operator(site), []

    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        kernel: FakeKernel = site.kernel
        held = [kernel.open(VIRTUAL) for _ in range(6)]
        here = [c for c in held if c is not None and c.destination == rip(1)]
        assert here
        waiting = threading.Thread(target=lambda: answers.append(say("drain", "10.0.0.11", "--wait")))
        waiting.start()
        until(lambda: site.weights() == [0, 100])
        began = process_seconds()  # a busy host makes the drain wait for its first look
        until(lambda: process_seconds() > began + 0.6)
        assert waiting.is_alive()
        for connection in here:
            kernel.close_connection(connection)
        waiting.join(60)

    run(site, work)
    assert answers[0].exit_code == 0, answers[0].output
    assert "3 connections left" in answers[0].stderr
    assert answers[0].stderr.endswith("0 connections left\n")


def test_a_waiting_drain_goes_on_through_a_restart_of_the_master(site: Site) -> None:
    say, answers = Operator(site), []
    waiting = threading.Thread(target=lambda: answers.append(say("drain", "10.0.0.11", "--wait")))
    held: list[Any] = []

    def first() -> None:
        until(lambda: site.weights() == [100, 100])
        held.extend(site.kernel.open(VIRTUAL) for _ in range(4))
        waiting.start()
        until(lambda: site.weights() == [0, 100])
        time.sleep(0.5)

    def second() -> None:
        assert waiting.is_alive()
        for connection in held:
            site.kernel.close_connection(connection)
        waiting.join(60)

    run(site, first)
    time.sleep(0.6)
    run(site, second)
    assert answers[0].exit_code == 0, answers[0].output


def test_a_drain_that_takes_too_long_fails_and_stands(site: Site) -> None:
    say = Operator(site)

    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        for _ in range(4):
            site.kernel.open(VIRTUAL)
        answer = say("drain", "10.0.0.11", "--wait", "--timeout", "1s", "--json")
        assert answer.exit_code == 1
        assert json.loads(answer.stdout)["left"] == {f"10.0.0.11:80 in {VIRTUAL}": 2}
        assert "the drain stands" in answer.stderr
        assert site.weights() == [0, 100]

    run(site, work)


def test_the_last_server_is_refused_and_forced(site: Site) -> None:
    say = Operator(site)

    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        say.json("drain", "10.0.0.11")
        until(lambda: site.weights() == [0, 100])
        time.sleep(0.2)
        answer = say("drain", "10.0.0.12")
        assert (answer.exit_code, "the last one in service: --force" in answer.output) == (1, True)
        say.json("drain", "10.0.0.12", "--force")
        until(lambda: site.weights() == [0, 0])

    run(site, work)


def test_root_may_say_for_whom_it_acts_and_what_happened_is_among_the_events(site: Site) -> None:
    say = Operator(site)

    def work() -> None:
        until(lambda: site.weights() == [100, 100])
        assert say("drain", "10.0.0.11", "-r", "disk", SUDO_USER="ada").exit_code == 0
        until(lambda: site.weights() == [0, 100])
        say.json("undrain", "10.0.0.11")
        until(lambda: site.weights() == [100, 100])
        answer = say("events", "--sync-control", "/nonexistent")
        assert answer.exit_code == 0
        found = [json.loads(line) for line in answer.stdout.splitlines()]
        assert {e["schema"] for e in found} == {1}
        kinds = [e["kind"] for e in found]
        assert kinds[0] == "started"
        given = found[kinds.index("order-given")]
        who = "ada" if getpass.getuser() == "root" else getpass.getuser()
        assert (given["order"], given["destination"]) == (f"drained by {who}: disk", "10.0.0.11:80")
        changed = [e for e in found if e["kind"] == "weight-changed" and e["destination"] == "10.0.0.11:80"]
        assert [e["new"] for e in changed][-2:] == [0, 100]
        assert kinds.index("order-given") < kinds.index("order-lifted")

    run(site, work)


def test_a_standby_takes_no_orders_and_tells_its_role_among_the_events(site: Site) -> None:
    role = RoleFile(site.directory / "role.json")
    site.write(f'role = "{site.directory}/role.json"')
    role.write(RoleSaid(Role.STANDBY, "d1 is active", "d1", 1))
    say = Operator(site)

    def work() -> None:
        answer = say("drain", "10.0.0.11")
        assert (answer.exit_code, "ask the active one, d1" in answer.output) == (1, True)
        role.write(RoleSaid(Role.ACTIVE, "d1 is dead", "d1", 2))
        until(lambda: say("orders").exit_code == 0)
        found = say("events", "--sync-control", "/nonexistent", "--kind", "role").stdout.splitlines()
        assert [json.loads(line)["role"] for line in found][-1] == "active"

    run(site, work)


def test_a_new_active_director_goes_on_with_the_orders_of_the_one_before(site: Site) -> None:
    """The state file is what the sync daemon mirrors: here it comes from a master that has gone."""
    role = RoleFile(site.directory / "role.json")
    site.write(f'role = "{site.directory}/role.json"')
    role.write(RoleSaid(Role.ACTIVE, "", "d2", 1))
    say = Operator(site)

    def first() -> None:
        until(lambda: site.weights() == [100, 100])
        say.json("drain", "10.0.0.11", "-r", "disk")
        until(lambda: site.weights() == [0, 100])

    def second() -> None:
        mirrored = (site.directory / "state.json").with_suffix(".mirrored")
        mirrored.rename(site.directory / "state.json")
        role.write(RoleSaid(Role.ACTIVE, "d2 is dead", "d2", 2))
        until(lambda: say("orders").exit_code == 0)
        (order,) = say.json("orders")["orders"]
        assert (order["reason"], order["kind"]) == ("disk", "drain")
        assert site.weights() == [0, 100]
        say.json("undrain", "10.0.0.11")
        until(lambda: site.weights() == [100, 100])

    run(site, first)
    (site.directory / "state.json").rename((site.directory / "state.json").with_suffix(".mirrored"))
    role.write(RoleSaid(Role.STANDBY, "d2 is active", "d2", 1))
    run(site, second)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("drain",), 2),
        (("override", "10.0.0.11"), 2),
        (("override", "10.0.0.11", "5", "--end"), 2),
        (("override", "10.0.0.11", "-1"), 2),
        (("drain", "10.0.0.11", "--for", "soon"), 2),
        (("drain", "10.0.0.11"), 3),
        (("orders",), 3),
        (("events",), 3),
    ],
)
def test_wrong_usage_is_2_and_no_daemon_3(words: tuple[str, ...], status: int, tmp_path: Path) -> None:
    extra = ("--sync-control", str(tmp_path / "none")) if words[0] == "events" else ()
    answer = CliRunner().invoke(main, [*words, "--control", str(tmp_path / "none.sock"), *extra])
    assert answer.exit_code == status, answer.output


# --- cut and promote -------------------------------------------------------------------------------------------------

ORDERED = 'law = "failover"\nlaw_options = { sticky = true, cut = "both" }\n'


def ordered(site: Site) -> None:
    text = site.config.read_text().replace('law = "capacity"\n', "")
    head, destination, rest = text.partition("[[service.destination]]\n")
    first, second, last = rest.partition("[[service.destination]]\n")
    made = f"{head}{ORDERED}{destination}priority = 2\n{first}{second}priority = 1\n{last}"
    site.config.write_text(made)


needs_raw = pytest.mark.skipif(not process.may_send_raw(), reason="raw sockets need CAP_NET_RAW")


@needs_raw
def test_cut_takes_it_out_for_a_moment_and_says_what_became_of_its_clients(site: Site) -> None:
    say = Operator(site)

    def work() -> None:
        until(lambda: say.weights() == [100, 100])
        dry = say("cut", "10.0.0.11", "--dry-run")
        assert "10.0.0.11:80 in tcp:10.0.0.100:80: would cut 0 active" in dry.output
        answer = say.json("cut", "10.0.0.11", "-r", "test")
        assert [(c["destination"], c["flows"], c["told"]) for c in answer["cut"]] == [("10.0.0.11:80", 0, 0)]
        until(lambda: say.weights() == [100, 100])
        kinds = [e["kind"] for e in say.events()]
        assert [k for k in kinds if k in ("removed", "cut", "returned")] == ["removed", "cut", "returned"]
        assert "foreign-edit" not in kinds

    run(site, work)


@needs_raw
def test_promote_gives_the_place_and_says_so(site: Site) -> None:
    say = Operator(site)
    ordered(site)

    def work() -> None:
        until(lambda: say.holder() == "10.0.0.11:80" and None not in say.weights())
        assert "10.0.0.12:80 has the first place in tcp:10.0.0.100:80\n" in say("promote", "10.0.0.12").output
        until(lambda: say.holder() == "10.0.0.12:80" and None not in say.weights())
        refused = say("promote", "10.0.0.99")
        assert refused.exit_code == 1 and "no such destination" in refused.output

    run(site, work)
