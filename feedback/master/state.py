"""State: what a restarted master cannot read from the kernel's table, and the operator's orders.

The kernel does not record who wrote a weight of 0: without this state, an ejection that outlives the master would be
taken for the operator's and stay for ever. And another owner's weights are gone once ours are written. Pure: the daemon
keeps it in a file. A part that does not fit is refused with one line, and the master starts without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from feedback.master.claims.claim import Cap, Number, Ordered, Remembered, Removed
from feedback.master.claims.orders import Order
from feedback.master.servers.capacity import Learned
from feedback.model import DestinationKey, ServiceKey
from feedback.refusals import RefusalError, printable

# Raised when an older master would do harm with it: fields that it does not know are ignored and have defaults here.
VERSION = 1


class StateError(RefusalError):
    """One line: what was wrong."""


class ServiceState(Remembered, frozen=True):
    """Also `learned`: how fast each destination is, for a standby or a restarted master to go on with; and `limited`:
    destinations whose thresholds are ours, learned, where somebody else owns the service; `holder`: who has the first
    place, where its law keeps it."""

    learned: dict[str, Learned] = msgspec.field(default_factory=dict)
    limited: tuple[str, ...] = ()
    holder: str = ""


class State(msgspec.Struct, frozen=True):
    """`made` are the services that the master makes or made, whether its file still names them or not."""

    version: int = VERSION
    services: dict[str, ServiceState] = {}
    orders: tuple[Order, ...] = ()
    made: tuple[str, ...] = ()


def without_learned(state: State) -> State:
    """The part that must be on the disk at once. Learned values may be some seconds old there."""
    bare = {key: msgspec.structs.replace(service, learned={}) for key, service in state.services.items()}
    return msgspec.structs.replace(state, services=bare)


def encode(state: State) -> bytes:
    return msgspec.json.format(msgspec.json.encode(state, order="deterministic")) + b"\n"


def sound(state: State) -> tuple[bytes, str]:
    """The bytes of a state that reads back equal, and what had to be left out for it, '' if nothing: an entry that no
    master could read must not take the others along."""
    written = encode(state)
    found, dropped = read(written)
    if found == state and not dropped:
        return written, ""
    return encode(found), "; ".join(dropped)[:200] or "what changes when it is read"


def decode(data: bytes) -> State:
    """Raises StateError. See `read`, for what it dropped."""
    return read(data)[0]


def read(data: bytes) -> tuple[State, tuple[str, ...]]:
    """The state, and a line for each entry that did not fit and was dropped; the rest is kept. Raises StateError where
    it is no state at all."""
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StateError(str(error)) from None
    if not isinstance(raw, dict):
        raise StateError(f"expected an object, not {type(raw).__name__}")
    version = raw.get("version", VERSION)
    if version != VERSION:
        raise StateError(f"is of version {str(version)[:20]}, this master reads {VERSION}")
    dropped: list[str] = []
    services = {}
    for key, entry in _items(raw.get("services"), "services", dropped):
        if _fits(ServiceKey.parse, key, f"services.{key}", dropped):
            services[key] = _service(entry, f"services.{key}", dropped)
    orders = []
    given = raw.get("orders", [])
    for number, entry in enumerate(given if isinstance(given, list) else []):
        order = _converted(entry, Order, f"orders[{number}]", dropped)
        if order is not None and _fits(lambda of: of.slot, order, f"orders[{number}]", dropped):
            orders.append(order)
    made = [k for k in _list(raw.get("made"), "made", dropped) if _fits(ServiceKey.parse, k, "made", dropped)]
    return State(services=services, orders=tuple(orders), made=tuple(made)), tuple(dropped)


def _list(raw: Any, where: str, dropped: list[str]) -> list[str]:
    if raw is None:
        return []
    if not isinstance(raw, list):
        dropped.append(f"{where}: expected an array")
        return []
    return [k for k in raw if isinstance(k, str)]


def _service(raw: Any, where: str, dropped: list[str]) -> ServiceState:
    """Each field's entries singly."""
    found: dict[str, Any] = {}
    for name, value in _items(raw, where, dropped):
        kind = ENTRIES.get(name)
        here = f"{where}.{name}"
        if name in ("zeros", "limited"):
            if not isinstance(value, list):
                dropped.append(f"{here}: expected an array")
                continue
            named = [k for k in value if isinstance(k, str)]
            found[name] = tuple(k for k in named if _fits(DestinationKey.parse, k, here, dropped))
        elif name == "holder":
            known = isinstance(value, str) and (not value or _fits(DestinationKey.parse, value, here, dropped))
            found[name] = value if known else ""
        elif kind is not None:
            entries = {k: _converted(v, kind, f"{here}.{k}", dropped) for k, v in _items(value, here, dropped)}
            kept = {k: v for k, v in entries.items() if v is not None}
            found[name] = {k: v for k, v in kept.items() if _fits(DestinationKey.parse, k, here, dropped)}
    return ServiceState(**found)


ENTRIES: dict[str, Any] = {
    "owners": Number,
    "forced": Number,
    "capped": Cap,
    "ordered": Ordered,
    "removed": Removed,
    "learned": Learned,
}


def _items(raw: Any, where: str, dropped: list[str]) -> list[tuple[str, Any]]:
    if raw is None or isinstance(raw, dict):
        return list((raw or {}).items())
    dropped.append(f"{where}: expected an object")
    return []


def _converted(raw: Any, kind: Any, where: str, dropped: list[str]) -> Any:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        dropped.append(printable(f"{where}: {error}"))
        return None


def _fits(parse: Callable[[Any], object], value: Any, where: str, dropped: list[str]) -> bool:
    try:
        parse(value)
    except ValueError as error:
        dropped.append(printable(f"{where}: {error}"))
        return False
    return True
