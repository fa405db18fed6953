"""The master's part in marks, rules and routes: in either role, until it is told to remove them.

Runs a Keeper in a thread every TURN_SECONDS and reports what it did. It costs nothing if no service has a `match` and
an earlier configuration left nothing: then no library is loaded and no program run. When the daemon stops, everything
stays, as the weights do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedback.config import MasterConfig, marks
from feedback.ipvs import IpvsError
from feedback.refusals import printable
from feedback.steer.errors import SteerError

if TYPE_CHECKING:  # imported when the first service has a match
    from feedback.steer.keeper import Keeper
    from feedback.steer.plan import Plan

TURN_SECONDS = 1.0  # between two looks, each some 10 ms of a program and of rtnetlink


def memory(config: MasterConfig) -> Path:
    """Where the keeper remembers what it made."""
    return config.control.with_suffix(".steer")


def keeper(config: MasterConfig) -> Keeper:
    """Of this configuration; it wants nothing yet."""
    from feedback.steer.keeper import Keeper
    from feedback.steer.routing import Place

    place = Place(config.steer.table, config.steer.priority)
    return Keeper(memory(config), config.steer.firewall, place, config.netns)


class Steering:
    """`tell` is called in the loop with what was done, `complain` with why not."""

    def __init__(self, config: MasterConfig, tell: Callable[..., None], complain: Callable[[str, str], None]) -> None:
        self._tell, self._complain = tell, complain
        self._keeper: Keeper | None = None
        self._changed = asyncio.Event()
        self._problem = ""
        self._removed = False
        self.follow(config)

    def follow(self, config: MasterConfig) -> None:
        """From now on. Ends a removal."""
        self._config, self._removed = config, False
        self._fresh = False
        self._changed.set()

    def remove(self) -> None:
        """Take away all that is ours, and keep nothing until the next configuration."""
        self._removed = True
        self._fresh = False
        self._changed.set()

    def told(self) -> dict[str, Any]:
        """For commands. `settled`: what is there is what was asked for last."""
        state = "removed" if self._removed else "kept" if marks(self._config) else "none"
        return {"state": state, "settled": self._fresh and not self._problem, "problem": self._problem}

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            self._changed.clear()
            await self._turn()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), TURN_SECONDS)

    async def _turn(self) -> None:
        config, removed, first = self._config, self._removed, not self._fresh
        wanted = {} if removed else marks(config)
        if not wanted and self._keeper is None and not memory(config).exists():
            self._fresh = True
            return
        try:
            plan = await asyncio.to_thread(self._work, config, wanted, first)
        except (SteerError, IpvsError, OSError) as error:
            self._problem = printable(str(error))
            self._complain("steer", self._problem)
            return
        self._problem = ""
        if config is self._config and removed is self._removed:
            self._fresh = True
        if plan:
            self._tell("steered" if first else "steer-mended", **_fields(plan))

    def _work(self, config: MasterConfig, wanted: dict[int, Any], first: bool) -> Plan:
        if self._keeper is None or first:
            self._keeper = keeper(config)
            self._keeper.want(wanted)
        return self._keeper.turn()


def _fields(plan: Plan) -> dict[str, Any]:
    """What was done, in numbers."""
    done = {
        "policy_rules_added": len(plan.add_lookups),
        "policy_rules_removed": len(plan.remove_lookups),
        "routes_added": len(plan.add_defaults),
        "routes_removed": len(plan.remove_defaults),
    }
    marking = {} if plan.rules is None else {"rules_that_mark": len(plan.rules)}
    return marking | {name: count for name, count in done.items() if count}
