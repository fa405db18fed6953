"""Between the directors: heartbeats, replication messages, the kernel's sync records, ARP and neighbour discovery,
keepalived's FIFO, rules text; and of a director itself, its firewall's rules."""

from __future__ import annotations

import hashlib
import struct

import msgpack

from feedback.doctor import rulesets
from feedback.ipvs import text
from feedback.ipvs.difference import of_edits
from feedback.ipvs.encoding import encode_edit
from feedback.ipvs.errors import Unencodable
from feedback.ipvs.rules import RulesError
from feedback.model import ServiceKey
from feedback.sync.addresses import packets
from feedback.sync.conntrack import adjustments as tracked
from feedback.sync.conntrack.adjustments import AdjustmentError
from feedback.sync.election import heartbeat
from feedback.sync.election.heartbeat import HeartbeatError
from feedback.sync.election.keepalived import Fifo
from feedback.sync.replication import messages, records
from feedback.sync.replication.ledger import PARTS, Ledger
from feedback.sync.replication.messages import MessageError
from feedback.sync.replication.mirror import Copy, MirrorError
from feedback.sync.replication.records import DatagramError
from tests.fuzz.mutation import MSGPACK_TOKENS, write_msgpack
from tests.fuzz.target import Target

KEY = bytes(32)
SERVICE = ServiceKey.parse("tcp:10.0.0.100:80")
HEADER, CHECK = 52, 16
OPTIONS = (b"\x01\x18" + bytes(24), b"\x41\x02\0\0", b"\x02\xff", b"\x03\x00", b"\x10\x24", b"\x20\x24", b"\x7f\x01\0")


def beat(data: bytes) -> None:
    found = heartbeat.decode(data, KEY)
    assert found.boot and 0 <= found.term <= heartbeat.TERM_MAX
    window = heartbeat.Window(boot=7, fresh_seconds=1.0, silence_seconds=1.0)
    assert window.receive(found, "a", 1.0) != heartbeat.Verdict.FRESH, "nothing was sent that it could echo"


def signed(data: bytes) -> bytes:
    """As somebody with the pair's secret would have sent it."""
    header, body = data[:HEADER], data[HEADER + CHECK :]
    return header + hashlib.blake2b(header + body, key=KEY, digest_size=CHECK).digest() + body


def message(data: bytes) -> None:
    found = messages.decode(data)
    assert messages.decode(messages.encode(found)) == found


def adjustments(data: bytes) -> None:
    found = tracked.decode(data)
    assert tracked.decode(tracked.encode(found.values())) == found


def firewall(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for rule in (*rulesets.of_iptables(text, 4), *rulesets.of_nftables(text)):
        rule.covers(SERVICE)


def datagram(data: bytes) -> None:
    ledger = Ledger(2.0)
    try:
        readdressed = records.readdressed(data, 5)
    except DatagramError:
        readdressed = b""
    if readdressed:
        records.joined([readdressed, readdressed], 5)
        ledger.note([readdressed], 1.0)
        kept = [body for index in range(PARTS) for body in ledger.part(index, 1.0)]
        assert sum(len(records.decode(d).records) for d in records.packed(kept, 5)) == len(ledger)
    found = records.decode(data).records
    again = [r for d in records.encode(found, 5, records.DATAGRAM_BYTES_MAX) for r in records.decode(d).records]
    assert again == list(found)


def sized(data: bytes) -> bytes:
    """A header that fits: version and length right, a count that may be."""
    data = data.ljust(8, b"\0")[:0xFFFF]
    return b"\0" + data[1:2] + struct.pack("!H", len(data)) + data[4:5] + b"\1\0\0" + data[8:]


def frame(data: bytes) -> None:
    found = packets.parse_frame(data)
    if isinstance(found, packets.Answer | packets.Claim):
        assert len(packets.mac_bytes(found.mac)) == 6


def summed(data: bytes) -> bytes:
    """With the checksum of ICMPv6 right."""
    if len(data) < 78 or data[12:14] != b"\x86\xdd":
        return data
    length = int.from_bytes(data[18:20], "big")
    body = data[54 : 54 + length]
    body = body[:2] + b"\0\0" + body[4:]
    total = packets.internet_checksum(data[22:54] + struct.pack("!II", len(body), 58) + body)
    return data[:56] + struct.pack("!H", total) + data[58:]


def fifo(data: bytes) -> None:
    whole, pieces = Fifo("VI_1"), Fifo("VI_1")
    found = whole.feed(data)
    again = [n for at in range(0, len(data), 512) for n in pieces.feed(data[at : at + 512])]
    assert again == found or len(max(data.split(b"\n"), key=len)) > 1024


def rules(data: bytes) -> None:
    edits = text.parse(data.decode())
    for edit in edits:
        try:
            encode_edit(edit)
        except Unencodable:
            continue
        assert text.parse_line(text.format_edit(edit)) is not None
    of_edits(edits)


def mirror(data: bytes) -> None:
    copy = Copy()
    table, _, changes = data.decode().partition("\n\n")
    copy.take_table(table)
    copy.take_changes(changes)


RULES = (b" -w 99999999999", b" -M 255.0.255.0", b"\n-C\n", b'"', b"\\", b" -p \xd9\xa3", b" -f 0",
         b" -w " + b"9" * 5000, b" -r [::1%a]:80", b"\0", b" --tun-type gue", b"\xc2\x85",
         b" -b flag-1,", b"#")  # fmt: skip
TARGETS = (
    Target(name="heartbeat", take=beat, refuses=(HeartbeatError,), tokens=MSGPACK_TOKENS, seal=signed, bytes_max=600),
    Target(name="sync-message", take=message, refuses=(MessageError,), tokens=MSGPACK_TOKENS, trees=msgpack.unpackb,
           write=write_msgpack),
    Target(name="adjustments", take=adjustments, refuses=(AdjustmentError,), tokens=MSGPACK_TOKENS,
           trees=msgpack.unpackb, write=write_msgpack),
    Target(name="firewall-rules", take=firewall, tokens=(b"-d", b"--ctstate", b"--dports 1:", b"set", b"{}", b"[[[[")),
    Target(name="sync-record", take=datagram, refuses=(DatagramError,), tokens=OPTIONS, seal=sized, bytes_max=66_000),
    Target(name="frame", take=frame, tokens=(b"\x01\x01", b"\x02\x00", b"\x86\xdd", b"\x08\x06"), seal=summed,
           bytes_max=1600),
    Target(name="keepalived-fifo", take=fifo, bytes_max=70_000,
           tokens=(b'INSTANCE "VI_1" MASTER 100\n', b'INSTANCE "VI_1" MASTER -9999999999\n', b"\0", b"x" * 2000, b'"')),
    Target(name="rules", take=rules, refuses=(RulesError, ValueError), tokens=RULES),
    Target(name="mirror", take=mirror, refuses=(MirrorError, UnicodeDecodeError), tokens=RULES),
)  # fmt: skip
