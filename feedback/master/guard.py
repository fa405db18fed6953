"""Guard: bounds that no law can cross. Shares in, shares out, each bound that acted named in the reasons.

In this order: what the operator quiesced stays at 0; a server that fails fast is ejected, and comes back by a trial of
a few connections; an agent that is silent freezes its server and then follows the policy for lost ones; a new or
returning server starts slowly; a share changes by a bounded factor in a second; nobody in service gets less than the
floor, and nobody more than a multiple of its static share or an equal one: that is the operator's word, the rest is
the agents'. When most of the fleet falls silent at once the fault is ours, and all is held.

Invariants: no bound ever raises an operator's zero; a pool in which the operator left one server in service is never
all zero; the shares that come out sum to 1 or are all 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from feedback.config import Guards
from feedback.master.doubt import Doubt
from feedback.master.eject import TRIAL_CONNECTIONS, Ejector, Trial
from feedback.master.fleet import Trust, Window
from feedback.master.pool import Member, Pool, Share, Shares, normalised
from feedback.model import DestinationKey, Protocol, Reason

RAMP_START = 0.1
RAMP_HOT = 0.9  # a server that is this used does not get more yet
IN_SERVICE_MIN = 0.5  # quiescing lost servers leaves at least this part of the pool
STATIC_SECONDS = 10.0  # a lost server's share goes to the static one over this time


class Guarded(msgspec.Struct, frozen=True):
    """`held`: whatever the kernel has stays. `ramp` is 1 outside slow start. `trials` bound how many connections a
    server may have; its share is the law's meanwhile, or sed would never choose it."""

    shares: Mapping[DestinationKey, Share]
    ramp: Mapping[DestinationKey, float]
    held: str = ""
    trials: Mapping[DestinationKey, Trial] = {}


