"""The client over a scripted channel: what it makes of dumps that are torn, and of edits that fail."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence

import pytest

from feedback.ipvs import Client, Refused, SyncRole, TornDump
from feedback.ipvs import client as client_module
from feedback.ipvs.channel import Dump, KernelError
from feedback.ipvs.encoding import encode_service
from feedback.ipvs.listed import Place
from feedback.ipvs.numbers import Command
from feedback.model import (
    Destination,
    DestinationEntry,
    DestinationKey,
    Edit,
    RemoveService,
    Service,
    ServiceKey,
    SetDestination,
)
from tests.ipvs.examples import dumped_destination

WEB, DNS = ServiceKey.parse("tcp:10.0.0.100:80"), ServiceKey.parse("udp:10.0.0.100:53")


def key(number: int) -> DestinationKey:
    return DestinationKey.parse(f"10.0.1.{number}:80")


def destinations(*numbers: int, datagrams: int = 1, weight: int = 1) -> Dump:
    entries = [DestinationEntry(Destination(key(n), weight)) for n in numbers]
    return Dump([dumped_destination(entry) for entry in entries], datagrams)


def services(*keys: ServiceKey) -> Dump:
    return Dump([encode_service(Service(k)) for k in keys], 1)


class ScriptedChannel:
    """Dumps come from two lists, the last of each for ever after; a batch fails as it is told."""

    def __init__(self, services: Sequence[Dump], destinations: Sequence[Dump], failures: dict[int, int]) -> None:
        self.services: Iterator[Dump] = self._script(services)
        self.destinations: Iterator[Dump] = self._script(destinations)
        self.failures = failures
        self.dumps = 0
        self.reloaded = False
        self.batches: list[int] = []

    @staticmethod
    def _script(dumps: Sequence[Dump]) -> Iterator[Dump]:
        yield from dumps
        while True:
            yield dumps[-1]

    def dump(self, command: int, body: bytes = b"") -> Dump:
        self.dumps += 1
        return next(self.services if command == Command.GET_SERVICE else self.destinations)

    def request(self, command: int, body: bytes = b"") -> list[bytes]:
        raise KernelError(errno.EEXIST, "")

    def batch(self, requests: Sequence[tuple[int, bytes]]) -> dict[int, int]:
        self.batches.append(len(requests))
        return {} if self.reloaded and len(self.batches) > 1 else self.failures

    def reopened(self) -> bool:
        return self.reloaded

    def close(self) -> None:
        pass


class ScriptedList:
    """The kernel's own list, as last bytes of addresses; without one, of a kernel that does not say."""

    def __init__(self, *lists: Sequence[int]) -> None:
        self.left = list(lists)

    def destinations(self, service: ServiceKey) -> list[Place] | None:
        if not self.left:
            return None
        return [(bytes((10, 0, 1, number)), (80).to_bytes(2, "big")) for number in self.left.pop(0)]

    def close(self) -> None:
        pass


def client(
    monkeypatch: pytest.MonkeyPatch,
    *dumps: Dump,
    services: Sequence[Dump] = (services(WEB),),
    failures: dict[int, int] | None = None,
    lists: Sequence[Sequence[int]] = (),
) -> tuple[Client, ScriptedChannel]:
    monkeypatch.setattr(client_module, "Listed", lambda *_: ScriptedList(*lists))
    channel = ScriptedChannel(services, dumps or (destinations(1),), failures or {})
    monkeypatch.setattr(client_module, "Channel", lambda *_: channel)
    return Client(), channel


def keys(made: Client) -> list[int]:
    (entry,) = made.snapshot().services
    return [int(str(d.destination.key.address).rsplit(".", 1)[1]) for d in entry.destinations]


def test_one_datagram_is_one_moment_and_is_not_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    made, channel = client(monkeypatch, destinations(3, 2, 1))
    assert keys(made) == [3, 2, 1]
    assert channel.dumps == 3  # services, destinations, services


@pytest.mark.parametrize(
    ("dumps", "expected", "read"),
    [
        ("quiet", [4, 3, 2, 1], 2),
        ("a removal made 2 vanish", [3, 2, 1], 3),
        ("an addition doubled 3", [5, 4, 3, 2, 1], 3),
        ("torn twice in the same way", [4, 3, 2, 1], 4),
        ("torn, and then changed for good", [4, 3], 4),
    ],
)
def test_several_datagrams_are_read_until_two_agree(
    monkeypatch: pytest.MonkeyPatch, dumps: str, expected: list[int], read: int
) -> None:
    script = {
        "quiet": [(4, 3, 2, 1)],
        "a removal made 2 vanish": [(4, 3, 1), (3, 2, 1)],
        "an addition doubled 3": [(4, 3, 3, 2, 1), (5, 4, 3, 2, 1)],
        "torn twice in the same way": [(4, 3, 3, 2, 1), (4, 3, 3, 2, 1), (4, 3, 2, 1)],
        "torn, and then changed for good": [(4, 3, 1), (4, 3, 2, 1), (4, 3)],
    }[dumps]
    made, channel = client(monkeypatch, *(destinations(*numbers, datagrams=2) for numbers in script))
    assert keys(made) == expected
    assert channel.dumps == read + 2


