"""Commands: an operator's request -> orders, or the reason for refusal. Pure: a request, the last decision, a time of
day.

Owns the requirements for a request and what is refused without `force`: the last server of a service is not taken out,
an owner's zero is not raised. A request about several destinations is done as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, TypeAlias

import msgspec

from feedback.master.account import ServiceStatus
from feedback.master.claims.orders import ORDERS_MAX, Kind, Order, Orders
from feedback.master.outcome import Status
from feedback.master.traits import traits
from feedback.model import WEIGHT_MAX, DestinationKey, Protocol, ServiceKey
from feedback.refusals import RefusalError

SCHEMA = 1
COMMANDS = ("drain", "undrain", "override", "pause", "resume", "orders", "cut", "promote")

Text = Annotated[str, msgspec.Meta(max_length=200)]


class CommandError(RefusalError):
    """One line for the operator: why not. It repeats what was asked."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a command may say. `destination` is ADDRESS or ADDRESS:PORT, in `service` or in all that have it."""

    command: str
    destination: Text = ""
    service: Text = ""
    weight: Annotated[int, msgspec.Meta(ge=0, le=WEIGHT_MAX)] | None = None
    seconds: Annotated[float, msgspec.Meta(gt=0, le=366 * 86400)] | None = None
    reason: Text = ""
    force: bool = False
    cut_after: Annotated[float, msgspec.Meta(gt=0, le=366 * 86400)] | None = None  # of a drain
    dry_run: bool = False  # of a cut
    client: Text = ""  # of a cut: an address or a network


Place: TypeAlias = tuple[ServiceKey, DestinationKey]


class Done(msgspec.Struct, frozen=True):
    """`given`, `replaced` and `lifted` are what changed; `notes` what the operator should know. `evicted` and
    `promoted` are for the controller."""

    given: tuple[Order, ...] = ()
    replaced: tuple[Order, ...] = ()
    lifted: tuple[Order, ...] = ()
    notes: tuple[str, ...] = ()
    evicted: tuple[Place, ...] = ()
    clients: IPv4Network | IPv6Network | None = None
    promoted: Place | None = None


def read(request: dict[str, Any]) -> Request:
    """Raises CommandError."""
    try:
        found = msgspec.convert(request, Request)
    except msgspec.ValidationError as error:
        raise CommandError(str(error)) from None
    if not found.reason.isprintable():
        raise CommandError("the reason has unprintable characters")
    return found


def perform(request: Request, orders: Orders, services: Sequence[ServiceStatus], who: str, wall: float) -> Done:
    """Change `orders`. Raises CommandError, and then nothing has changed."""
    match request.command:
        case "drain" | "override":
            return _give(request, orders, services, who, wall)
        case "undrain":
            return _lift(request, orders)
        case "pause":
            return _pause(request, orders, services, who, wall)
        case "resume":
            return _resume(request, orders)
        case "orders":
            return Done()
        case "cut":
            return _cut(request, services)
        case "promote":
            return _promote(request, services)
        case other:
            raise CommandError(f"unknown command {other!r}: expected one of {', '.join(COMMANDS)}")


def as_json(order: Order, wall: float) -> dict[str, Any]:
    left = None if order.until is None else max(0, round(order.until - wall))
    plain: dict[str, Any] = {name: getattr(order, name) for name in Order.__struct_fields__}
    return plain | {"kind": str(order.kind), "left_seconds": left}


def _give(request: Request, orders: Orders, services: Sequence[ServiceStatus], who: str, wall: float) -> Done:
    found = _destinations(request, services)
    weight = 0 if request.command == "drain" else request.weight
    if weight is None:
        raise CommandError("override needs a weight")
    if request.cut_after is not None and (request.command != "drain" or not all(s.owned for s, _ in found)):
        raise CommandError('then-cut is for a drain, with ownership "table"')
    notes: list[str] = []
    for service, status in found:
        why = _last_server(service, found) if weight == 0 else _not_raised(status)
        if why and not request.force:
            raise CommandError(f"{status.key} in {service.service.key}: {why}: --force does it all the same")
        notes += _notes(service, status, weight)
    made = [
        Order(
            kind=Kind(request.command),
            service=str(service.service.key),
            destination=str(status.key),
            weight=weight,
            force=request.force,
            who=who,
            reason=request.reason,
            at=wall,
            until=_until(request, wall),
            cut_at=None if request.cut_after is None else wall + request.cut_after,
        )
        for service, status in found
    ]
    if len(orders.all()) + len(made) > ORDERS_MAX:
        raise CommandError(f"there are {ORDERS_MAX} orders already: `feedback orders` lists them")
    before = [orders.give(order) for order in made]
    return Done(tuple(made), tuple(o for o in before if o is not None), (), tuple(dict.fromkeys(notes)))


def _cut(request: Request, services: Sequence[ServiceStatus]) -> Done:
    """Flows are ended by taking their destination out of the table for a moment: new ones go elsewhere meanwhile."""
    found = [(s, d) for s, d in _destinations(request, services) if d.kernel is not None]
    if not found:
        raise CommandError(f"{request.destination}: is not in the kernel's table")
    for service, status in found:
        if not service.owned:
            raise CommandError(f'{service.service.key}: with ownership "weights" only the owner removes')
        if service.service.key.address is None:
            raise CommandError(f"{service.service.key}: with a firewall mark connections cannot be attributed")
        why = "" if request.client else _last_server(service, found)
        if why and not (request.force or request.dry_run):
            raise CommandError(f"{status.key} in {service.service.key}: {why}: --force does it all the same")
    places = tuple((s.service.key, d.key) for s, d in found)
    return Done(evicted=places, clients=_clients(request.client, places))


