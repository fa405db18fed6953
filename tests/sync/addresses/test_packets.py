"""Frames against vectors written by hand from the layouts of RFC 826, RFC 5227 and RFC 4861, checksums included."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.sync.addresses import packets
from feedback.sync.addresses.packets import Address, Answer, Claim, Instruction, Question, parse_frame

MAC, PEER = "02:00:00:00:00:01", "02:00:00:00:00:02"
VIP, OWN = IPv4Address("10.0.0.100"), IPv4Address("10.0.0.2")
VIP6, OWN6 = IPv6Address("2001:db8::100"), IPv6Address("fe80::1")


def octets(text: str) -> bytes:
    """Hexadecimal; what follows a semicolon is a comment."""
    return bytes.fromhex("".join(line.split(";")[0] for line in text.splitlines()))


ARP_HEADER = "0001 0800 06 04"  # Ethernet, IPv4, lengths of their addresses

PROBE = octets(f"""
    ffffffffffff 020000000001 0806 ; everybody, us, ARP
    {ARP_HEADER} 0001              ; request
    020000000001 00000000          ; sender: no address
    000000000000 0a000064          ; target
""")
REQUEST = octets(f"""
    ffffffffffff 020000000001 0806
    {ARP_HEADER} 0001
    020000000001 0a000002
    000000000000 0a000064
""")
REPLY = octets(f"""
    020000000002 020000000001 0806 ; to the one who asked
    {ARP_HEADER} 0002              ; reply
    020000000001 0a000064
    020000000002 0a000002
""")
GRATUITOUS_REQUEST = octets(f"""
    ffffffffffff 020000000001 0806
    {ARP_HEADER} 0001
    020000000001 0a000064          ; sender and target are the address
    000000000000 0a000064
""")
GRATUITOUS_REPLY = octets(f"""
    ffffffffffff 020000000001 0806
    {ARP_HEADER} 0002
    020000000001 0a000064
    020000000001 0a000064          ; both MACs too, or Linux does not take it for gratuitous
""")

SOLICITATION = octets("""
    3333ff000100 020000000001 86dd           ; RFC 2464: 3333 and the group's last four bytes
    60000000 0020 3a ff                      ; 32 bytes of ICMPv6, hop limit 255
    fe80000000000000 0000000000000001
    ff02000000000000 00000001ff000100        ; ff02::1:ff and the target's last three bytes
    87 00 4963 00000000                      ; solicitation
    20010db800000000 0000000000000100        ; target
    01 01 020000000001                       ; source link-layer address
""")
SOLICITATION_WITHOUT_ADDRESS = octets("""
    3333ff000100 020000000001 86dd
    60000000 0018 3a ff
    0000000000000000 0000000000000000
    ff02000000000000 00000001ff000100
    87 00 4aef 00000000
    20010db800000000 0000000000000100
""")
ADVERTISEMENT = octets("""
    333300000001 020000000001 86dd           ; all nodes
    60000000 0020 3a ff
    20010db800000000 0000000000000100
    ff02000000000000 0000000000000001
    88 00 f72c 20000000                      ; advertisement: override
    20010db800000000 0000000000000100
    02 01 020000000001                       ; target link-layer address
""")
ADVERTISEMENT_OF_ROUTER = ADVERTISEMENT.replace(octets("f72c 20000000"), octets("772c a0000000"))
SOLICITED_ADVERTISEMENT = octets("""
    020000000001 020000000002 86dd           ; to the one who asked
    60000000 0020 3a ff
    20010db800000000 0000000000000100
    fe80000000000000 0000000000000001
    88 00 b7ad 60000000                      ; solicited, override
    20010db800000000 0000000000000100
    02 01 020000000002
