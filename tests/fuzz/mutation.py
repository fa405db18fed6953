"""Inputs for a decoder, made of valid ones as Hypothesis strategies, so that a failing one shrinks.

Bytes are flipped, cut, spliced, repeated, and overwritten with the numbers at which lengths and counts go wrong;
documents (MessagePack, JSON, TOML) are changed as trees too: wrong types, huge values, deep nesting, keys missing or
new. Knows no decoder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgpack
from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]

NUMBERS = [0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 1024, 4095, 4096, 0x7FFF, 0x8000, 0xFFFF,
           0x10000, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]  # fmt: skip
VALUES: list[Any] = [
    *(None, True, False, -1, 0, 1, 65536, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)),
    *(0.5, -0.0, 1e308, 5e-324, float("nan"), float("inf"), float("-inf")),
    *("", "x", "x" * 65, "x" * 4000, "\0", "é", "10.0.0.1", "::1%eth0", "tcp:10.0.0.1:99999", "9" * 5000, "\U0010ffff"),
    *([], {}, [[]], [{}], {"": {}}, [0] * 3000, {"version": 1}),
]
MSGPACK_TOKENS = [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\x7f\xff\xff\xff",
                  b"\x91" * 1500, b"\x81\xa1a" * 600, b"\xc1", b"\xcb\x7f\xf8\0\0\0\0\0\0", b"\xd9\x02\xff\xfe",
                  b"\xc7\x0c\xff" + b"\xff" * 12, b"\xcf" + b"\xff" * 8]  # fmt: skip
JSON_TOKENS = [b"[" * 1500, b'{"a":' * 1500, b"9" * 5000, b"1e999", b"-", b'"\xff\xfe"', rb'"\ud800"', b"NaN", b"\0",
               b'{"version":1,', b"null", b"[" * 600 + b"]" * 600]  # fmt: skip
TOML_TOKENS = [b"a=" + b"[" * 1500, b"a=" + b"{a=" * 700, b"a=" + b"9" * 5000, b"a=1e999", b'"""', b"[[", b"\n[",
               b"\xff", b"a." * 700 + b"a=1", b"a=nan\n", b"\na=1979-05-27T07:32:00Z\n", b"\0",
               b'\\ud800"', b"[" * 700]  # fmt: skip


def changed_bytes(seeds: Sequence[bytes], tokens: Sequence[bytes], bytes_max: int) -> st.SearchStrategy[bytes]:
    """One of the seeds after one to five changes."""

    @st.composite
    def made(draw: Draw) -> bytes:
        data = draw(st.sampled_from(seeds))
        for change in draw(st.lists(st.sampled_from(_CHANGES), min_size=1, max_size=5)):
            data = change(draw, data, seeds, tokens)[:bytes_max]
        return bytes(data)

    return made()


def _place(draw: Draw, data: bytes) -> int:
    return int(draw(st.integers(0, len(data))))


