"""What runs on the two directors: the product, keepalived, or the kernel alone. One interface, so that scenarios can
compare them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Protocol

from feedback.ipvs import SyncRole
from feedback.lab.error import LabError
from feedback.lab.pair.injury import processes_in
from feedback.lab.pair.keepalived import Keepalived
from feedback.lab.pair.product import Product
from feedback.lab.pair.stand import PairStand
from feedback.lab.pair.topology import DIRECTORS, Node

ADVERT_SECONDS = {"keepalived": 1.0, "keepalived_fast": 0.1}


class Directors(Protocol):
    def start(self, director: Node) -> None:
        """Its daemons. The services of the first are there when it is active."""

    def wait_until_active(self, director: Node) -> float:
        """Until it alone answers for every address and has every service. Returns that moment."""

    def wait_until_standby(self, director: Node) -> float:
        """Until it is as ready as it says, or its table shows. Returns that moment."""

    def hand_over(self) -> float:
        """Of the first to the second, as it is done with this program. Returns the moment when it was asked for."""

    def kill(self, director: Node, how: signal.Signals = signal.SIGKILL) -> float:
        """Its daemons, not the machine. Returns the moment."""

    def freeze(self, director: Node) -> float: ...

    def thaw(self, director: Node) -> float: ...

    def tell(self) -> None:
        """What the daemons say of their decisions, as events of the run."""


class _Untold:
    """Who says nothing of being ready: the kernel's table shows it."""

    def __init__(self, stand: PairStand) -> None:
        self.stand = stand

    def wait_until_active(self, director: Node) -> float:
        self.stand.wait_for_owner(director)
        return self.stand.wait_for_services(director)

    def wait_until_standby(self, director: Node) -> float:
        return self.stand.wait_for_services(director)


class KeepalivedDirectors(_Untold):
    def __init__(self, stand: PairStand, variant: str) -> None:
        super().__init__(stand)
        self.program = Keepalived(stand.pair, stand.processes, ADVERT_SECONDS[variant])

    def start(self, director: Node) -> None:
        self.program.start(director)

    def hand_over(self) -> float:
        """There is no command for it: the one in service is stopped in an orderly way."""
        first = DIRECTORS[0]
        return self.stand.processes.kill(self.program.name(first), signal.SIGTERM)

    def kill(self, director: Node, how: signal.Signals = signal.SIGKILL) -> float:
        moment = self._all(director, how)
        self.stand.processes.kill(self.program.name(director), how)  # it is dead, and now reaped too
        return moment

    def freeze(self, director: Node) -> float:
        return self._all(director, signal.SIGSTOP)

    def thaw(self, director: Node) -> float:
        return self._all(director, signal.SIGCONT)

    def tell(self) -> None:
        """Its log has whole seconds only."""

    def _all(self, director: Node, how: signal.Signals) -> float:
        """Children first: without their parent they say goodbye (injury.py)."""
        moment = time.monotonic()
        victims = processes_in(self.stand.pair.namespace(director.name))
        for what in (signal.SIGSTOP, how) if how is signal.SIGKILL else (how,):
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, what)
        return moment


class KernelDirectors(_Untold):
    """No daemon: the kernel's own synchronisation, services and addresses by hand."""

    def start(self, director: Node) -> None:
        self.stand.machines[director.name].make_services()
        first = director == DIRECTORS[0]
        self.stand.start_kernel_sync(director, SyncRole.MASTER if first else SyncRole.BACKUP)
        if first:
            self.stand.take_addresses(director)

    def hand_over(self) -> float:
        raise LabError("no daemon is there to ask")

    def kill(self, director: Node, how: signal.Signals = signal.SIGKILL) -> float:
        raise LabError("no daemon is there to kill")

    freeze = thaw = kill

    def tell(self) -> None:
        """Nobody decided anything."""


def directors(stand: PairStand, variant: str, *, masters: bool = False) -> Directors:
    """With `masters` the product's other daemon runs too."""
    if variant == "feedback":
        return Product(stand, masters=masters)
    if variant == "kernel":
        return KernelDirectors(stand)
    return KeepalivedDirectors(stand, variant)
