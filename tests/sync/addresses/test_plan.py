"""What is added, what is removed, what is left alone, and when it is announced."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.sync.addresses import plan as addresses
from feedback.sync.addresses.plan import (
    Plan,
    Present,
    VirtualAddress,
    endangered,
    foreign,
    held,
    next_announcement,
    plan,
)

VIP = VirtualAddress.parse("10.0.0.100", "eth0")
VIP6 = VirtualAddress.parse("2001:db8::100", "eth0")
GATEWAY = VirtualAddress.parse("10.1.0.254/24", "eth1")
OWN = VirtualAddress.parse("10.1.0.2/24", "eth1")


@pytest.mark.parametrize(
    ("text", "address", "prefix"),
    [("10.0.0.100", "10.0.0.100", 32), ("10.1.0.254/24", "10.1.0.254", 24), ("2001:db8::1", "2001:db8::1", 128)],
)
def test_an_address_without_a_prefix_is_one_address(text: str, address: str, prefix: int) -> None:
    assert VirtualAddress.parse(text, "eth0") == VirtualAddress("eth0", ip_address(address), prefix)


@pytest.mark.parametrize(
    ("text", "interface", "said"),
    [
        ("224.0.0.81", "eth0", "not an address that a director can take over"),
        ("127.0.0.1", "lo", "not an address that a director can take over"),
        ("::", "eth0", "not an address that a director can take over"),
        ("10.0.0.1/33", "eth0", "does not appear to be"),
        ("ten", "eth0", "does not appear to be"),
        ("10.0.0.1", "", "not an interface name"),
        ("10.0.0.1", "an-interface-of-16", "not an interface name"),
        ("10.0.0.1", "eth 0", "not an interface name"),
    ],
)
def test_what_no_director_can_own_is_refused(text: str, interface: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        VirtualAddress.parse(text, interface)


def ours(*found: VirtualAddress) -> tuple[Present, ...]:
    return tuple(Present(address, ours=True) for address in found)


def theirs(*found: VirtualAddress) -> tuple[Present, ...]:
    return tuple(Present(address, ours=False) for address in found)


WANTED = (VIP, VIP6, GATEWAY)


@pytest.mark.parametrize(
    ("wanted", "present", "active", "expected"),
    [
        pytest.param(WANTED, theirs(OWN), True, Plan(WANTED, ()), id="takeover"),
        pytest.param(WANTED, ours(*WANTED), True, Plan((), ()), id="restarted while active"),
        pytest.param(WANTED, ours(VIP), True, Plan((VIP6, GATEWAY), ()), id="killed in the middle of a takeover"),
        pytest.param(WANTED, (*theirs(OWN), *ours(*WANTED)), False, Plan((), WANTED), id="step down"),
        pytest.param(WANTED, (*theirs(VIP), *ours(VIP6)), False, Plan((), (VIP6,)), id="one was there before"),
        pytest.param(WANTED, theirs(VIP), True, Plan((VIP6, GATEWAY), ()), id="one was there before, active"),
        pytest.param(WANTED, theirs(OWN), False, Plan((), ()), id="standby"),
        pytest.param((VIP,), ours(VIP, VIP6), True, Plan((), (VIP6,)), id="taken out of the configuration"),
        pytest.param(
            (VIP,),
            ours(VirtualAddress("eth9", VIP.address, 32)),
            True,
            Plan((VIP,), (VirtualAddress("eth9", VIP.address, 32),)),
            id="moved to another interface",
        ),
    ],
)
def test_what_is_added_and_removed(
    wanted: tuple[VirtualAddress, ...], present: tuple[Present, ...], active: bool, expected: Plan
) -> None:
    assert plan(wanted, present, active) == expected


some = st.builds(
    VirtualAddress,
    st.sampled_from(["eth0", "eth1"]),
    st.sampled_from([VIP.address, OWN.address, GATEWAY.address, VIP6.address]),
    st.sampled_from([24, 32]),
)
kernels = st.dictionaries(some, st.booleans(), max_size=6)  # whether it is ours


@given(st.sets(some), kernels, st.booleans())
def test_a_plan_leads_there_in_one_step_and_touches_nothing_else(
    wanted: set[VirtualAddress], kernel: dict[VirtualAddress, bool], active: bool
) -> None:
    def present(table: dict[VirtualAddress, bool]) -> list[Present]:
        return [Present(address, mine) for address, mine in table.items()]

    made = plan(wanted, present(kernel), active)
    after = {a: mine for a, mine in kernel.items() if a not in made.remove} | dict.fromkeys(made.add, True)
    assert {a for a, mine in kernel.items() if not mine} <= set(after), "a foreign one was removed"
    assert {a for a, mine in after.items() if mine} <= (wanted if active else set())
    assert not active or wanted <= set(after)
    assert plan(wanted, present(after), active) == Plan((), ())
    assert not set(made.add) & set(kernel)


def test_an_address_of_somebody_else_is_foreign_on_any_interface_and_with_any_prefix() -> None:
    on_lo = VirtualAddress("lo", VIP.address, 32)
    wide = VirtualAddress("eth0", VIP6.address, 64)
    present = (*theirs(on_lo, wide, OWN), *ours(GATEWAY))
    assert foreign(WANTED, present) == theirs(on_lo, wide)
    assert "ip address delete 10.0.0.100/32 dev lo" in addresses.foreign_advice(foreign(WANTED, present)[0])
    assert held(WANTED, present)
    assert not held(WANTED, present[1:])


def test_a_primary_address_takes_the_secondary_ones_of_its_network_along() -> None:
    primary = Present(GATEWAY, ours=True)
    own = Present(OWN, ours=False, secondary=True)
    elsewhere = Present(VirtualAddress.parse("10.1.0.3/24", "eth2"), ours=False, secondary=True)
    narrower = Present(VirtualAddress.parse("10.1.0.4/25", "eth1"), ours=False, secondary=True)
    assert endangered([GATEWAY], [primary, own, elsewhere, narrower]) == (OWN,)
    assert endangered([GATEWAY, OWN], [primary, own]) == ()
    assert endangered([GATEWAY], [Present(GATEWAY, ours=True, secondary=True), own]) == ()
    assert endangered([VIP], [primary, own]) == ()


def test_announcements_are_dense_after_a_takeover_and_go_on_for_ever() -> None:
    at, times = 0.0, []
    for _ in range(9):
        at = next_announcement(at)
        times.append(at)
    assert times == [0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 35.0, 65.0, 95.0]
    assert next_announcement(-1.0) == 0.0
    assert next_announcement(34.9) == 35.0


@given(st.floats(0, 1e7))
def test_the_next_announcement_is_later_and_soon(since: float) -> None:
    assert since < next_announcement(since) <= since + addresses.PERIOD_SECONDS + 1e-6
