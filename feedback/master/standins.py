"""Where session values go: those of a server to its stand-in. Pure.

The configuration names the stand-ins. A server's values are kept as long as they are useful, even if the server is
dead, so that a stand-in whose agent starts or returns later gets all of them. Nothing is kept for servers without a
stand-in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from feedback.model import Address
from feedback.sessions import Sessions
from feedback.wire import PROTOCOL, Session
from feedback.wire import Sessions as Said

Plan = Mapping[tuple[Address, int], frozenset[Address]]  # RIP and port of a server, and the RIPs that stand in for it
Message = tuple[Address, Said]  # for the agent of this RIP


@dataclass(slots=True)
class _Speaker:
    addresses: frozenset[Address]
    sessions: Sessions = field(default_factory=Sessions)


class StandIns:
    """The reports on sessions, and the agents to which they go."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._speakers: dict[str, _Speaker] = {}

    def follow(self, plan: Plan) -> None:
        """Take another configuration."""
        self._plan = plan
        self._speakers = {n: s for n, s in self._speakers.items() if self._stands_in_for(s.addresses)}

    def hear(self, said: Said, addresses: frozenset[Address], now: float) -> list[Message]:
        """Words of the agent of these RIPs. Those that are too long are dropped with all that came with them.

        Returns what is to be passed on; for who says nothing, everything that others have said to him.
        """
        if not said.sessions:
            return list(self._all_for(addresses, now))
        if not self._stands_in_for(addresses):
            return []
        speaker = self._speakers.setdefault(said.agent, _Speaker(addresses))
        speaker.addresses = addresses
        try:
            speaker.sessions.take(said.sessions, now)
        except ValueError:
            return []
        return [(to, _message(said.agent, words)) for to, words in self._by_receiver(addresses, said.sessions).items()]

    def _all_for(self, addresses: frozenset[Address], now: float) -> Iterator[Message]:
        for name, speaker in self._speakers.items():
            for words in speaker.sessions.all(now):
                for to, some in self._by_receiver(speaker.addresses, words).items():
                    if to in addresses:
                        yield to, _message(name, some)

    def _by_receiver(self, addresses: frozenset[Address], words: Iterable[Session]) -> dict[Address, list[Session]]:
        found: dict[Address, list[Session]] = {}
        for word in words:
            for to in {to for rip in addresses for to in self._receivers(rip, word.port)}:
                found.setdefault(to, []).append(word)
        return found

    def _receivers(self, rip: Address, port: int) -> frozenset[Address]:
        """A word for port 0 is for all; a service of all ports takes any."""
        if port:
            return self._plan.get((rip, port), frozenset()) | self._plan.get((rip, 0), frozenset())
        return frozenset(to for (address, _), receivers in self._plan.items() if address == rip for to in receivers)

    def _stands_in_for(self, addresses: frozenset[Address]) -> bool:
        return any(address in addresses for address, _ in self._plan)


def _message(agent: str, words: Iterable[Session]) -> Said:
    return Said(PROTOCOL, agent, tuple(words))
