"""The kernel's own tracking table: entries are there as they were meant, stale ones replaced, shifts read back."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

from feedback.ipvs.errors import IpvsError
from feedback.ipvs.namespace import within
from feedback.sync.conntrack import table
from feedback.sync.conntrack.adjustments import Adjustment, Shift
from feedback.sync.conntrack.reader import Reader
from feedback.sync.conntrack.table import BATCH, Table, Written
from feedback.sync.replication import records
from feedback.sync.replication.records import Record

pytestmark = pytest.mark.lab(seconds=1)

_numbers = itertools.count(1)
VIP, VIP6 = bytes((10, 0, 0, 100)), bytes.fromhex("fd00" + 27 * "0" + "1")


def body(number: int, *, server: int = 1, six: bool = False, protocol: int = 6, state: int = 1) -> bytes:
    size = 16 if six else 4
    client, destination = number.to_bytes(size, "big"), server.to_bytes(size, "big")
    return records.body(
        Record(protocol, 0, state, client, 4000, VIP6 if six else VIP, 80, destination, 8080, 0, 700)
    )  # fmt: skip


def adjustment(number: int, received: Shift) -> Adjustment:
    return Adjustment(6, number.to_bytes(4, "big"), 4000, VIP, 80, None, received)


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"ct{os.getpid()}x{next(_numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def kernel(netns: str) -> Iterator[Table]:
    made = Table(netns)
    yield made
    made.close()


def shown(netns: str) -> list[Any]:
    def read() -> list[Any]:
        with NFCTSocket(nfgen_family=0) as sock:
            return list(sock.dump())

    return within(netns, read)


def adjustments() -> list[Adjustment]:
    reader = Reader()
    try:
        return reader.read_here()
    finally:
        reader.close()


def servers(netns: str) -> set[str]:
    names = ("CTA_IP_V4_SRC", "CTA_IP_V6_SRC")
    replies = [each.get_attr("CTA_TUPLE_REPLY").get_attr("CTA_TUPLE_IP") for each in shown(netns)]
    return {reply.get_attr(name) for reply in replies for name in names if reply.get_attr(name)}


def test_entries_of_every_kind_are_taken(kernel: Table, netns: str) -> None:
    kinds = itertools.product((False, True), ((6, 1), (6, 4), (6, 7), (17, 0)))
    bodies = [body(n + 10, six=six, protocol=p, state=s) for n, (six, (p, s)) in enumerate(kinds)]
    assert kernel.write(bodies, {}) == Written(8, 0, {})
    found = shown(netns)
    assert len(found) == 8 and all(each.get_attr("CTA_STATUS") & 0x0E == 0x0E for each in found)
    assert all(600 < each.get_attr("CTA_TIMEOUT") <= 700 for each in found)


def test_a_whole_batch_and_the_same_again(kernel: Table, netns: str) -> None:
    bodies = [body(n) for n in range(1, BATCH + 1)]
    assert kernel.write(bodies, {}) == Written(BATCH, 0, {})
    assert kernel.write(bodies, {}) == Written(BATCH, BATCH, {})
    assert len(shown(netns)) == BATCH


def test_an_entry_that_leads_to_another_server_is_replaced(kernel: Table, netns: str) -> None:
    kernel.write([body(1, server=0x0A010001), body(2, server=0x0A010001)], {})
    assert kernel.write([body(1, server=0x0A010002)], {}) == Written(1, 1, {})
    assert servers(netns) == {"10.1.0.1", "10.1.0.2"} and len(shown(netns)) == 2


def test_an_entry_that_began_at_the_server_is_replaced(kernel: Table, netns: str) -> None:
    """As a lenient firewall makes it of the server's next segment."""
    record = records.decode(records.packed([body(1)], 1)[0]).records[0]
    turned = Record(6, 0, 1, record.destination, 8080, record.client, 4000, record.virtual, 80, 0, 700)
    kernel.write([records.body(turned)], {})
    assert kernel.write([body(1)], {}) == Written(1, 1, {})
    (found,) = shown(netns)
    assert found.get_attr("CTA_TUPLE_ORIG").get_attr("CTA_TUPLE_IP").get_attr("CTA_IP_V4_DST") == "10.0.0.100"


def test_what_is_there_stays_where_that_is_asked_for(kernel: Table, netns: str) -> None:
    kernel.write([body(1, server=0x0A010001)], {})
    late = [body(1, server=0x0A010002), body(2, server=0x0A010003)]
    assert kernel.write(late, {}, replace=False) == Written(1, 0, {})
    assert servers(netns) == {"10.1.0.1", "10.1.0.3"}


def test_a_shift_is_in_the_entry_and_is_read_again(kernel: Table, netns: str) -> None:
    shift = Shift(4_000_000_000, 2, 2**32 - 3)
    wanted = adjustment(2, shift)
    kernel.write([body(1), body(2), body(3)], {wanted.key: wanted})
    assert within(netns, adjustments) == [wanted]
    kernel.write([body(2)], {})  # replaced by one without
    assert within(netns, adjustments) == []


def test_a_helper_is_in_the_entry_and_is_read_again(kernel: Table, netns: str) -> None:
    wanted = Adjustment(6, (2).to_bytes(4, "big"), 4000, VIP, 80, None, Shift(7, 0, 1), "ftp")
    plain = Adjustment(6, (3).to_bytes(4, "big"), 4000, VIP, 80, None, None, "ftp")
    kernel.write([body(1), body(2), body(3)], {each.key: each for each in (wanted, plain)})
    assert sorted(within(netns, adjustments), key=lambda each: each.key) == [wanted, plain]


def test_an_entry_whose_helper_is_not_loaded_is_there_without_it(kernel: Table, netns: str) -> None:
    wanted = Adjustment(6, (2).to_bytes(4, "big"), 4000, VIP, 80, None, Shift(7, 0, 1), "no-such-helper")
    assert kernel.write([body(1), body(2)], {wanted.key: wanted}) == Written(2, 0, {})
    assert within(netns, adjustments) == [msgspec.structs.replace(wanted, helper="")]


def test_the_setting_is_read_as_it_stands(netns: str) -> None:
    assert table.wanted(netns) is False
    within(netns, lambda: Path("/proc/sys/net/ipv4/vs/conntrack").write_text("1"))
    assert table.wanted(netns) is True


def test_who_may_not_write_is_told_what_it_needs(netns: str) -> None:
    script = (
        "from feedback.sync.conntrack.table import Table\nfrom feedback.ipvs.errors import IpvsError\n"
        "try:\n    Table()\nexcept IpvsError as error:\n    print(error)\n"
    )
    done = subprocess.run(  # root, who may read this checkout, and nothing more
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "CAP_NET_ADMIN" in done.stdout, done.stderr


def test_a_namespace_that_is_not_there_is_an_error() -> None:
    with pytest.raises(IpvsError):
        Table("ct-nowhere")
