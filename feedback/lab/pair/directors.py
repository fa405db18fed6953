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
        """Start its daemons. The first director has its services when it is active."""

    def wait_until_active(self, director: Node) -> float:
        """Wait until it alone answers for every address and has every service. Returns that moment."""

    def wait_until_standby(self, director: Node) -> float:
        """Wait until it says that it is ready, or until its table shows it. Returns that moment."""

    def hand_over(self) -> float:
        """Hand over from the first to the second, in this program's way. Returns the moment of the request."""

    def kill(self, director: Node, how: signal.Signals = signal.SIGKILL) -> float:
        """Kill its daemons, but not the machine. Returns the moment."""

    def freeze(self, director: Node) -> float: ...

    def thaw(self, director: Node) -> float: ...

    def tell(self) -> None:
        """Record the decisions that the daemons report as events of the run."""


class _Untold:
    """A program that does not say when it is ready: the kernel's table shows it."""

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
        """There is no command for it: the active daemon is stopped in an orderly way."""
        first = DIRECTORS[0]
        return self.stand.processes.kill(self.program.name(first), signal.SIGTERM)

    def kill(self, director: Node, how: signal.Signals = signal.SIGKILL) -> float:
        moment = self._all(director, how)
        self.stand.processes.kill(self.program.name(director), how)  # it is dead; this reaps it
        return moment

    def freeze(self, director: Node) -> float:
        return self._all(director, signal.SIGSTOP)

    def thaw(self, director: Node) -> float:
        return self._all(director, signal.SIGCONT)

    def tell(self) -> None:
        """Nothing: its log has only whole seconds."""

    def _all(self, director: Node, how: signal.Signals) -> float:
        """Children first: without their parent they would shut down in an orderly way (injury.py)."""
        moment = time.monotonic()
        victims = processes_in(self.stand.pair.namespace(director.name))
        for what in (signal.SIGSTOP, how) if how is signal.SIGKILL else (how,):
            for pid in victims:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, what)
        return moment


class KernelDirectors(_Untold):
    """No daemon: the kernel's own synchronisation, with services and addresses set by hand."""

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
        """Nothing: there were no decisions."""


def directors(stand: PairStand, variant: str, *, masters: bool = False) -> Directors:
    """With `masters` the product's masters run too."""
    if variant == "feedback":
        return Product(stand, masters=masters)
    if variant == "kernel":
        return KernelDirectors(stand)
    return KeepalivedDirectors(stand, variant)