class Guard:
    """The guard of one service; it remembers the shares it let through."""

    def __init__(self, config: Guards) -> None:
        self._config = config
        self._shares: dict[DestinationKey, float] = {}
        self._ramp: dict[DestinationKey, float] = {}
        self._fresh: set[DestinationKey] = set()  # who was fresh when the fleet was last well
        self._ejector = Ejector()
        self._doubt = Doubt()
        self._at: float | None = None

    def observe(self, key: DestinationKey, window: Window, protocol: Protocol | None) -> None:
        """Take each window of the agent's stream."""
        self._ejector.observe(key, window, protocol)

    def apply(
        self, pool: Pool, wanted: Shares, now: float, restated: Mapping[DestinationKey, int] = MappingProxyType({})
    ) -> Guarded:
        """`restated`: what a weight in force becomes where the operator has changed the static one it was made from."""
        seconds = 0.0 if self._at is None else max(0.0, now - self._at)
        if self._at is None:
            self._shares = _kernel_shares(pool, restated)
        self._at = now
        held = self._panic(pool)
        if held:
            return Guarded(normalised(wanted), self._ramp, held, self._ejector.trials())
        ejected, trials = self._ejector.ejected(pool, now), self._ejector.trials()
        zeros = self._zeros(pool, ejected)
        serving = [m for m in pool.members if m.key not in zeros]
        self._start_ramps(serving)
        shares = _some({m.key: _tried(wanted[m.key], m.key in trials) for m in serving})
        pinned: dict[DestinationKey, Share] = {}
        for member in serving:
            share = None if member.key in trials else self._pinned(member, shares[member.key], pool, seconds)
            if share is not None:
                pinned[member.key] = share
        free = {k: self._bounded(k, s, seconds) for k, s in _around(pinned, shares).items()}
        free = {k: self._floored(s, len(serving)) for k, s in free.items()}
        shares = normalised(pinned | _around(pinned, free))
        shares = self._ceiled(serving, shares, self._doubt.doubted(pool, now))
        self._shares = {k: s.value for k, s in shares.items()}
        out = shares | {k: Share(0.0, (Reason("guard", why, 0.0),)) for k, why in zeros.items()}
        return Guarded(out, dict(self._ramp), trials=trials)

    def _panic(self, pool: Pool) -> str:
        """Why everything is held, or ''. Silence counts against those who were heard when all was well."""
        if all(m.trust is Trust.NEVER for m in pool.members):
            return "no report yet: everything is as it was"
        speaking = {m.key for m in pool.members if m.trust is Trust.FRESH}
        known = {m.key for m in pool.members}
        silent = (self._fresh & known) - speaking
        if len(self._fresh & known) > 1 and len(silent) >= self._config.panic * len(self._fresh & known):
            return f"{len(silent)} of {len(self._fresh & known)} agents fell silent: everything is held"
        lost = {m.key for m in pool.members if m.trust is Trust.LOST}
        self._fresh = (self._fresh | speaking) - lost
        return ""

    def _zeros(self, pool: Pool, ejected: Mapping[DestinationKey, str]) -> dict[DestinationKey, str]:
        zeros = {m.key: m.quiesced for m in pool.members if m.quiesced}
        if len(zeros.keys() | ejected.keys()) < len(pool.members):
            zeros = {**ejected, **zeros}
        if self._config.lost_policy == "quiesce":
            room = int(len(pool.members) * (1 - IN_SERVICE_MIN)) - len(zeros)
            lost = [m for m in pool.members if m.trust is Trust.LOST and m.key not in zeros]
            zeros |= {m.key: "agent lost: quiesced by policy" for m in lost[: max(0, room)]}
        return zeros

    def _start_ramps(self, serving: list[Member]) -> None:
        """A server that was not in service starts slowly, unless so many are new that the others would drown."""
        known = {m.key for m in serving}
        self._ramp = {k: r for k, r in self._ramp.items() if k in known}
        new = [k for k in known if not self._shares.get(k)]
        if self._shares and self._config.slow_start_seconds > 0 and 2 * len(new) <= len(known):
            self._ramp |= {k: RAMP_START for k in new if k not in self._ramp}

    def _pinned(self, member: Member, share: Share, pool: Pool, seconds: float) -> Share | None:
        """The share of a server whose part does not follow the law now, or None: the others fill up around it."""
        before = self._shares.get(member.key)
        if member.key in self._ramp:
            return self._ramped(member, share, seconds)
        if before is None:
            return None
        if member.trust is Trust.FRESH:
            if member.estimate is not None or member.advised is not None:
                return None
            return share.because("guard", "nothing measured yet: as the kernel had it", before)
        age = f"{member.age_seconds:.1f} s" if member.age_seconds is not None else "never"
        if member.trust is Trust.NEVER:
            return share.because("guard", "no report yet: as the kernel had it", before)
        if member.trust is Trust.STALE:
            return share.because("guard", f"last report {age} ago: not raised", min(share.value, before))
        if self._config.lost_policy != "static":
            return share.because("guard", f"last report {age} ago: held", before)
        total = sum(m.base.weight for m in pool.members) or 1
        value = before + (member.base.weight / total - before) * min(1.0, seconds / STATIC_SECONDS)
        return share.because("guard", f"last report {age} ago: towards the static weight", value)

    def _ramped(self, member: Member, share: Share, seconds: float) -> Share | None:
        hot = member.estimate is not None and member.estimate.utilisation > RAMP_HOT
        ramp = self._ramp[member.key] + (0.0 if hot else seconds / self._config.slow_start_seconds)
        if ramp >= 1:
            del self._ramp[member.key]
            return None
        self._ramp[member.key] = ramp
        return share.because("guard", f"slow start: {100 * ramp:.0f} % of it", share.value * ramp)

    def _bounded(self, key: DestinationKey, share: Share, seconds: float) -> Share:
        before = self._shares.get(key)
        if not before:
            return share
        factor = self._config.change_per_second**seconds
        value = min(max(share.value, before / factor), before * factor)
        if abs(value - share.value) < 1e-9:
            return share
        return share.because("guard", f"at most {self._config.change_per_second:g}-fold in a second", value)

    def _ceiled(
        self, serving: list[Member], shares: dict[DestinationKey, Share], doubted: Mapping[DestinationKey, str]
    ) -> dict[DestinationKey, Share]:
        """An agent can talk its server's share up so far and no further; the others fill up what is left. The base
        weight of an adopted server may be anything, so it is owed an equal part at least."""
        total = sum(m.base.weight for m in serving) or 1
        owed = {m.key: max(m.base.weight / total, 1 / len(serving)) for m in serving}
        limits = {k: part * (1.0 if k in doubted else self._config.ceiling) for k, part in owed.items()}
        over: dict[DestinationKey, Share] = {}
        while new := {k: s for k, s in shares.items() if k not in over and s.value > limits[k] + 1e-9}:
            if len(over) + len(new) == len(shares):
                break  # whatever is left must go somewhere
            for key, share in new.items():
                why = doubted.get(key, f"ceiling: {self._config.ceiling:g} times its static share, or an equal one")
                over[key] = share.because("guard", why, limits[key])
            shares = over | _around(over, shares)
        return shares

    def _floored(self, share: Share, serving: int) -> Share:
        floor = self._config.floor / serving
        if share.value >= floor:
            return share
        return share.because("guard", f"floor: {100 * self._config.floor:g} % of an equal share", floor)


def _tried(share: Share, on_trial: bool) -> Share:
    text = f"on trial after its ejection: {TRIAL_CONNECTIONS} connections at a time, until they are answered well"
    return share.because("guard", text) if on_trial else share


def _some(shares: Mapping[DestinationKey, Share]) -> dict[DestinationKey, Share]:
    """Normalised. A law that wants nobody gives no answer: equal shares then, or a pool of stale servers would be left
    with none."""
    if not any(s.value > 0 for s in shares.values()):
        shares = {k: s.because("guard", "the law wants nobody: equal shares", 1.0) for k, s in shares.items()}
    return normalised(shares)


def _around(
    pinned: Mapping[DestinationKey, Share], shares: Mapping[DestinationKey, Share]
) -> dict[DestinationKey, Share]:
    """The shares that are not pinned, scaled to fill what the pinned ones leave."""
    free = {k: s for k, s in shares.items() if k not in pinned}
    left = max(0.0, 1 - sum(s.value for s in pinned.values()))
    return {k: Share(s.value * left, s.reasons) for k, s in normalised(free).items()}


def _kernel_shares(pool: Pool, restated: Mapping[DestinationKey, int]) -> dict[DestinationKey, float]:
    """What is in force when we start: a restarted master continues from it."""
    weights = {m.key: float(m.kernel.destination.weight) for m in pool.members if m.kernel is not None}
    never = {m.key for m in pool.members if m.trust is Trust.NEVER}
    weights = {k: float(restated.get(k, w)) if w and k in never else w for k, w in weights.items()}
    total = sum(weights.values())
    return {k: w / total for k, w in weights.items() if w} if total else {}
