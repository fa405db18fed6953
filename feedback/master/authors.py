"""Authors: who wrote which weight and threshold of one service, as far as the kernel and our memory can tell.

A record in the kernel has no author. Owns what we wrote last, what the service's other owner wrote, and what orders and
trials have put in place for a while. Knows no law and no stage. Invariants: a weight of 0 that we did not write is
somebody else's, and stays 0 until they raise it; what a trial or an order changed comes back as it was, unless somebody
has changed it since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from feedback.master.eject import Trial
from feedback.master.fleet import Trust
from feedback.master.limits import Limit
from feedback.master.owner import SIGNATURE, Disputes, ForeignEdit, What
from feedback.master.pool import Member, Pool
from feedback.master.state import Cap, Ordered, ServiceState
from feedback.model import Destination, DestinationEntry, DestinationKey, Reason, ServiceEntry, ServiceKey, Setting


class Authors:
    """Of one service. `destinations` are the configured records; None where somebody else owns the service."""

    def __init__(self, service: ServiceKey, destinations: Mapping[DestinationKey, Destination] | None) -> None:
        self._service, self.destinations = service, destinations
        self.entry: ServiceEntry | None = None
        self.have: dict[DestinationKey, DestinationEntry] = {}
        self.keys: tuple[DestinationKey, ...] = tuple(destinations or ())
        self._written: dict[DestinationKey, int] = {}
        self._zeros: set[DestinationKey] = set()  # somebody else's
        self._owners: dict[DestinationKey, int] = {}  # the other owner's last weight that was not ours
        self._remembered: dict[DestinationKey, int] = {}  # the same, from before a restart
        self._signed: set[DestinationKey] = set()  # whose zero we wrote, with our signature
        self._disputes = Disputes()
        self._noticed: list[ForeignEdit] = []  # of the service itself
        self._edited: dict[DestinationKey, int] = {}  # what the owner put into service at this look, and ours before
        self._away = False
        self._capped: dict[DestinationKey, Cap] = {}  # whose threshold is a trial's
        self._barred: set[DestinationKey] = set()  # at 0 because of the watch or an order: ours to raise
        self._forced: dict[DestinationKey, int] = {}  # what a forced order wrote over somebody else's zero
        self._before: dict[DestinationKey, Ordered] = {}  # what orders changed, until something else is written
        self._static: dict[DestinationKey, int] = {}  # static weights before a reload, until the first look after it
        self._restated: dict[DestinationKey, tuple[int, int]] = {}  # what the kernel had by them, and what that becomes

    def succeed(self, before: Authors) -> None:
        """Take the place of those of the same service, before a reload that changed it. Before the first look."""
        self.restore(before.state())
        old = {k: d.weight for k, d in (before.destinations or {}).items()} | before._static
        self._restated = dict(before._restated)
        self._static = {k: old[k] for k, d in (self.destinations or {}).items() if old.get(k, d.weight) != d.weight}

    def state(self) -> ServiceState:
        """What a restarted master could not read from the kernel, but for what was learned."""
        zeros = (str(k) for k, w in self._written.items() if w == 0 and k not in self._zeros)
        owners = {str(k): w for k, w in self._owners.items() if k in self.have}
        return ServiceState(
            zeros=tuple(sorted(zeros)),
            owners=owners if self.destinations is None else {},
            capped={str(k): cap for k, cap in self._capped.items()},
            forced={str(k): w for k, w in self._forced.items()},
            ordered={str(k): change for k, change in self._before.items()},
        )

    def restore(self, state: ServiceState) -> None:
        """Before the first look at the kernel."""
        self._before = {DestinationKey.parse(k): change for k, change in state.ordered.items()}
        self._written = {DestinationKey.parse(k): 0 for k in state.zeros}
        self._remembered = {DestinationKey.parse(k): w for k, w in state.owners.items()}
        self._capped = {DestinationKey.parse(k): cap for k, cap in state.capped.items()}
        self._forced = {DestinationKey.parse(k): w for k, w in state.forced.items()}
        self._zeros |= self._forced.keys()

    # What the kernel has.

    def follow(self, *, changed: bool) -> None:
        """The other owner's service is there; `changed`: not as we knew it."""
        if changed or self._away:
            self._noticed.append(ForeignEdit(self._service, None, None, None, What.SERVICE))

    def leave(self) -> ForeignEdit:
        """The other owner has removed the service. It may come back as it was: keepalived's restart does that."""
        self._away = True
        return ForeignEdit(self._service, None, None, None, What.SERVICE_REMOVED)

    def receive(self, entry: ServiceEntry | None, now: float) -> list[ForeignEdit]:
        """Take a look at the kernel. Returns what somebody else did since the last one."""
        foreign = self._foreign(entry, now)
        self.entry, self._away = entry, entry is None and self._away
        self.have = {e.destination.key: e for e in entry.destinations} if entry else {}
        self._capped = {k: cap for k, cap in self._capped.items() if self.in_force(k) == (cap.our_upper, cap.our_lower)}
        self.keys = tuple(self.have if self.destinations is None else self.destinations)
        for e in self.have.values():
            self._look_at_zero(e.destination)
        self._restate()
        return foreign

    def _restate(self) -> None:
        """What is in force by a static weight that the operator has changed follows it in proportion."""
        for key, old in self._static.items():
            if key in self.have and key not in self._zeros:
                had, new = self.have[key].destination.weight, (self.destinations or {})[key].weight
                now = self.restated().get(key, had)
                part = new * now / old if old else self._part(new)
                self._restated[key] = (had, max(1, round(part)) if new else 0)
        self._static = {}

    def restated(self) -> dict[DestinationKey, int]:
        """Weights that the kernel should have instead, where nothing else decides: no agent has reported yet."""
        now = {k: e.destination.weight for k, e in self.have.items()}
        return {k: becomes for k, (had, becomes) in self._restated.items() if now.get(k) == had}

    def decided(self) -> None:
        """Reports decide: what is in force is no longer a static weight."""
        self._restated = {}

    def in_force(self, key: DestinationKey) -> tuple[int, int] | None:
        """The thresholds of a destination that is there."""
        have = self.have.get(key)
        return (have.destination.upper, have.destination.lower) if have else None

    def _look_at_zero(self, have: Destination) -> None:
        """Whose a zero is: by its signature where somebody else owns the service, else by what we wrote last."""
        signed = self.destinations is None and (have.upper, have.lower) == SIGNATURE
        if signed and have.key not in self._capped:  # of a master before us, whose state is lost
            self._capped[have.key] = Cap(0, 0, *SIGNATURE)
        if have.weight:
            if self._forced.get(have.key) != have.weight:
                self._zeros.discard(have.key)
        elif signed:
            self._written[have.key] = 0
        elif self.destinations is None or self._written.get(have.key) != 0:
            self._zeros.add(have.key)

    def _foreign(self, entry: ServiceEntry | None, now: float) -> list[ForeignEdit]:
        """What somebody else did since the last look. Takes their weights for the owner's."""
        if entry is None:
            return [] if self.entry is None else [self.leave()]
        service, found, rewritten = entry.service.key, self._noticed, []
        self._noticed, self._edited, anew = [], {}, self._made_anew(entry)
        for have in (e.destination for e in entry.destinations):
            ours = self._written.get(have.key)
            unsigned = have.key in self._signed and (have.upper, have.lower) != SIGNATURE
            if ours is not None and (have.weight != ours or unsigned):
                found.append(ForeignEdit(service, have.key, ours, have.weight))
                if have.weight and have.key not in self._zeros and ours != self._owners.get(have.key):
                    rewritten.append(have.key)
                if have.weight and (ours != self._owners.get(have.key) or have.key in self._zeros):
                    self._edited[have.key] = ours
                del self._written[have.key]
            elif self.entry is not None and have.key not in self.have and ours is None:
                found.append(ForeignEdit(service, have.key, None, have.weight, What.ADDED))
                self._edited[have.key] = 0
            if have.weight and have.key not in self._written:
                self._owners[have.key] = have.weight
        if self.entry is None:
            self._remember(entry, {edit.destination for edit in found})
        found += self._removed(entry)
        whole = bool(rewritten) and all(e.destination.key in rewritten for e in entry.destinations)
        self._disputes.rewritten(rewritten, whole=anew or whole, now=now)
        return found

    def _made_anew(self, entry: ServiceEntry) -> bool:
        """Whether its owner has wiped out weights of ours by removing the service, or all that was in it."""
        wiped = self._away or not any(entry.entry(key) for key in self.have)
        return wiped and any(self._written.get(k) not in (None, self._owners.get(k)) for k in self.have)

    def _removed(self, entry: ServiceEntry) -> list[ForeignEdit]:
        gone = self.have.keys() - {e.destination.key for e in entry.destinations}
        ours = gone if self.destinations is None else gone & self.destinations.keys()
        service = entry.service.key
        return [ForeignEdit(service, k, self._written.pop(k, None), None, What.REMOVED) for k in sorted(ours)]

    def _remember(self, entry: ServiceEntry, edited: Collection[DestinationKey | None]) -> None:
        """At the first look the weights found are most likely ours, and the owner's are those of the state."""
        there = {e.destination.key for e in entry.destinations} - set(edited)
        self._owners |= {k: w for k, w in self._remembered.items() if k in there}
        self._remembered.clear()

    # Whose word counts for a destination.

    def base(self, key: DestinationKey, kernel: DestinationEntry | None) -> Destination:
        """What the owner of the service wants of this destination: the configuration, or his own last weight."""
        if self.destinations is not None:
            return self.destinations[key]
        assert kernel is not None  # the keys of an adopted service are the kernel's
        unknown = 1 if key in self._signed or key not in self._zeros else 0  # the state is lost, and the zero is ours
        weight = self._owners.get(key, kernel.destination.weight or unknown)
        owners = msgspec.structs.replace(kernel.destination, weight=weight)
        cap = self._capped.get(key)
        return owners if cap is None else msgspec.structs.replace(owners, upper=cap.upper, lower=cap.lower)

    def quiesced(self, key: DestinationKey, base: Destination, kernel: DestinationEntry | None) -> str:
        if self.destinations is not None and base.weight == 0:
            return "weight 0 in the configuration: quiesced by the operator"
        if key in self._zeros and kernel is not None:
            return "somebody else set the weight to 0: theirs to raise"
        return ""

    def standing(self, now: float) -> str:
        """Why the other owner's weights stand, or ''."""
        return self._disputes.standing(now) if self.destinations is None else ""

    def theirs(self, pool: Pool, settings: Mapping[DestinationKey, Setting], why: str) -> dict[DestinationKey, Setting]:
        """As the owner of the service has them."""
        weights = {m.key: 0 if m.key in self._zeros else m.base.weight for m in pool.members}
        total = sum(weights.values()) or 1
        return {
            m.key: msgspec.structs.replace(
                settings[m.key],
                weight=weights[m.key],
                share=weights[m.key] / total,
                upper=m.base.upper,
                lower=m.base.lower,
                reasons=(*settings[m.key].reasons, Reason("owner", why, weights[m.key])),
            )
            for m in pool.members
        }

    def signed(self, key: DestinationKey, setting: Setting) -> Setting:
        """A zero of ours must be told from one that the owner writes later."""
        have = self.in_force(key)
        if setting.weight or key in self._zeros or have is None:
            self._signed.discard(key)
            return setting
        usual = self._capped.get(key) or Cap(*have)
        self._capped[key] = Cap(usual.upper, usual.lower, *SIGNATURE)
        self._signed.add(key)
        return msgspec.structs.replace(setting, upper=SIGNATURE[0], lower=SIGNATURE[1])

    def trials(
        self, bounds: Mapping[DestinationKey, Limit], trials: Mapping[DestinationKey, Trial]
    ) -> dict[DestinationKey, Limit]:
        """A trial's threshold stands instead of the usual one, which is kept in mind and comes back after."""
        found = {}
        for key, cap in self._capped.items():
            if key in bounds and (bounds[key].upper, bounds[key].lower) == (cap.our_upper, cap.our_lower):
                found[key] = Limit(cap.upper, cap.lower, bounds[key].room, "as before the trial")
        for key, trial in trials.items():
            if key in self._zeros:  # its owner has taken it out meanwhile: nothing to try
                continue
            upper = min(trial.upper, bounds[key].upper or trial.upper)
            limit = Limit(upper, min(trial.lower, upper), bounds[key].room, f"on trial: no more than {upper}, all told")
            if have := self.in_force(key):
                usual = self._capped.get(key) or Cap(*have)
                self._capped[key] = Cap(usual.upper, usual.lower, limit.upper, limit.lower)
            found[key] = limit
        return found

    # What is held, and what was written.

    def held_weight(self, member: Member) -> int:
        """What the kernel has; for a server that a check had taken out and that passes again, its part of the rest."""
        have = member.kernel.destination.weight if member.kernel else member.base.weight
        change = self._before.get(member.key)
        if change is not None and member.order is None and change.ours == have:
            have = 0 if member.quiesced else change.before
        if have or member.key not in self._barred or member.quiesced:
            return have
        return self._part(member.base.weight)

    def _part(self, weight: int) -> int:
        """A static weight on the scale that the others have."""
        others = [
            (e.destination.weight, self.base(k, e).weight)
            for k, e in self.have.items()
            if e.destination.weight and (self.destinations is None or k in self.destinations)
        ]
        static = sum(base for _, base in others)
        return round(weight * sum(have for have, _ in others) / static) if static else weight

    def put_right(self, member: Member) -> int:
        """While all is held, too, the owner's weight has not our scale: ours comes back, or its part of the rest."""
        have, ours = self.held_weight(member), self._edited.get(member.key)
        if self.destinations is not None:
            return (
                self.restated().get(member.key, have) if member.trust is Trust.NEVER and not member.quiesced else have
            )
        mine = [e.destination for k, e in self.have.items() if e.destination.weight and k not in self._edited]
        if not have or ours is None:
            return have
        if ours or not mine or not self._proportional([d.weight for d in mine]):
            return ours or have
        static = sum(self._owners.get(d.key, d.weight) for d in mine)
        return max(1, round(member.base.weight * sum(d.weight for d in mine) / static))

    def wrote(self, pool: Pool, settings: Mapping[DestinationKey, Setting]) -> None:
        """These settings are decided: what the kernel has at the next look is ours, unless it says otherwise."""
        self._written = {k: s.weight for k, s in settings.items()}
        self._forced = {m.key: self._written[m.key] for m in pool.members if self._over_zero(m)}
        self._before = {m.key: change for m in pool.members if (change := self._change(m)) is not None}
        barred = {m.key for m in pool.members if m.barred or (m.order and m.order.takes_out())}
        self._barred = barred | {k for k in self._barred if self._written.get(k) == 0}

    def failed(self, key: DestinationKey) -> None:
        """The kernel refused it: what is there then is not somebody else's work."""
        self._written.pop(key, None)

    def _over_zero(self, member: Member) -> bool:
        """Whether a forced order raises somebody else's zero, which is theirs again when it ends."""
        order = member.order
        forced = order is not None and order.force and order.weight > 0
        return forced and member.key in self._zeros and self._written[member.key] > 0

    def _change(self, member: Member) -> Ordered | None:
        """What an order has made of the weight: to go back to where nothing is decided when it ends."""
        ours, known = self._written[member.key], self._before.get(member.key)
        if member.order is None:
            return known if known is not None and known.ours == ours else None
        have = member.kernel.destination.weight if member.kernel else member.base.weight
        return Ordered(known.before if known else have, ours)

    def _proportional(self, weights: Collection[float]) -> bool:
        return self.entry is not None and proportional(self.entry.service.scheduler, weights)


def proportional(scheduler: str, weights: Iterable[float]) -> bool:
    """Whether weights can be capacities: not ranks, counts, or what holds a tier back."""
    positive = [w for w in weights if w > 0]
    return scheduler not in {"fo", "ovf"} and max(positive) < 1000 * min(positive)
