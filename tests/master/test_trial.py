"""An ejected server's way back, on the model of the kernel: a few connections, a verdict, and thresholds as before."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from feedback.config import MasterConfig, parse
from feedback.ipvs.fake import FakeKernel
from feedback.ipvs.fake_table import Overload
from feedback.master import Controller
from feedback.master.bounds.eject import TRIAL_CONNECTIONS
from feedback.master.state import decode, encode
from feedback.model import AddDestination, AddService, Destination, DestinationEntry, Service, SetDestination
from feedback.wire import Application
from tests.master.builders import VIRTUAL, config, report, rip

SERVERS = 4
FLOW = 16  # connections in an interval


class Street:
    """A controller over a fake kernel, with connections that are answered at once; server 1 answers with errors."""

    def __init__(self, cfg: MasterConfig, overload: Overload, scheduler: str, *, upper: int = 0) -> None:
        self.config = cfg
        self.controller = Controller(cfg)
        self.kernel = FakeKernel(overload=overload, now=0.0)
        self.now, self.sequence = 0.0, 0
        self.failing = True
        self.answers, self.errors = [0] * SERVERS, [0] * SERVERS
        if cfg.ownership == "weights":
            self.kernel.apply([AddService(Service(VIRTUAL, scheduler))])
            for i in range(SERVERS):
                self.kernel.apply([AddDestination(VIRTUAL, Destination(rip(i + 1), 100, upper=upper))])

    def run(self, seconds: float) -> Iterator[DestinationEntry]:
        """The failing server's entry after each interval."""
        for _ in range(round(seconds / 0.2)):
            self.now = round(self.now + 0.2, 6)
            self.sequence += 1
            self.kernel.advance(self.now)
            self._connect()
            self._report()
            self.turn()
            yield self.first()

    def turn(self) -> None:
        self.controller.receive_kernel(self.kernel.snapshot(), self.now)
        assert self.kernel.apply(self.controller.decide(self.now).edits) == ()

    def first(self) -> DestinationEntry:
        return next(e for e in self.kernel.snapshot().services[0].destinations if e.destination.key == rip(1))

    def _connect(self) -> None:
        if not self.kernel.snapshot().services:
            return
        held = []
        for _ in range(FLOW):
            connection = self.kernel.open(VIRTUAL)
            assert connection is not None
            i = int(connection.destination.address) - int(rip(1).address)
            self.answers[i] += 1
            if i == 0 and self.failing:
                self.errors[0] += 1
                self.kernel.close_connection(connection)
            else:
                held.append(connection)
        for connection in held:
            self.kernel.close_connection(connection)

    def _report(self) -> None:
        for i in range(SERVERS):
            word = Application(80, completions=self.answers[i], errors=self.errors[i])
            plain = report(
                i + 1, at=self.now, sequence=self.sequence, busy=self.answers[i] * 0.005, opened=self.answers[i]
            )
            assert (
                self.controller.receive_report(msgspec.structs.replace(plain, applications=(word,)), self.now) is None
            )


def adopting(thresholds: str) -> MasterConfig:
    return parse(
        f'ownership = "weights"\n[[service]]\nvirtual = "{VIRTUAL}"\nthresholds = "{thresholds}"\n', MasterConfig
    )


@pytest.mark.parametrize("overload", list(Overload))
@pytest.mark.parametrize("scheduler", ["sed", "nq", "wlc", "wrr", "lc", "rr"])
def test_each_trial_lets_in_a_few_connections_and_no_more(scheduler: str, overload: Overload) -> None:
    street = Street(config(SERVERS, scheduler), overload, scheduler)
    trials, before, weight = [], 0, 100
    for entry in street.run(60):
        if weight == 0 and entry.destination.weight:
            trials.append(0)
            before = street.errors[0]
        if trials:
            trials[-1] = street.errors[0] - before
        weight = entry.destination.weight
    assert len(trials) >= 3
    assert max(trials) <= TRIAL_CONNECTIONS
    assert sum(trials) > 0


@pytest.mark.parametrize("overload", list(Overload))
@pytest.mark.parametrize("scheduler", ["sed", "wlc", "wrr"])
def test_good_answers_bring_it_back_without_a_threshold(scheduler: str, overload: Overload) -> None:
    street = Street(config(SERVERS, scheduler), overload, scheduler)
    list(street.run(3))
    street.failing = False
    answered = street.answers[0]
    last = list(street.run(30))[-1]
    assert (last.destination.upper, last.destination.lower) == (0, 0)
    assert street.answers[0] - answered > FLOW


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("upper", [0, 5000])
@pytest.mark.parametrize("thresholds", ["static", "learned"])
def test_the_owners_thresholds_come_back_after_a_trial(thresholds: str, upper: int, restart: bool) -> None:
    street = Street(adopting(thresholds), Overload.UNTIL_6_1_176, "sed", upper=upper)
    for entry in street.run(30):
        if entry.destination.weight and 0 < entry.destination.upper != upper:
            break
    else:
        pytest.fail("no trial")
    street.failing = False
    if restart:
        state = decode(encode(street.controller.state()))
        street.controller = Controller(street.config)
        street.controller.restore(state)
    last = list(street.run(30))[-1]
    assert last.destination.weight > 0
    if upper or thresholds == "static":
        assert last.destination.upper == upper
    else:
        assert last.destination.upper == 0 or last.destination.upper - last.active - last.inactive > 20


def test_an_owner_who_sets_a_threshold_meanwhile_has_the_last_word() -> None:
    street = Street(adopting("static"), Overload.UNTIL_6_1_176, "sed")
    for entry in street.run(30):
        if entry.destination.weight and entry.destination.upper:  # on trial
            break
    street.failing = False
    theirs = msgspec.structs.replace(street.first().destination, upper=4321, lower=0)
    assert street.kernel.apply([SetDestination(VIRTUAL, theirs)]) == ()
    assert list(street.run(30))[-1].destination.upper == 4321
