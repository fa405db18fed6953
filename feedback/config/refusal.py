"""msgspec's refusals in an operator's words: the place first, then what was wrong, then what to write instead. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Literal, get_args, get_origin

import msgspec

Tables = Mapping[str, Mapping[str, Any]]


def readable(error: str, kind: type[msgspec.Struct]) -> str:
    """msgspec says `Expected `int`, got `str` - at `$.service[0].weight``."""
    what, _, path = error.replace(" | null`", "`").rpartition(" - at `$")
    if not what:
        what, path = error, ""
    where = path.strip(".`")
    place = re.sub(r"\[[^]]*\]", "", where)
    said = _said(what, place, dict(_tables(kind)))
    return f"{where}: {said}" if where else said


def _said(what: str, place: str, tables: Tables) -> str:
    name = what.partition("`")[2].rpartition("`")[0]
    if what.startswith("Object contains unknown field"):
        return f"unknown field `{name}`: {_instead(name, place, tables)}"
    if what.startswith("Object missing required field"):
        return f"required field `{name}` is missing"
    if what.startswith("Invalid enum value"):
        return f"{what[len('Invalid enum value ') :]}: expected one of {', '.join(_words(place, tables))}"
    if what == "Expected `array`, got `object`" and place in tables:
        return f"there may be several: write [[{place}]]"
    if what.startswith("Expected `array`"):
        return f"{what}: write it in brackets"
    if what.startswith("Expected `object`") and place in tables:
        return f"is a table: write [{place}], and its keys below"
    return what


def _instead(name: str, place: str, tables: Tables) -> str:
    import difflib  # an agent whose file is good never needs it

    known = tables.get(place, {})
    near = difflib.get_close_matches(name, known, 1, 0.75)
    if near:
        return f"did you mean {near[0]}?"
    inside = [path for path, names in tables.items() if name in names]
    if inside and not place:
        return f"it belongs in {' or '.join(inside)}"
    return f"expected one of {', '.join(sorted(known))}"


def _words(place: str, tables: Tables) -> list[str]:
    table, _, name = place.rpartition(".")
    return sorted(map(str, _choices(tables.get(table, {}).get(name))))


def _choices(annotation: Any) -> Iterator[object]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        yield from (member.value for member in annotation)
    else:
        for argument in get_args(annotation):
            yield from _choices(argument)


def _tables(kind: type[msgspec.Struct], place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each table of a file, by its path without indices: what it may say, and of which type."""
    fields = msgspec.structs.fields(kind)
    yield place, {field.encode_name: field.type for field in fields}
    for field in fields:
        for inner in _structs(field.type):
            yield from _tables(inner, f"{place}.{field.encode_name}".lstrip("."))


def _structs(annotation: Any) -> Iterator[type[msgspec.Struct]]:
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        yield annotation
    for argument in get_args(annotation):
        yield from _structs(argument)