def _clients(text: str, places: Sequence[Place]) -> IPv4Network | IPv6Network | None:
    if not text:
        return None
    try:
        found = ip_network(text)
    except ValueError as error:
        raise CommandError(f"{error}: expected an address or a network like 10.1.0.0/16") from None
    for service, _ in places:
        if service.protocol is not Protocol.TCP:
            raise CommandError(f"{service}: only clients of a TCP service can be told")
        if service.address is not None and service.address.version != found.version:
            raise CommandError(f"{service}: {found} is not in its clients' address family")
    return found


def _promote(request: Request, services: Sequence[ServiceStatus]) -> Done:
    found = [(s, d) for s, d in _destinations(request, services) if s.law == "failover"]
    if not found:
        raise CommandError(f"{request.destination}: is in no service of the law failover")
    if len(found) > 1:
        names = ", ".join(str(s.service.key) for s, _ in found)
        raise CommandError(f"{request.destination}: is in {names}: say which, with --service")
    (service, status), *_ = found
    return Done(promoted=(service.service.key, status.key))


def _until(request: Request, wall: float) -> float | None:
    return None if request.seconds is None else wall + request.seconds


def _destinations(request: Request, services: Sequence[ServiceStatus]) -> list[tuple[ServiceStatus, Status]]:
    """Raises CommandError where there is none."""
    if not request.destination:
        raise CommandError("which destination? ADDRESS or ADDRESS:PORT")
    inside = _services(request.service, services) if request.service else list(services)
    found = [(s, d) for s in inside for d in s.destinations if _names(request.destination, str(d.key))]
    if not found:
        known = sorted({str(d.key) for s in inside for d in s.destinations})
        listed = ", ".join(known[:20]) + (" ..." if len(known) > 20 else "")
        raise CommandError(f"{request.destination}: no such destination; known: {listed or 'none'}")
    return found


def _names(text: str, destination: str) -> bool:
    return text in (destination, destination.rpartition(":")[0].strip("[]"))


def _services(text: str, services: Sequence[ServiceStatus]) -> list[ServiceStatus]:
    """Named as they are everywhere, or by address and port alone."""
    found = [s for s in services if text in (str(s.service.key), str(s.service.key).partition(":")[2])]
    if not found:
        known = ", ".join(str(s.service.key) for s in services)
        raise CommandError(f"{text}: no such service; known: {known or 'none'}")
    return found


def _last_server(service: ServiceStatus, taken: Sequence[tuple[ServiceStatus, Status]]) -> str:
    """Why it cannot go: nobody would be left. Only who serves now can be missed."""
    going = {status.key for s, status in taken if s is service}
    serving = {d.key for d in service.destinations if d.serves}
    return "it is the last one in service" if serving and serving <= going else ""


def _not_raised(status: Status) -> str:
    taken_out = status.order is not None and status.order.takes_out()
    return "" if status.zero is None or taken_out else str(status.zero.why)


def _notes(service: ServiceStatus, status: Status, weight: int) -> list[str]:
    found = []
    if weight == 0 and service.service.persistent:
        found.append(
            f"{service.service.key} is persistent: its clients still go to {status.key} for up to "
            f"{service.service.timeout_seconds} s after their last connection, unless "
            "net.ipv4.vs.expire_quiescent_template=1"
        )
    if weight and traits(service.service.scheduler).blind:
        found.append(f"{service.service.scheduler} only checks whether a weight is zero: {weight} means the same as 1")
    return found


def _lift(request: Request, orders: Orders) -> Done:
    """Drains and overrides, whether their destination is there or not."""
    if not request.destination:
        raise CommandError("which destination? ADDRESS or ADDRESS:PORT")
    found = tuple(
        o
        for o in orders.all()
        if o.kind is not Kind.PAUSE
        and _names(request.destination, o.destination)
        and request.service in ("", o.service, o.service.partition(":")[2])
    )
    if not found:
        raise CommandError(f"{request.destination}: no order for it: `feedback orders` lists them")
    for order in found:
        orders.lift(order)
    return Done(lifted=found)


def _pause(request: Request, orders: Orders, services: Sequence[ServiceStatus], who: str, wall: float) -> Done:
    names = [str(s.service.key) for s in _services(request.service, services)] if request.service else [""]
    made = [
        Order(kind=Kind.PAUSE, service=n, who=who, reason=request.reason, at=wall, until=_until(request, wall))
        for n in names
    ]
    before = [orders.give(order) for order in made]
    return Done(tuple(made), tuple(o for o in before if o is not None))


def _resume(request: Request, orders: Orders) -> Done:
    """Of one service, or of all."""
    pauses = [o for o in orders.all() if o.kind is Kind.PAUSE]
    found = tuple(o for o in pauses if request.service in ("", o.service, o.service.partition(":")[2]))
    if not found:
        everything = any(not o.service for o in pauses)
        hint = "the pause covers all services: `feedback resume`" if everything else "nothing is paused"
        raise CommandError(f"{request.service}: {hint}" if request.service else hint)
    for order in found:
        orders.lift(order)
    return Done(lifted=found)