""")


def arp_reply(mac: str, address: IPv4Address, to_mac: str, to: IPv4Address) -> bytes:
    """What a kernel answers to the one who asked: `address` is at `mac`."""
    return packets._arp(to_mac, packets._REPLY, mac, address, to_mac, to)


@pytest.mark.parametrize(
    ("built", "vector"),
    [
        (packets.arp_probe(MAC, VIP), PROBE),
        (packets.arp_request(MAC, OWN, VIP), REQUEST),
        (arp_reply(MAC, VIP, PEER, OWN), REPLY),
        (packets.gratuitous_request(MAC, VIP), GRATUITOUS_REQUEST),
        (packets.gratuitous_reply(MAC, VIP), GRATUITOUS_REPLY),
        (packets.neighbour_solicitation(MAC, OWN6, VIP6), SOLICITATION),
        (packets.neighbour_solicitation(MAC, IPv6Address("::"), VIP6), SOLICITATION_WITHOUT_ADDRESS),
        (packets.neighbour_advertisement(MAC, VIP6), ADVERTISEMENT),
        (packets.neighbour_advertisement(MAC, VIP6, router=True), ADVERTISEMENT_OF_ROUTER),
    ],
)
def test_a_frame_is_built_byte_by_byte(built: bytes, vector: bytes) -> None:
    assert built.hex(" ") == vector.hex(" ")


@pytest.mark.parametrize("padding", [b"", bytes(18)], ids=["bare", "padded"])
@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (PROBE, Question(VIP, None, MAC)),
        (REQUEST, Question(VIP, OWN, MAC)),
        (REPLY, Answer(VIP, MAC)),
        (GRATUITOUS_REQUEST, Claim(VIP, MAC)),
        (GRATUITOUS_REPLY, Claim(VIP, MAC)),
        (b"\xff" * 6 + REPLY[6:], Claim(VIP, MAC)),  # told to everybody: nobody in particular had asked
        (REPLY[:38] + bytes(4), Answer(VIP, MAC)),  # to a probe
        (SOLICITATION, Question(VIP6, OWN6, MAC)),
        (SOLICITATION_WITHOUT_ADDRESS, Question(VIP6, None, MAC)),
        (ADVERTISEMENT, Claim(VIP6, MAC)),
        (ADVERTISEMENT_OF_ROUTER, Claim(VIP6, MAC)),
        (SOLICITED_ADVERTISEMENT, Answer(VIP6, PEER)),
    ],
)
def test_a_frame_is_understood(frame: bytes, said: object, padding: bytes) -> None:
    assert parse_frame(frame + padding) == said


def changed(frame: bytes, at: int, value: str) -> bytes:
    new = bytes.fromhex(value)
    return frame[:at] + new + frame[at + len(new) :]


@pytest.mark.parametrize(
    ("frame", "at", "value"),
    [
        (REPLY, 12, "0800"),  # IPv4, not ARP
        (REPLY, 14, "0006"),  # not of Ethernet
        (REPLY, 16, "86dd"),  # not for IPv4
        (REPLY, 18, "08"),  # long hardware addresses
        (REPLY, 20, "0003"),  # reverse ARP
        (REPLY, 22, "010000000001"),  # nobody's MAC: a group
        (REPLY, 22, "000000000000"),
        (REPLY, 28, "00000000"),  # of no address
        (SOLICITED_ADVERTISEMENT, 14, "50"),  # version
        (SOLICITED_ADVERTISEMENT, 18, "0021"),  # longer than the frame
        (SOLICITED_ADVERTISEMENT, 18, "0010"),  # shorter than an advertisement
        (SOLICITED_ADVERTISEMENT, 20, "11"),  # UDP
        (SOLICITED_ADVERTISEMENT, 21, "fe"),  # has crossed a router
        (SOLICITED_ADVERTISEMENT, 56, "0000"),  # checksum
        (SOLICITED_ADVERTISEMENT, 62, "ff02"),  # checksum, and a group as target
    ],
)
def test_what_is_not_as_it_should_be_says_nothing(frame: bytes, at: int, value: str) -> None:
    assert parse_frame(frame) is not None
    assert parse_frame(changed(frame, at, value)) is None


def discovery(source: IPv6Address, to: IPv6Address, body: str) -> bytes:
    """With the right checksum, so that nothing else than what a case is about is wrong."""
    data = octets(body)
    pseudo = source.packed + to.packed + struct.pack("!II", len(data), 58)
    checksum = packets.internet_checksum(pseudo + data)
    data = data[:2] + struct.pack("!H", checksum) + data[4:]
    return octets("333300000001 020000000002 86dd 60000000") + (
        struct.pack("!HBB", len(data), 58, 255) + source.packed + to.packed + data
    )


TARGET = "20010db800000000 0000000000000100"


@pytest.mark.parametrize(
    ("to", "body", "said"),
    [
        ("fe80::1", f"88 00 0000 40000000 {TARGET}", Answer(VIP6, PEER)),  # no option: the frame's own MAC
        ("fe80::1", f"88 00 0000 40000000 {TARGET} 0e01000000000000 0201020000000003", Answer(VIP6, PEER[:-1] + "3")),
        ("fe80::1", f"88 00 0000 00000000 {TARGET} 0201020000000003", Claim(VIP6, PEER[:-1] + "3")),
        ("ff02::1", f"88 00 0000 40000000 {TARGET}", None),  # RFC 4861 7.1.2: not solicited if to all
        ("ff02::1", f"88 01 0000 20000000 {TARGET}", None),  # a code
        ("ff02::1", f"88 00 0000 20000000 {TARGET} 02000200", None),  # an option without length
        ("ff02::1", f"88 00 0000 20000000 {TARGET} 0202020000000003", None),  # one longer than the packet
        ("ff02::1", f"88 00 0000 20000000 {TARGET} 0201030000000003", None),  # a group's MAC
        ("ff02::1", "88 00 0000 20000000 ff02000000000000 0000000000000100", None),  # a group's address
        ("ff02::1", f"86 00 0000 20000000 {TARGET}", None),  # a router's advertisement
    ],
)
def test_options_and_flags_of_an_advertisement(to: str, body: str, said: object) -> None:
    assert parse_frame(discovery(VIP6, IPv6Address(to), body)) == said


frames = st.sampled_from([PROBE, REPLY, GRATUITOUS_REPLY, SOLICITATION, ADVERTISEMENT, SOLICITED_ADVERTISEMENT])


@given(st.binary(max_size=120))
def test_any_bytes_are_parsed(frame: bytes) -> None:
    parse_frame(frame)
    parse_frame(PROBE[:14] + frame)
    parse_frame(SOLICITATION[:14] + frame)
    parse_frame(SOLICITATION[:22] + frame)


@given(frames, st.integers(0, 90), st.binary(min_size=1, max_size=8), st.integers(0, 90))
def test_any_damage_is_parsed(frame: bytes, at: int, damage: bytes, length: int) -> None:
    parse_frame((frame[:at] + damage + frame[at + len(damage) :])[:length])


macs = st.binary(min_size=6, max_size=6).filter(lambda m: not m[0] & 1 and any(m)).map(packets.mac_text)
ipv4 = st.ip_addresses(v=4).filter(lambda a: not a.is_unspecified)
ipv6 = st.ip_addresses(v=6).filter(lambda a: not a.is_unspecified and not a.is_multicast)


@given(macs, ipv4, ipv4.filter(lambda a: a != VIP))
def test_what_one_director_says_the_other_hears(mac: str, address: IPv4Address, asker: IPv4Address) -> None:
    assert parse_frame(packets.gratuitous_request(mac, address)) == Claim(address, mac)
    assert parse_frame(packets.gratuitous_reply(mac, address)) == Claim(address, mac)
    assert parse_frame(packets.arp_probe(mac, address)) == Question(address, None, mac)
    if asker != address:
        assert parse_frame(arp_reply(mac, address, PEER, asker)) == Answer(address, mac)
        assert parse_frame(packets.arp_request(mac, asker, address)) == Question(address, asker, mac)


@given(macs, ipv6, ipv6, st.booleans())
def test_what_one_director_says_the_other_hears_in_ipv6(
    mac: str, address: IPv6Address, asker: IPv6Address, router: bool
) -> None:
    assert parse_frame(packets.neighbour_advertisement(mac, address, router)) == Claim(address, mac)
    assert parse_frame(packets.neighbour_solicitation(mac, asker, address)) == Question(address, asker, mac)


def test_a_mac_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a MAC address"):
        packets.mac_bytes("02:00:00:00:00")


def test_an_echo_request_of_ipv4_has_its_checksum() -> None:
    assert packets.echo_request(VIP, 0x1234, 7) == octets("08 00 e5c4 1234 0007")
    assert packets.echo_request(VIP6, 0x1234, 7) == octets("80 00 0000 1234 0007")  # there the kernel makes it


# --- the filters, in a model of the kernel's machine -----------------------------------------------------------------


def passes(program: Sequence[Instruction], data: bytes) -> bool:
    """Classic BPF, as far as we use it. A load past the end drops the packet, as in the kernel."""
    assert all(0 <= jt < 256 and 0 <= jf < 256 for _, jt, jf, _ in program)
    accumulator = at = 0
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        if code == 0x06:
            return operand > 0
        if code == 0x15:
            at += if_true if accumulator == operand else if_false
            continue
        size = {0x20: 4, 0x28: 2, 0x30: 1}[code]
        if operand + size > len(data):
            return False
        accumulator = int.from_bytes(data[operand : operand + size], "big")


@given(st.sets(ipv4, max_size=6), ipv4, macs)
def test_the_arp_filter_lets_statements_about_our_addresses_through(
    ours: set[IPv4Address], other: IPv4Address, mac: str
) -> None:
    program = packets.arp_filter(ours)
    for address in {*ours, other}:
        assert passes(program, packets.gratuitous_request(mac, address)) is (address in ours)
        assert passes(program, arp_reply(mac, address, PEER, OWN)) is (address in ours)
        assert not passes(program, packets.arp_probe(mac, address))
        assert not passes(program, packets.arp_request(mac, OWN, address)) or OWN in ours


@given(st.sets(ipv6, max_size=6), ipv6, macs)
def test_the_advertisement_filter_lets_statements_about_our_addresses_through(
    ours: set[IPv6Address], other: IPv6Address, mac: str
) -> None:
    program = packets.advertisement_filter(ours)
    # Neighbours that differ in one word only.
    near = {IPv6Address(int(a) ^ (1 << bit)) for a in ours for bit in (0, 40, 70, 100)}
    for address in {*ours, other, *near}:
        assert passes(program, packets.neighbour_advertisement(mac, address)) is (address in ours)
        assert not passes(program, packets.neighbour_solicitation(mac, OWN6, address))
    udp = changed(packets.neighbour_advertisement(mac, other), 20, "11")
    assert not passes(packets.advertisement_filter({other}), udp)


def test_more_addresses_than_a_filter_holds_open_it_for_all_of_their_kind() -> None:
    many4 = [IPv4Address(n) for n in range(1, 2050)]
    many6 = [IPv6Address(n) for n in range(1, 500)]
    assert passes(packets.arp_filter(many4), GRATUITOUS_REPLY)
    program = packets.advertisement_filter(many6)
    assert passes(program, ADVERTISEMENT)
    assert not passes(program, SOLICITATION)
    for size in (1, 400, 2047, 2048):
        assert len(packets.arp_filter(many4[:size])) <= packets.MAX_INSTRUCTIONS
    assert not passes(packets.arp_filter(many4[:2047]), GRATUITOUS_REPLY)


@pytest.mark.parametrize(("address", "kind"), [(VIP, "00"), (VIP6, "81")])
def test_the_echo_filter_lets_our_own_answers_through(address: Address, kind: str) -> None:
    head = b"" if address.version == 6 else bytes(20)
    program = packets.echo_filter(0x1234, address.version == 6)
    answer = head + octets(f"{kind} 00 0000 1234 0007")
    assert passes(program, answer)
    assert not passes(program, changed(answer, len(head), "08"))
    assert not passes(program, changed(answer, len(head) + 4, "1235"))
    assert not passes(program, head)


def test_a_filter_is_packed_as_the_kernel_reads_it() -> None:
    assert packets.pack_filter([(0x15, 0, 1, 0x0A000064)]) == struct.pack("=HBBI", 0x15, 0, 1, 0x0A000064)
