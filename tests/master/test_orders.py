"""What an operator orders by hand is the last word, ends on time, survives, and never takes the last server out."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.master.claims.orders import Kind, Order, Orders
from feedback.master.controller import Decision
from feedback.master.shell.commands import CommandError, Done, as_json, perform, read
from feedback.master.state import decode, encode
from feedback.master.state import read as read_state
from feedback.model import DestinationKey
from tests.master.builders import VIRTUAL, config, rip
from tests.master.test_controller import Bench

WALL = 1_700_000_000.0


class Desk(Bench):
    """A bench with an operator at it. The wall clock runs with the bench's."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.decision: Decision | None = None

    @property
    def wall(self) -> float:
        return WALL + self.now

    def turn(self) -> None:
        self.controller.receive_kernel(self.table.snapshot(), self.now)
        self.controller.orders.expire(self.wall)
        self.decision = self.controller.decide(self.now)
        self.edits += len(self.decision.edits)
        self.table.apply(self.decision.edits)

    def say(self, command: str, destination: DestinationKey | str = "", **words: Any) -> Done:
        assert self.decision is not None
        request = read({"command": command, "destination": str(destination), **words})
        return perform(request, self.controller.orders, self.decision.services, "ada", self.wall)

    def weight(self, i: int) -> int:
        return next(e.destination.weight for e in self.table.entries[VIRTUAL].values() if e.destination.key == rip(i))

    def reasons(self, i: int) -> list[str]:
        assert self.decision is not None
        (setting,) = [s for s in self.decision.settings if s.destination == rip(i)]
        return [f"{r.stage}: {r.text}" for r in setting.reasons]


def desk(servers: int = 3, extra: str = "", scheduler: str = "sed") -> Desk:
    made = Desk(config(servers, scheduler, extra), [100.0] * servers)
    made.run(10)
    return made


WEIGHTS = 'ownership = "weights"'


def adopted() -> Desk:
    """Somebody else owns the service."""
    owner = desk()
    made = Desk(config(3, "sed", WEIGHTS), [100.0] * 3, owner.table)
    made.run(10)
    return made


def test_a_drained_server_is_at_zero_with_the_reason_in_its_chain_and_comes_back_when_it_is_lifted() -> None:
    d = desk()
    d.say("drain", rip(1), reason="new disk")
    d.run(1)
    assert d.weight(1) == 0
    assert d.reasons(1)[-1] == "orders: drained by ada: new disk"
    assert d.weight(2) == pytest.approx(d.weight(3), rel=0.1) and d.weight(2) > 0
    d.run(30)
    assert d.weight(1) == 0
    assert d.say("undrain", rip(1)).lifted[0].kind is Kind.DRAIN
    d.run(30)
    assert d.weight(1) == pytest.approx(d.weight(2), rel=0.15)


def test_a_failover_pool_goes_on_without_its_drained_first() -> None:
    """Its law must know, not only the last word: the others are at 0 while the first is in service."""
    made = desk(scheduler="wrr")
    made.controller.reconfigure(config(3, "wrr").__class__(service=(_failover(made),)))
    made.run(10)
    first = next(i for i in (1, 2, 3) if made.weight(i))
    made.say("drain", rip(first))
    made.run(5)
    assert made.weight(first) == 0
    assert sum(made.weight(i) for i in (1, 2, 3)) > 0


def _failover(made: Desk) -> Any:
    import msgspec

    return msgspec.structs.replace(config(3, "wrr").service[0], law="failover")


@pytest.mark.parametrize("silent", [False, True])
def test_a_drain_acts_while_everything_is_held_and_is_undone_there(silent: bool) -> None:
    d = desk()
    before = d.weight(1)
    d.silent = {0, 1, 2} if silent else set()
    d.run(60)
    d.say("drain", rip(1))
    d.run(1)
    assert d.weight(1) == 0
    d.say("undrain", rip(1))
    d.run(30)
    assert d.weight(1) == pytest.approx(before, rel=0.15)


def test_the_last_server_in_service_is_not_drained_without_force() -> None:
    d = desk(2)
    d.say("drain", rip(1))
    d.run(1)
    with pytest.raises(CommandError, match=r"the last one in service: --force does it"):
        d.say("drain", rip(2))
    with pytest.raises(CommandError, match="the last one in service"):
        d.say("override", rip(2), weight=0)
    d.run(1)
    assert d.weight(2) > 0
    d.say("drain", rip(2), force=True)
    d.run(1)
    assert d.table.weights() == [0, 0]


