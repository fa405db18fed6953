"""Which mark a packet gets: the matches of all services of a file, taken together."""

from __future__ import annotations

from feedback.config.match import RULES_MAX, Match, parse_match
from feedback.config.service import Services, service_key
from feedback.config.strict import ConfigError, Network
from feedback.model import Protocol, ServiceKey


def marks(config: Services) -> dict[int, tuple[Match, ...]]:
    """The packets that get each mark. Raises ConfigError."""
    found: dict[int, tuple[Match, ...]] = {}
    for i, service in enumerate(config.service):
        if service.match:
            fwmark = service_key(service).fwmark
            made = (parse_match(text, f"service[{i}].match[{j}]") for j, text in enumerate(service.match))
            found[fwmark] = found.get(fwmark, ()) + tuple(made)
    return found


def check_matches(config: Services, services: set[ServiceKey], source: str) -> None:
    kept: dict[tuple[Network, Protocol], list[tuple[Match, int]]] = {}
    singles: list[tuple[Match, int]] = []
    total = 0
    for i, service in enumerate(config.service):
        where, mark = f"{source}: service[{i}].match", service_key(service).fwmark
        if service.match and not mark:
            raise ConfigError(f'{where}: is for a firewall mark: virtual = "fwmark:7"')
        for j, text in enumerate(service.match):
            here = f"{where}[{j}]"
            match = parse_match(text, here)
            if ServiceKey.marked(mark, match.family) not in services:
                wanted = ServiceKey.marked(mark, match.family)
                raise ConfigError(f'{here}: {text}: there is no [[service]] virtual = "{wanted}" for it: add it')
            total += len(match.parts)
            if total > RULES_MAX:
                raise ConfigError(
                    f"{here}: more than {RULES_MAX} rules in this file: every packet walks past all of them"
                )
            rivals = kept.setdefault((match.network, match.protocol), [])
            for other, its in rivals:
                if its != mark and match.rivals(other):
                    raise ConfigError(f"{here}: {match}: mark {its} has {other}: a packet can have one mark only")
            rivals.append((match, mark))
            singles += [(match, mark)] if match.single else []
    _check_hidden(services, singles, source)


def _check_hidden(services: set[ServiceKey], singles: list[tuple[Match, int]], source: str) -> None:
    """The kernel looks a service up by its mark first: one by address would get nothing any more."""
    for match, mark in singles:
        for key in services:
            if key.protocol and key.address == match.network[0] and match.takes(key.protocol, key.port):
                raise ConfigError(f"{source}: service: {key}: gets nothing: {match} gives its packets to mark {mark}")