@pytest.mark.parametrize(
    ("dumps", "lists"),
    [
        ([(4, 3, 2, 1)], [(4, 3, 2, 1)]),
        ([(4, 3, 1), (4, 3, 1), (4, 3, 2, 1)], [(4, 3, 2, 1)] * 3),  # a writer in step made 2 vanish from both
        ([(4, 3, 3, 2, 1), (4, 3, 2, 1)], [(4, 3, 2, 1)] * 2),
        ([(3, 2, 1), (4, 3, 2, 1)], [(4, 3, 2, 1)] * 2),
    ],
)
def test_several_datagrams_are_read_until_they_are_what_the_kernel_lists(
    monkeypatch: pytest.MonkeyPatch, dumps: Sequence[Sequence[int]], lists: Sequence[Sequence[int]]
) -> None:
    script = (destinations(*numbers, datagrams=2) for numbers in dumps)
    made, channel = client(monkeypatch, *script, lists=lists)
    assert keys(made) == [4, 3, 2, 1]
    assert channel.dumps == len(dumps) + 2


def test_weights_that_move_between_two_dumps_tear_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made, channel = client(monkeypatch, *(destinations(2, 1, datagrams=2, weight=w) for w in (1, 9)))
    (entry,) = made.snapshot().services
    assert [d.destination.weight for d in entry.destinations] == [9, 9]
    assert channel.dumps == 4


def test_an_empty_service_is_looked_at_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dump of a service that was just then removed is empty too; here it was removed and came back."""
    made, _ = client(monkeypatch, destinations(datagrams=0), destinations(1), destinations(1))
    assert keys(made) == [1]
    empty, channel = client(monkeypatch, destinations(datagrams=0))
    assert keys(empty) == []
    assert channel.dumps == 4


def test_services_that_change_meanwhile_are_all_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    appeared = [services(WEB), services(DNS, WEB)]
    made, _ = client(monkeypatch, services=appeared)
    assert [str(e.service.key) for e in made.snapshot().services] == [str(DNS), str(WEB)]


def test_a_service_that_is_there_twice_is_a_torn_dump(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = client(monkeypatch, services=[services(WEB, WEB), services(WEB, WEB), services(WEB)])
    assert len(made.snapshot().services) == 1


def test_a_table_that_never_rests_is_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    restless = [destinations(*range(n, 0, -1), datagrams=2) for n in range(1, 40)]
    made, channel = client(monkeypatch, *restless)
    with pytest.raises(TornDump, match=r"tcp:10\.0\.0\.100:80"):
        made.snapshot()
    assert channel.dumps < 20
    made, _ = client(monkeypatch, services=[services(WEB), services(DNS)] * 20)
    with pytest.raises(TornDump):
        made.services()


def set_weight(number: int, weight: int = 1) -> Edit:
    return SetDestination(WEB, Destination(key(number), weight))


def test_failures_are_mapped_to_their_edits_past_those_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    made, channel = client(monkeypatch, failures={1: errno.ENOENT, 2: errno.ESRCH})
    edits = [set_weight(1), set_weight(2, 2**31), set_weight(3), RemoveService(DNS)]
    failures = made.apply(edits)
    assert channel.batches == [3]
    assert [(f.edit, f.errno) for f in failures] == [
        (edits[1], errno.EINVAL),
        (edits[2], errno.ENOENT),
        (edits[3], errno.ESRCH),
    ]
    assert "set destination 10.0.1.3:80 of tcp:10.0.0.100:80: there is no such destination" in str(failures[1])
    assert "2147483648" in failures[0].text


def test_nothing_to_do_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made, channel = client(monkeypatch)
    assert made.apply([]) == ()
    assert channel.batches == []


def test_when_the_module_was_loaded_anew_the_batch_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made, channel = client(monkeypatch, failures={0: errno.ENOENT, 1: errno.ENOENT})
    channel.reloaded = True
    assert made.apply([set_weight(1), set_weight(2)]) == ()
    assert channel.batches == [2, 2]


def test_a_refused_command_says_what_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = client(monkeypatch)
    with pytest.raises(Refused, match=r"stop the master sync daemon: .*\(EEXIST\)") as caught:
        made.stop_daemon(SyncRole.MASTER)
    assert caught.value.errno == errno.EEXIST
