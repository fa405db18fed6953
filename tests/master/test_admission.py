from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import msgspec
import pytest

from feedback import wire
from feedback.master.shell.admission import BURST, RATE_PER_SECOND, SILENCE_SECONDS, Admission, Refused
from feedback.ops.keys import Enrolment, PublicKey

KEY, OTHER = PublicKey("k" * 40), PublicKey("o" * 40)
RS1 = Enrolment("rs1", KEY, frozenset({ip_address("10.0.0.11"), ip_address("2001:db8::11")}))
RS2 = Enrolment("rs2", OTHER, frozenset({ip_address("10.0.0.12")}))

REPORT = wire.Report(
    version=wire.PROTOCOL,
    agent="rs1",
    boot="a",
    sequence=0,
    sampled_at=1.0,
    interval_seconds=0.2,
    addresses=("10.0.0.11",),
    cpu=wire.Cpu(cores=2, busy_seconds=100.0),
    memory=wire.Memory(total=2**33, available=2**32),
)


def data(**changes: Any) -> bytes:
    return wire.encode(msgspec.structs.replace(REPORT, **changes))


@pytest.fixture
def admission() -> Admission:
    return Admission({KEY: RS1, OTHER: RS2})


def refusal(admission: Admission, frame: bytes, now: float = 0.0, key: str = KEY) -> str:
    with pytest.raises(Refused) as caught:
        admission.admit(key, frame, now)
    return caught.value.kind


def test_an_enrolled_agent_is_admitted(admission: Admission) -> None:
    assert admission.admit(KEY, data(), 0.0)[0] == REPORT


@pytest.mark.parametrize(
    "changes", [{"agent": "rs1\n"}, {"boot": "\x1b[31m"}, {"addresses": ("10.0.0.11", "2001:db8::11%x")}]
)
def test_names_that_change_are_looked_at_again(admission: Admission, changes: dict[str, Any]) -> None:
    """Those that stay the same are not."""
    for sequence in (0, 1):
        admission.admit(KEY, data(sequence=sequence), 0.0)
    assert refusal(admission, data(sequence=2, **changes)) == "malformed"
    assert admission.admit(KEY, data(sequence=2), 0.0)[0].sequence == 2


def test_an_address_may_be_written_another_way(admission: Admission) -> None:
    admission.admit(KEY, data(addresses=("2001:DB8:0::11",)), 0.0)


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (data(agent="rs2"), "foreign"),
        (data(addresses=("10.0.0.12",)), "foreign"),
        (data(addresses=("10.0.0.11", "10.0.0.99")), "foreign"),
        (data(addresses=("::ffff:10.0.0.11",)), "foreign"),
        (data(addresses=("not-an-address",)), "malformed"),
        (data(version=2), "version"),
        (b"", "malformed"),
        (b"\xc1", "malformed"),
        (b"\x91" * 5000, "malformed"),
        (b"x" * (wire.REPORT_BYTES_MAX + 1), "oversized"),
        (data(cpu=wire.Cpu(cores=2, busy_seconds=float("nan"))), "malformed"),
        (data(memory=wire.Memory(total=-1, available=0)), "malformed"),
    ],
)
def test_what_does_not_fit_is_refused_by_kind_and_changes_nothing(
    admission: Admission, frame: bytes, kind: str
) -> None:
    assert refusal(admission, frame) == kind
    admission.admit(KEY, data(), 0.0)


def test_a_foreign_address_is_refused_also_after_a_good_report(admission: Admission) -> None:
    admission.admit(KEY, data(), 0.0)
    assert refusal(admission, data(sequence=1, addresses=("10.0.0.12",))) == "foreign"
    admission.admit(KEY, data(sequence=1), 0.0)


@pytest.mark.parametrize("sequence", [5, 4, 0])
def test_a_sequence_that_does_not_grow_is_a_replay(admission: Admission, sequence: int) -> None:
    admission.admit(KEY, data(sequence=5), 0.0)
    assert refusal(admission, data(sequence=sequence)) == "replayed"


def test_lost_reports_are_no_harm(admission: Admission) -> None:
    admission.admit(KEY, data(sequence=5), 0.0)
    admission.admit(KEY, data(sequence=50), 0.0)


def test_a_new_boot_begins_anew_and_the_old_one_is_over(admission: Admission) -> None:
    admission.admit(KEY, data(sequence=5), 0.0)
    admission.admit(KEY, data(boot="b", sequence=0), 1.0)
    assert refusal(admission, data(boot="a", sequence=6), 1.2) == "replayed"
    admission.admit(KEY, data(boot="b", sequence=1), 1.4)


def test_the_old_boot_may_go_on_once_the_new_one_is_silent_but_not_from_before(admission: Admission) -> None:
    admission.admit(KEY, data(sequence=5), 0.0)
    admission.admit(KEY, data(boot="b", sequence=0), 1.0)
    later = 1.0 + SILENCE_SECONDS
    assert refusal(admission, data(boot="a", sequence=5), later) == "replayed"
    admission.admit(KEY, data(boot="a", sequence=6), later)


def test_a_flood_is_refused_and_the_agent_comes_back_when_it_calms_down(admission: Admission) -> None:
    kinds = []
    for sequence in range(int(BURST) + 10):
        try:
            admission.admit(KEY, data(sequence=sequence), 0.0)
        except Refused as refused:
            kinds.append(refused.kind)
    assert kinds == ["flooded"] * 10
    admission.admit(KEY, data(sequence=1000), 2 / RATE_PER_SECOND)


def test_one_agents_flood_is_not_anothers(admission: Admission) -> None:
    for sequence in range(int(BURST)):
        admission.admit(KEY, data(sequence=sequence), 0.0)
    assert refusal(admission, data(sequence=1000)) == "flooded"
    admission.admit(OTHER, data(agent="rs2", addresses=("10.0.0.12",)), 0.0)


def test_a_revoked_key_is_refused_at_once_and_others_go_on(admission: Admission) -> None:
    admission.admit(KEY, data(), 0.0)
    admission.admit(OTHER, data(agent="rs2", addresses=("10.0.0.12",)), 0.0)
    admission.replace({OTHER: RS2})
    assert refusal(admission, data(sequence=1)) == "revoked"
    assert refusal(admission, data(agent="rs2", addresses=("10.0.0.12",)), key=OTHER) == "replayed"


def test_an_address_taken_away_is_foreign_from_then_on(admission: Admission) -> None:
    admission.admit(KEY, data(), 0.0)
    admission.replace({KEY: Enrolment("rs1", KEY, frozenset({ip_address("10.0.0.99")}))})
    assert refusal(admission, data(sequence=1)) == "foreign"
