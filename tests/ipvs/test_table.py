"""How full the kernel's table is: from the files of each generation of kernels, and from the real one."""

from __future__ import annotations

import pytest

from feedback.ipvs import sysctl
from feedback.ipvs.table import TableSize, parse, read_size
from feedback.model import AddDestination, AddService, Destination, DestinationKey, Service
from tests.ipvs.conftest import WEB, RealDirector

# A kernel 7.3's, its first lines.
STATUS = """Conns:\t20000
Conn buckets:\t524288 (19 bits, lfactor -4)
Conn buckets empty:\t504669 (96%)
Conn buckets len-1:\t19256 (98%)
Services:\t1
Service buckets:\t16 (4 bits, lfactor -3)
"""


def test_a_kernel_that_tells_is_believed() -> None:
    assert parse(STATUS, "20\n") == TableSize(20000, 1 << 20, grows=True)


def test_an_older_kernel_tells_its_size_only() -> None:
    assert parse("", "12\n") == TableSize(None, 4096)


@pytest.mark.parametrize("bits", ["", "N/A", "-3"])
def test_what_cannot_be_read_is_unknown(bits: str) -> None:
    assert parse("nonsense", bits) == TableSize(None, None, grows=True)


@pytest.mark.lab
def test_the_real_kernel_counts_what_it_holds(real: RealDirector) -> None:
    before = read_size(real.netns)
    assert before.most_buckets is not None
    assert before.most_buckets.bit_count() == 1
    service, destination = Service(WEB, "wlc"), Destination(DestinationKey.parse("10.1.0.1:80"))
    assert real.kernel.apply([AddService(service), AddDestination(WEB, destination)]) == ()
    for _ in range(3):
        assert real.open()
    held = read_size(real.netns).connections
    assert held == (3 if before.grows else None)


@pytest.mark.lab
def test_beyond_conn_max_the_real_kernel_drops_new_clients_in_silence(real: RealDirector) -> None:
    if "conn_max" not in sysctl.read_all(real.netns):
        pytest.skip("this kernel has no conn_max: it came with 7.2")
    service, destination = Service(WEB, "wlc"), Destination(DestinationKey.parse("10.1.0.1:80"))
    assert real.kernel.apply([AddService(service), AddDestination(WEB, destination)]) == ()
    sysctl.write("conn_max", 2, real.netns)
    assert real.open()
    assert real.open()
    with pytest.raises(TimeoutError):
        real.open()
    sysctl.write("conn_max", 3, real.netns)
    assert real.open()