def test_an_override_is_the_last_word_and_ends_on_time() -> None:
    d = desk()
    d.say("override", rip(1), weight=7, seconds=60, reason="slow disk")
    d.run(59)
    assert d.weight(1) == 7
    assert d.reasons(1)[-1] == "orders: weight 7 by ada: slow disk"
    d.run(15)
    assert d.weight(1) == pytest.approx(d.weight(2), rel=0.15)
    assert d.controller.orders.all() == ()


def test_the_newest_order_for_a_destination_replaces_the_one_before() -> None:
    d = desk()
    d.say("override", rip(1), weight=7, seconds=60)
    assert [o.weight for o in d.say("drain", rip(1)).replaced] == [7]
    d.run(1)
    assert d.weight(1) == 0


def owners_zero(d: Desk) -> None:
    d.table.put(rip(1), 0)
    d.run(2)
    assert d.weight(1) == 0


def test_an_owners_zero_is_not_raised_by_an_override_whoever_comes_first() -> None:
    d = adopted()
    owners_zero(d)
    with pytest.raises(CommandError, match="must raise it: --force"):
        d.say("override", rip(1), weight=50)
    d = adopted()
    d.say("override", rip(1), weight=50)
    d.run(1)
    assert d.weight(1) == 50
    owners_zero(d)
    assert "not raised: somebody else set the weight to 0" in d.reasons(1)[-1]


def test_a_forced_override_raises_an_owners_zero_and_leaves_it_theirs_also_over_a_restart() -> None:
    for restarted in (False, True):
        d = adopted()
        owners_zero(d)
        d.say("override", rip(1), weight=50, seconds=60, force=True)
        d.run(5)
        assert d.weight(1) == 50
        if restarted:
            after = Desk(config(3, "sed", WEIGHTS), [100.0] * 3, d.table)
            after.now = d.now
            after.controller.restore(decode(encode(d.controller.state())))
            d = after
            d.run(5)
            assert d.weight(1) == 50
        d.run(60)
        assert d.weight(1) == 0, "the zero was the owner's"
        d.table.put(rip(1), 10)
        d.run(20)
        assert d.weight(1) > 10, "and is his to raise"


def test_a_pause_writes_nothing_but_what_an_order_says() -> None:
    d = desk()
    d.say("pause", reason="migration")
    d.run(1)
    d.edits = 0
    d.table.put(rip(1), 3)
    d.speeds = [10.0, 400.0, 100.0]
    d.run(20)
    assert (d.edits, d.weight(1)) == (0, 3)
    assert d.reasons(1)[-1] == "orders: paused by ada: migration: as the kernel has it"
    kept = d.weight(2)
    d.say("drain", rip(2))
    d.run(1)
    assert (d.weight(2), d.edits) == (0, 1)
    d.say("undrain", rip(2))
    d.run(1)
    assert d.weight(2) > 0, f"it was {kept} and is not left at 0"
    d.say("resume")
    d.run(20)
    assert d.weight(2) > 5 * d.weight(1)


def test_a_paused_service_is_not_made_again() -> None:
    d = desk()
    d.say("pause", service=str(VIRTUAL))
    del d.table.services[VIRTUAL], d.table.entries[VIRTUAL]
    d.turn()
    assert d.table.services == {}
    d.say("resume", service=str(VIRTUAL))
    d.turn()
    assert VIRTUAL in d.table.services


def test_orders_survive_a_restart_and_end_on_time_there() -> None:
    d = desk()
    d.say("override", rip(1), weight=7, seconds=100)
    d.say("drain", rip(2))
    d.run(1)
    state = encode(d.controller.state())
    for away, expected in ((10.0, 7), (200.0, None)):
        after = Desk(config(3), [100.0] * 3, d.table)
        after.now, after.sequence = d.now + away, 0
        after.controller.restore(decode(state))
        after.run(1)
        assert after.weight(2) == 0
        if expected is not None:
            assert after.weight(1) == expected
        else:
            assert [o.kind for o in after.controller.orders.all()] == [Kind.DRAIN]
            after.run(30)
            assert after.weight(1) == pytest.approx(after.weight(3), rel=0.15)


def test_a_drain_that_ended_while_the_master_was_away_does_not_leave_the_server_at_zero() -> None:
    d = desk()
    d.say("drain", rip(1), seconds=5)
    d.run(1)
    after = Desk(config(3), [100.0] * 3, d.table)
    after.silent, after.now = {0, 1, 2}, d.now + 60  # nobody reports: everything is held
    after.controller.restore(decode(encode(d.controller.state())))
    after.run(1)
    assert after.weight(1) > 0