def _flip(draw: Draw, data: bytes, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    at = _place(draw, data)
    mask = draw(st.integers(1, 255))
    return data[:at] + bytes(b ^ mask for b in data[at : at + 1]) + data[at + 1 :]


def _cut(draw: Draw, data: bytes, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    return data[: _place(draw, data)]


def _drop(draw: Draw, data: bytes, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    at = _place(draw, data)
    return data[:at] + data[at + draw(st.integers(1, 16)) :]


def _repeat(draw: Draw, data: bytes, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    at = _place(draw, data)
    piece = data[at : at + draw(st.integers(1, 64))]
    return data[:at] + piece * draw(st.sampled_from([1, 2, 16, 255, 1000])) + data[at:]


def _splice(draw: Draw, data: bytes, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    other = draw(st.sampled_from(seeds))
    return data[: _place(draw, data)] + other[_place(draw, other) :]


def _insert(draw: Draw, data: bytes, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    at = _place(draw, data)
    piece = draw(st.sampled_from(tokens) if tokens else st.binary(min_size=1, max_size=8))
    return data[:at] + piece + data[at:]


def _noise(draw: Draw, data: bytes, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    at = _place(draw, data)
    return data[:at] + draw(st.binary(min_size=1, max_size=12)) + data[at:]


def _number(draw: Draw, data: bytes, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """A length or a count: one to eight bytes become one of the numbers at which things go wrong."""
    size, order = draw(st.sampled_from([1, 2, 2, 4, 4, 8])), draw(st.sampled_from(["big", "little"]))
    value = draw(st.sampled_from(NUMBERS)) % (1 << 8 * size)
    at = _place(draw, data)
    at = min(at - at % min(size, 4), max(0, len(data) - size))
    return data[:at] + value.to_bytes(size, order) + data[at + size :]


_CHANGES = [_flip, _cut, _drop, _repeat, _splice, _insert, _noise, _number, _number]


# --- documents -------------------------------------------------------------------------------------------------------


def changed_trees(seeds: Sequence[Any], write: Callable[[Any], bytes]) -> st.SearchStrategy[bytes]:
    """One of the seeds with one to three of its nodes changed, written as bytes."""

    @st.composite
    def made(draw: Draw) -> bytes:
        tree = draw(st.sampled_from(seeds))
        for _ in range(draw(st.integers(1, 3))):
            tree = _changed(draw, tree)
        return write(tree)

    return made()


def _changed(draw: Draw, tree: Any) -> Any:
    """Down a few levels, and there a change."""
    if isinstance(tree, dict) and tree and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(tree, key=str)))
        fate = draw(st.sampled_from(["in", "in", "in", "gone", "named"]))
        rest = {k: v for k, v in tree.items() if k != key}
        if fate == "gone":
            return rest
        if fate == "named":
            return rest | {draw(st.sampled_from(["", "x", "version", "a.b", "é", "\n"])): tree[key]}
        return tree | {key: _changed(draw, tree[key])}
    if isinstance(tree, list) and tree and draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(tree) - 1))
        if draw(st.booleans()):
            return [*tree[:at], _changed(draw, tree[at]), *tree[at + 1 :]]
        return tree[:at] + [tree[at]] * draw(st.sampled_from([0, 2, 64, 65, 300])) + tree[at + 1 :]
    if draw(st.integers(0, 9)) == 0:
        return _deep(draw(st.sampled_from([40, 200, 1200])), tree, draw(st.booleans()))
    return draw(st.sampled_from(VALUES))


def _deep(levels: int, tree: Any, as_map: bool) -> Any:
    for _ in range(levels):
        tree = {"a": tree} if as_map else [tree]
    return tree


def write_msgpack(tree: Any) -> bytes:
    """Empty where the tree has what MessagePack has no way to say."""
    try:
        packed: bytes = msgpack.packb(tree)
    except (ValueError, OverflowError):
        return b"\x91" * 2000
    return packed


def write_json(tree: Any) -> bytes:
    try:
        return json.dumps(tree, default=str).encode()
    except RecursionError:
        return b"[" * 2000


def write_toml(tree: Any) -> bytes:
    """Inline tables below the first level."""
    if not isinstance(tree, dict):
        return f"a = {_inline(tree, 0)}".encode()
    return "".join(f"{json.dumps(k)} = {_inline(v, 0)}\n" for k, v in tree.items()).encode()


def _inline(tree: Any, level: int) -> str:
    if level > 400:
        return "[" * 500
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{json.dumps(str(k))} = {_inline(v, level + 1)}" for k, v in tree.items()) + "}"
    if isinstance(tree, list | tuple):
        return "[" + ", ".join(_inline(v, level + 1) for v in tree) + "]"
    if isinstance(tree, bool):
        return "true" if tree else "false"
    if isinstance(tree, float):
        return repr(tree)
    return "''" if tree is None else str(tree) if isinstance(tree, int) else json.dumps(str(tree))
