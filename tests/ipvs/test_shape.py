"""The quick reader gives what the general decoder gives: for one kernel's messages, for a mixture, for garbage."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from feedback.ipvs import MalformedMessage
from feedback.ipvs.decoding import decode_destination, destination_mark
from feedback.ipvs.netlink import attribute
from feedback.ipvs.shape import DestinationReader
from feedback.model import Counters, Destination, DestinationEntry, DestinationKey, Family
from tests.ipvs.examples import dumped_destination, entries

families = st.sampled_from(Family)


def outcome(read: object, *arguments: object) -> object:
    try:
        return read(*arguments)  # type: ignore[operator]
    except MalformedMessage:
        return "malformed"


@given(st.lists(st.tuples(entries, st.booleans(), st.booleans()), min_size=1, max_size=8), families)
def test_a_mixture_of_kernels_is_read_as_by_the_general_decoder(
    parts: list[tuple[DestinationEntry, bool, bool]], family: Family
) -> None:
    reader = DestinationReader()
    for entry, named, wide in parts:
        if not wide:  # 32 bits each, as an old kernel has
            entry = DestinationEntry(entry.destination, 1, 2, 3, Counters(*range(10)))
        body = dumped_destination(entry, family=named, stats64=wide)
        assert outcome(reader.read, body, family) == outcome(decode_destination, body, family)
        assert reader.mark(body) == destination_mark(body)


@given(st.data(), families)
def test_garbled_messages_are_read_as_by_the_general_decoder(data: st.DataObject, family: Family) -> None:
    reader = DestinationReader()
    whole = dumped_destination(data.draw(entries))
    reader.read(whole, family)
    for _ in range(5):
        garbled = bytearray(whole[: data.draw(st.integers(len(whole) - 8, len(whole)))])
        for _ in range(data.draw(st.integers(0, 3))):
            garbled[data.draw(st.integers(0, len(garbled) - 1))] = data.draw(st.integers(0, 255))
        body = bytes(garbled)
        assert outcome(reader.read, body, family) == outcome(decode_destination, body, family)
        assert outcome(reader.mark, body) == outcome(destination_mark, body)


def test_the_same_destination_has_the_same_key_object() -> None:
    reader = DestinationReader()
    body = dumped_destination(DestinationEntry(Destination(DestinationKey.parse("10.0.0.1:80"))))
    reader.read(body, Family.IPV4)
    keys = [reader.read(body, Family.IPV4).destination.key for _ in range(2)]
    assert keys[0] is keys[1]


def test_a_repeated_attribute_is_taken_where_the_general_decoder_takes_it() -> None:
    body = dumped_destination(DestinationEntry(Destination(DestinationKey.parse("10.0.0.1:80"), weight=3)))
    twice = attribute(2, body[4:] + attribute(4, bytes([9, 0, 0, 0])))
    reader = DestinationReader()
    assert [reader.read(twice, Family.IPV4).destination.weight for _ in range(2)] == [9, 9]
