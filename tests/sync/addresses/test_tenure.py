"""Being active on a host: addresses, announcements and the role file, in the right order and only ours."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from feedback.ops.role import Role, RoleFile
from feedback.sync.addresses.plan import BURST_SECONDS, PERIOD_SECONDS, Present, VirtualAddress
from feedback.sync.addresses.tenure import Tenure

VIP, GATEWAY = VirtualAddress.parse("10.0.0.100", "eth0"), VirtualAddress.parse("10.1.0.254/24", "eth1")


class Host:
    """Interfaces that remember what was done to them."""

    wanted = (VIP, GATEWAY)

    def __init__(self, *present: Present) -> None:
        self.present = list(present)
        self.done: list[str] = []

    def installed(self) -> tuple[Present, ...]:
        return tuple(self.present)

    def add(self, addresses: Collection[VirtualAddress]) -> tuple[()]:
        self.present += [Present(a, ours=True) for a in addresses if a not in {p.address for p in self.present}]
        self.done += [f"add {a.address}" for a in addresses]
        return ()

    def remove(self, addresses: Collection[VirtualAddress]) -> tuple[()]:
        self.present = [p for p in self.present if p.address not in addresses]
        self.done += [f"remove {a.address}" for a in addresses]
        return ()

    def announce(self, addresses: Collection[VirtualAddress]) -> tuple[()]:
        self.done += [f"announce {a.address}" for a in addresses]
        return ()


@pytest.fixture
def role(tmp_path: Path) -> RoleFile:
    return RoleFile(tmp_path / "role.json")


def tenure(host: Host | None, role: RoleFile) -> Tenure:
    return Tenure(host, role, "d2", lambda: 10.0)


def test_addresses_come_before_their_announcement_and_the_role_after(role: RoleFile) -> None:
    host = Host()
    made = tenure(host, role)
    made.begin("d2 is dead", 3, 10.0)
    assert host.done == ["add 10.0.0.100", "add 10.1.0.254", "announce 10.0.0.100", "announce 10.1.0.254"]
    said = role.read()
    assert (said.role, said.term, said.peer, said.reason) == (Role.ACTIVE, 3, "d2", "d2 is dead")
    assert made.installed() and made.acted_seconds == 0.0


def test_the_end_removes_ours_and_leaves_what_was_there_before(role: RoleFile) -> None:
    host = Host(Present(VIP, ours=False), Present(GATEWAY, ours=True))
    made = tenure(host, role)
    made.end("yielded", 4)
    assert host.done == ["remove 10.1.0.254"]
    assert role.read().role is Role.STANDBY


def test_a_resumed_tenure_adds_only_what_is_missing(role: RoleFile) -> None:
    host = Host(Present(VIP, ours=True))
    made = tenure(host, role)
    made.begin("the daemon restarted", 3, 10.0, resumed=True)
    assert host.done[:1] == ["add 10.1.0.254"] and "add 10.0.0.100" not in host.done


def test_announcements_are_repeated_on_schedule_and_end_with_the_tenure(role: RoleFile) -> None:
    host = Host()
    made = tenure(host, role)
    made.begin("", 1, 100.0)
    times = []
    for _ in range(len(BURST_SECONDS) + 1):
        times.append(made.next_timer() - 100.0)
        made.handle_timer(made.next_timer())
    assert times == pytest.approx(
        [*BURST_SECONDS[1:], BURST_SECONDS[-1] + PERIOD_SECONDS, BURST_SECONDS[-1] + 2 * PERIOD_SECONDS]
    )
    made.end("", 1)
    assert made.next_timer() == float("inf")


def test_what_somebody_took_away_is_put_back_and_announced(role: RoleFile) -> None:
    host = Host()
    made = tenure(host, role)
    made.begin("", 1, 0.0)
    host.present, host.done = [Present(GATEWAY, ours=True)], []
    made.mend()
    assert host.done == ["add 10.0.0.100", "announce 10.0.0.100"]
    host.done = []
    made.mend()
    assert host.done == []


def test_where_keepalived_moves_addresses_only_the_role_is_said(role: RoleFile) -> None:
    made = tenure(None, role)
    made.begin("MASTER", 1, 0.0)
    made.handle_timer(1e9)
    made.mend()
    assert role.read().role is Role.ACTIVE and not made.installed()


def test_a_role_that_could_not_be_written_is_written_as_soon_as_it_can_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "run"
    directory.write_text("a file where the directory should be")
    role = RoleFile(directory / "role.json")
    made = tenure(None, role)
    made.begin("MASTER", 1, 0.0)
    for _ in range(3):
        made.say_again()
    assert role.read().role is Role.STANDBY
    assert capsys.readouterr().err.count("event=role-unwritten") == 1
    directory.unlink()
    made.say_again()
    assert role.read().role is Role.ACTIVE
    made.end("", 2)
    assert role.read().role is Role.STANDBY


def test_what_is_above_the_limit_of_replication_stands_beside_the_role_and_stays_there(role: RoleFile) -> None:
    made = tenure(None, role)
    made.say_lacking(7)
    assert role.read().lacking == 0  # no role was said yet
    made.begin("d2 is dead", 3, 10.0)
    made.say_lacking(1200)
    assert (role.read().role, role.read().term, role.read().lacking) == (Role.ACTIVE, 3, 1200)
    made.end("yielded", 3)
    assert (role.read().role, role.read().lacking) == (Role.STANDBY, 1200)
    made.say_lacking(0)
    assert (role.read().reason, role.read().lacking) == ("yielded", 0)
