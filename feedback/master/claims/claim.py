"""Claim: what is known of the author of one destination's weight and thresholds, which the kernel does not record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec

Number = Annotated[int, msgspec.Meta(ge=0)]


class Cap(msgspec.Struct, frozen=True):
    """A destination's thresholds before those of a trial or a signature, and those."""

    upper: Number
    lower: Number
    our_upper: Number = 0
    our_lower: Number = 0


class Ordered(msgspec.Struct, frozen=True):
    """A weight before the operator's order, and the order's."""

    before: Number
    ours: Number


class Removed(msgspec.Struct, frozen=True):
    """A destination whose check failed so many times in a row; `out`: it is out of the table by that."""

    out: bool
    times: Number


class Remembered(msgspec.Struct, frozen=True):
    """What a restarted master could not read from the kernel. `zeros`: destinations whose weight of 0 is ours.
    `owners`: the other owner's last weight of each. `capped`: who is on trial. `forced`: weights that an operator's
    order put in place of somebody else's zero. `ordered`: what orders changed. `removed`: whose checks failed."""

    zeros: tuple[str, ...] = ()
    owners: dict[str, Number] = {}
    capped: dict[str, Cap] = {}
    forced: dict[str, Number] = {}
    ordered: dict[str, Ordered] = {}
    removed: dict[str, Removed] = {}


@dataclass(slots=True, eq=False)
class Claim:
    """The claims on one destination. They are weights unless said otherwise; None: there is none.

    `written` is what we decided last, until somebody else is seen to have written since; `owners` the other owner's
    last one that was not ours, `remembered` the same from before a restart, until the first look; `edited` what we had
    written where the owner has put it into service at this look (0: it was not there); `theirs` whether its zero is
    somebody else's; `signed` whether its zero bears our signature; `cap` its thresholds, where a trial or a signature
    is in their place; `barred` whether a check, an order or a bound had it at 0, which is ours to raise; `forced` what
    a forced order wrote over somebody else's zero; `ordered` what an order changed, until something else is written;
    `stated` its static weight before a reload, until the first look after it; `restated` what the kernel had by that,
    and what becomes of it."""

    written: int | None = None
    owners: int | None = None
    remembered: int | None = None
    edited: int | None = None
    theirs: bool = False
    signed: bool = False
    cap: Cap | None = None
    barred: bool = False
    forced: int | None = None
    ordered: Ordered | None = None
    stated: int | None = None
    restated: tuple[int, int] | None = None
