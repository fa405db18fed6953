"""Which frames count: the rules by which a report of an enrolled agent is admitted. Pure: no socket, no clock.

A frame is identified by the public key that authenticated its connection. The key says who may report; the report must
then have the same name and only RIPs enrolled for it, and its sequence must grow within its boot.

Invariant: a refused frame changes only the sender's allowance. A boot that another one replaced stays replaced while
that one speaks: an old report played again, or a second agent with the same key, cannot take turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Protocol

from feedback import wire
from feedback.model import Address

RATE_PER_SECOND = 50.0  # reports of one agent; five is usual
BURST = 50.0
SILENCE_SECONDS = 10.0  # after this a boot that was replaced may speak again
BOOTS_MAX = 16


class Enrolment(Protocol):
    """What is known of a key: whose it is, and the RIPs it may speak for."""

    @property
    def name(self) -> str: ...

    @property
    def addresses(self) -> frozenset[Address]: ...

    @property
    def until(self) -> int | None:
        """Set where another key takes this one's place; it ends then, and sooner when the other one reports."""


class Refused(Exception):  # noqa: N818 - an outcome, not a fault
    """A frame that is not admitted. `kind` is its counter, `name` the agent where it is known."""

    def __init__(self, kind: str, text: str, name: str = "") -> None:
        super().__init__(text)
        self.kind = kind
        self.name = name


@dataclass(slots=True)
class Peer:
    """What is remembered of one agent between its reports."""

    tokens: float = BURST
    filled_at: float = 0.0
    boot: str = ""
    sequence: int = -1
    heard_at: float = float("-inf")
    last: wire.Report | None = None
    retired: dict[str, int] = field(default_factory=dict)  # earlier boots, and how far each came
    addresses: tuple[str, ...] = ()  # as last admitted: the same again needs no look
    greeted: bool = False
    told_at: float = float("-inf")

    def spend(self, now: float) -> bool:
        """One report's worth of the allowance. False if it is used up."""
        self.tokens = min(BURST, self.tokens + (now - self.filled_at) * RATE_PER_SECOND)
        self.filled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def retire(self, boot: str) -> None:
        """Put the boot that spoke so far among the earlier ones, and take `boot` from there if it was one."""
        if self.boot:
            self.retired[self.boot] = self.sequence
        self.retired.pop(boot, None)
        while len(self.retired) > BOOTS_MAX:
            del self.retired[next(iter(self.retired))]
        self.greeted = False


class Admission:
    """Which frames count. Pure: no socket, no clock. An agent is remembered by its name: while it has two keys it is
    one agent all the same, with one allowance and one order of its boots."""

    def __init__(self, enrolments: Mapping[str, Enrolment]) -> None:
        self._enrolments: dict[str, Enrolment] = {}
        self._peers: dict[str, Peer] = {}  # by name
        self._moved: set[str] = set()  # names whose new key has reported: the one before is over
        self.replace(enrolments)

    def replace(self, enrolments: Mapping[str, Enrolment]) -> None:
        """Take other enrolments from now on; of agents that went or changed nothing is remembered."""
        before, new = _by_name(self._enrolments), _by_name(enrolments)
        same = {name for name, keys in new.items() if before.get(name) == keys}
        self._peers = {name: peer for name, peer in self._peers.items() if name in same}
        self._moved &= same
        self._enrolments = dict(enrolments)

    def __len__(self) -> int:
        """How many keys are enrolled."""
        return len(self._enrolments)

    def enrolled(self, key: str) -> Enrolment | None:
        return self._enrolments.get(key)

    def admit(self, key: str, data: bytes, now: float) -> tuple[wire.Report, Peer]:
        """The report in a frame from this key. Raises Refused."""
        enrolment, peer = self._speaker(key, now)
        name = enrolment.name
        try:
            report = wire.decode_report(data, peer.last)
        except wire.WireError as error:
            raise Refused(error.kind, str(error), name) from None
        self._check_speaker(report, enrolment, peer)
        self._check_order(report, peer, now, name)
        if enrolment.until is None:
            self._moved.add(name)
        peer.last = report
        return report, peer

    def admit_sessions(self, key: str, data: bytes, now: float) -> tuple[wire.Sessions, Enrolment]:
        """The words on sessions in a frame from this key. Raises Refused."""
        enrolment, _ = self._speaker(key, now)
        try:
            said = wire.decode_sessions(data)
        except wire.WireError as error:
            raise Refused(error.kind, str(error), enrolment.name) from None
        if said.agent != enrolment.name:
            raise Refused("foreign", f"this key is enrolled as {enrolment.name}, not {said.agent}", enrolment.name)
        return said, enrolment

    def _speaker(self, key: str, now: float) -> tuple[Enrolment, Peer]:
        """Who speaks with this key, if it may and has not said too much. Raises Refused."""
        enrolment = self._enrolments.get(key)
        if enrolment is None:
            raise Refused("revoked", "this key is no longer enrolled")
        name = enrolment.name
        if enrolment.until is not None and name in self._moved:
            raise Refused("revoked", "another key has replaced this one", name)
        peer = self._peers.get(name)
        if peer is None:
            peer = self._peers[name] = Peer(filled_at=now)
        if not peer.spend(now):
            raise Refused("flooded", f"more than {RATE_PER_SECOND:g} messages a second", name)
        return enrolment, peer

    def peer(self, key: str) -> Peer | None:
        enrolment = self._enrolments.get(key)
        return self._peers.get(enrolment.name) if enrolment is not None else None

    @staticmethod
    def _check_speaker(report: wire.Report, enrolment: Enrolment, peer: Peer) -> None:
        if report.agent != enrolment.name:
            raise Refused("foreign", f"this key is enrolled as {enrolment.name}, not {report.agent}", enrolment.name)
        if report.addresses == peer.addresses:
            return
        for text in report.addresses:
            try:
                known = ip_address(text) in enrolment.addresses
            except ValueError:
                raise Refused("malformed", f"{text[:60]!r} is not an address", enrolment.name) from None
            if not known:
                raise Refused("foreign", f"this key is not enrolled for {text}", enrolment.name)
        peer.addresses = report.addresses

    @staticmethod
    def _check_order(report: wire.Report, peer: Peer, now: float, name: str) -> None:
        """Within a boot the sequence grows; a boot that another one replaced stays replaced while that one speaks."""
        if report.boot == peer.boot:
            if report.sequence <= peer.sequence:
                raise Refused("replayed", f"sequence {report.sequence} came after {peer.sequence}", name)
        elif report.boot in peer.retired:
            if now - peer.heard_at < SILENCE_SECONDS:
                raise Refused("replayed", "a later start of this agent reports: do two run with one key?", name)
            if report.sequence <= peer.retired[report.boot]:
                raise Refused("replayed", f"sequence {report.sequence} of an earlier start", name)
        if report.boot != peer.boot:
            peer.retire(report.boot)
        peer.boot, peer.sequence, peer.heard_at = report.boot, report.sequence, now


def _by_name(enrolments: Mapping[str, Enrolment]) -> dict[str, dict[str, Enrolment]]:
    found: dict[str, dict[str, Enrolment]] = {}
    for key, enrolment in enrolments.items():
        found.setdefault(enrolment.name, {})[key] = enrolment
    return found