def test_a_state_of_before_orders_is_read_and_one_with_a_bad_order_has_the_good_ones() -> None:
    assert decode(b'{"version": 1, "services": {}}').orders == ()
    good = f'{{"kind": "drain", "service": "{VIRTUAL}", "destination": "{rip(1)}"}}'
    bad = '{"kind": "drain", "service": "x", "destination": "y"}'
    found, dropped = read_state(f'{{"version": 1, "orders": [{bad}, {good}]}}'.encode())
    assert [o.destination for o in found.orders] == [str(rip(1))]
    assert len(dropped) == 1
    desk().controller.restore(found)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"command": "drain"}, "which destination"),
        ({"command": "drain", "destination": "10.9.9.9"}, "no such destination; known: 10.0.0.11:80"),
        ({"command": "drain", "destination": "10.0.0.11", "service": "tcp:1.2.3.4:5"}, "no such service"),
        ({"command": "override", "destination": "10.0.0.11"}, "needs a weight"),
        ({"command": "override", "destination": "10.0.0.11", "weight": -1}, "weight"),
        ({"command": "drain", "destination": "10.0.0.11", "seconds": 0}, "seconds"),
        ({"command": "drain", "destination": "10.0.0.11", "reason": "a\x1b[2J"}, "unprintable"),
        ({"command": "drain", "destination": "10.0.0.11", "reason": "x" * 201}, "reason"),
        ({"command": "drain", "destination": "10.0.0.11", "sudo": 1}, "sudo"),
        ({"command": "undrain", "destination": "10.0.0.11"}, "no order for it"),
        ({"command": "resume"}, "nothing is paused"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_line_and_changes_nothing(request_: dict[str, Any], said: str) -> None:
    d = desk(2)
    assert d.decision is not None
    with pytest.raises(CommandError, match=said):
        perform(read(request_), d.controller.orders, d.decision.services, "ada", d.wall)
    assert d.controller.orders.all() == ()


def test_a_request_names_a_real_server_by_its_address_and_its_service_with_or_without_the_protocol() -> None:
    d = desk()
    assert len(d.say("drain", "10.0.0.11", service="10.0.0.100:80").given) == 1
    assert d.say("undrain", "10.0.0.11:80").lifted


def test_what_a_command_answers_says_who_why_and_how_long() -> None:
    order = Order(kind=Kind.DRAIN, service=str(VIRTUAL), destination=str(rip(1)), who="ada", at=10.0, until=70.0)
    assert as_json(order, 40.0) | {"left_seconds": 30, "who": "ada", "kind": "drain"} == as_json(order, 40.0)


def test_the_drain_of_a_persistent_service_says_that_clients_come_back() -> None:
    made = Desk(config(2, "sed").__class__(service=(_persistent(),)), [100.0] * 2)
    made.run(5)
    assert "expire_quiescent_template" in made.say("drain", rip(1)).notes[0]


def _persistent() -> Any:
    import msgspec

    return msgspec.structs.replace(config(2).service[0], persistence_seconds=300)


def test_orders_of_one_service_are_not_those_of_another() -> None:
    book = Orders([Order(kind=Kind.PAUSE, service="tcp:10.0.0.9:1")])
    assert book.of(VIRTUAL).paused is None
    book.give(Order(kind=Kind.PAUSE))
    assert book.of(VIRTUAL).paused is not None


def test_an_ordered_weight_is_not_scaled_by_reports() -> None:
    d = desk()
    d.say("override", rip(1), weight=1000)
    d.speeds = [10.0, 100.0, 100.0]
    d.run(10)
    assert d.weight(1) == 1000


@pytest.mark.parametrize("restarted", [False, True])
def test_an_override_that_ends_while_nothing_is_decided_leaves_what_was_before(restarted: bool) -> None:
    d = Desk(config(3), [100.0] * 3)
    d.silent = {0, 1, 2}  # nobody ever reported
    d.run(1)
    d.say("override", rip(1), weight=7, seconds=60)
    d.run(10)
    d.say("override", rip(1), weight=9, seconds=60)
    d.run(10)
    if restarted:
        after = Desk(config(3), [100.0] * 3, d.table)
        after.silent, after.now = {0, 1, 2}, d.now
        after.controller.restore(decode(encode(d.controller.state())))
        d = after
        d.run(1)
    assert d.weight(1) == 9
    d.run(60)
    assert d.table.weights() == [100, 100, 100]


def test_a_forced_override_that_ends_while_nothing_is_decided_gives_the_owner_his_zero_back() -> None:
    d = adopted()
    owners_zero(d)
    d.silent = {0, 1, 2}
    d.run(60)
    d.say("override", rip(1), weight=50, force=True, seconds=10)
    d.run(5)
    assert d.weight(1) == 50
    d.run(10)
    assert d.weight(1) == 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["drain", "undrain"]), st.integers(1, 3), st.none()),
        st.tuples(st.just("override"), st.integers(1, 3), st.sampled_from([0, 1, 50, 2**31 - 1])),
        st.tuples(st.sampled_from(["pause", "resume"]), st.just(0), st.none()),
        st.tuples(st.sampled_from(["owner sets 0", "owner sets 10"]), st.integers(1, 3), st.none()),
        st.tuples(st.just("restart"), st.just(0), st.none()),
    ),
    max_size=10,
)


