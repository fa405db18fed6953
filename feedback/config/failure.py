"""What happens to a destination whose health check fails, to its flows, and to its sessions with a stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from feedback.config.service import DestinationConfig, ServiceConfig, Services, service_key, to_destination
from feedback.config.strict import ConfigError, check_address, check_word
from feedback.model import Address, Protocol, parse_address


class OnFailure(StrEnum):
    """What happens to a destination whose health check fails, and so to its flows."""

    QUIESCE = "quiesce"  # weight 0: its flows stay with it
    REMOVE = "remove"  # out of the table, and its flows with it
    CUT = "cut"  # the same, and its TCP clients are told


def on_failure(destination: DestinationConfig, service: ServiceConfig) -> OnFailure:
    """The setting in force for a destination of a checked configuration."""
    word = destination.on_failure or service.on_failure
    if word is not None:
        return OnFailure(word)
    if service.check is not None and cuts_the_demoted(service):
        return OnFailure.CUT
    udp = service_key(service).protocol is Protocol.UDP
    return OnFailure.REMOVE if udp and service.check is not None else OnFailure.QUIESCE


def cuts_the_demoted(service: ServiceConfig) -> bool:
    """Whether its law ends the flows of a server that has lost the first place."""
    return service.law == "failover" and service.law_options.get("cut", "never") != "never"


def removes(config: Services) -> bool:
    """Whether any destination is taken out of the table when it fails."""
    return any(how is not OnFailure.QUIESCE for how in _ways_out(config))


def cuts(config: Services) -> bool:
    """Whether any destination's clients are told when it fails."""
    return any(how is OnFailure.CUT for how in _ways_out(config))


def _ways_out(config: Services) -> Iterator[OnFailure]:
    if config.ownership == "table":
        for service in config.service:
            yield from (on_failure(destination, service) for destination in service.destination)
            if cuts_the_demoted(service):
                yield OnFailure.CUT


def check_failure(service: ServiceConfig, ownership: str, where: str) -> None:
    places = [(where, service.on_failure)]
    places += [(f"{where}.destination[{j}]", d.on_failure) for j, d in enumerate(service.destination)]
    for place, word in places:
        if word is None:
            continue
        here = f"{place}.on_failure"
        check_word(word, set(OnFailure), here)
        if word == OnFailure.QUIESCE:
            continue
        if ownership == "weights":
            raise ConfigError(f'{here}: {word!r}: with ownership "weights" only the owner removes: `feedback doctor`')
        if service.check is None:
            raise ConfigError(f"{here}: {word!r}: needs [service.check], which detects that a destination fails")
        if word == OnFailure.CUT and service_key(service).protocol is not Protocol.TCP:
            raise ConfigError(f'{here}: "cut": only clients of a TCP service can be told: "remove" ends the flows')


def stand_ins(config: Services) -> dict[tuple[Address, int], frozenset[Address]]:
    """The stand-ins: RIP and port of a server, and the RIPs of those that may continue its sessions."""
    found: dict[tuple[Address, int], frozenset[Address]] = {}
    for service in config.service:
        for destination in service.destination:
            if destination.stand_in is not None:
                key = to_destination(destination, service).key
                other = parse_address(destination.stand_in)
                found[key.address, key.port] = found.get((key.address, key.port), frozenset()) | {other}
    return found


def check_stand_ins(service: ServiceConfig, where: str) -> None:
    of = {check_address(d.address, where): d.stand_in for d in service.destination}
    for j, destination in enumerate(service.destination):
        if destination.stand_in is None:
            continue
        here, text = f"{where}.destination[{j}].stand_in", destination.stand_in
        address = check_address(text, here)
        if address not in of:
            raise ConfigError(
                f"{here}: {text} is no destination of this service: add it (it gets nothing until it is needed)"
            )
        if address == check_address(destination.address, here):
            raise ConfigError(f"{here}: {text} is this destination itself")
        if of[address] is not None:
            raise ConfigError(f"{here}: {text} has a stand-in itself: a stand-in cannot have one")