@settings(max_examples=2 * settings.default.max_examples // 5)
@given(steps=STEPS)
def test_whatever_is_ordered_without_force_owners_zeros_stay_and_drains_hold(steps: list[tuple[str, int, int]]) -> None:
    d = Desk(config(3, "sed", WEIGHTS), [100.0] * 3, desk().table)
    d.run(2)
    owners: set[int] = set()
    for command, i, weight in steps:
        if command == "restart":
            after = Desk(config(3, "sed", WEIGHTS), [100.0] * 3, d.table)
            after.now = d.now + 1
            after.controller.restore(decode(encode(d.controller.state())))
            d = after
        elif command.startswith("owner"):
            d.table.put(rip(i), 0 if command.endswith(" 0") else 10)
            (owners.add if command.endswith(" 0") else owners.discard)(i)
        else:
            with contextlib.suppress(CommandError):
                d.say(command, rip(i) if i else "", **({"weight": weight} if command == "override" else {}))
        d.run(0.6)
        standing = {o.destination: o for o in d.controller.orders.all()}
        for k in (1, 2, 3):
            order = standing.get(str(rip(k)))
            if k in owners or (order is not None and order.takes_out()):
                assert d.weight(k) == 0, (steps, k)
            elif order is not None:
                assert d.weight(k) == order.weight


# --- flows that are to end -------------------------------------------------------------------------------------------


def test_a_drain_may_cut_what_is_left_once_and_at_its_time() -> None:
    d = desk()
    (order,) = d.say("drain", rip(1), cut_after=600.0).given
    orders = d.controller.orders
    assert order.cut_at == d.wall + 600 and orders.cut(d.wall + 599) == ()
    (due,) = orders.cut(d.wall + 600)
    assert due.slot == (VIRTUAL, rip(1)) and orders.cut(d.wall + 601) == ()
    (left,) = orders.all()
    assert left.kind is Kind.DRAIN and left.cut_at is None  # it stands
    kept = decode(encode(d.controller.state()))
    assert kept.orders == (left,)


def test_a_cut_is_of_a_destination_that_is_there_and_ours() -> None:
    d = desk()
    assert d.say("cut", "10.0.0.12").evicted == ((VIRTUAL, rip(2)),)
    with pytest.raises(CommandError, match="no such destination"):
        d.say("cut", "10.0.0.99")
    with pytest.raises(CommandError, match='ownership "weights"'):
        adopted().say("cut", rip(1))
    with pytest.raises(CommandError, match="then-cut is for a drain"):
        d.say("override", rip(1), weight=5, cut_after=5.0)
    with pytest.raises(CommandError, match="then-cut"):
        adopted().say("drain", rip(1), cut_after=5.0)


def test_the_last_server_is_not_cut_without_force() -> None:
    d = desk(1)
    with pytest.raises(CommandError, match="it is the last one in service"):
        d.say("cut", rip(1))
    assert d.say("cut", rip(1), force=True).evicted and d.say("cut", rip(1), dry_run=True).evicted


def test_only_a_failover_service_has_a_first_place() -> None:
    with pytest.raises(CommandError, match="is in no service of the law failover"):
        desk().say("promote", rip(1))


@pytest.mark.parametrize(
    ("client", "why"),
    [("10.9.0.1/16", "has host bits set"), ("nobody", "expected an address"), ("fd00::/64", "address family")],
)
def test_clients_that_are_to_be_cut_are_an_address_or_a_network(client: str, why: str) -> None:
    with pytest.raises(CommandError, match=why):
        desk().say("cut", rip(1), client=client)
    assert str(desk().say("cut", rip(1), client="10.9.0.0/16").clients) == "10.9.0.0/16"
