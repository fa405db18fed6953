"""How much the kernel's backup thread can be given, from what /proc/net/udp shows."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from feedback.sync.replication.pace import PATIENCE_SECONDS_MAX, Pacer, Queue, charge, parse_udp, patience_seconds

GROUP = IPv4Address("224.0.0.81")
# As a kernel prints it: sockets that send to the group, the master's capture port, ours of the same port, the backup's.
UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
   14: 0100007F:8DDA 510000E0:2291 01 00000000:00000000 00:00000000 00000000     0        0 149 2 00000000f41de1a7 7
  196: 510000E0:2290 00000000:0000 07 00000000:00000010 00:00000000 00000000     0        0 144 2 000000007b0afaff 8
  197: 510000E0:2291 00000000:0000 07 00000000:00000020 00:00000000 00000000     0        0 140 2 00000000bce51b1b 9
  197: 510000E0:2291 00000000:0000 07 00000000:0001A900 00:00000000 00000000     0        0 141 2 00000000bce51b1a 538
"""


def test_the_kernels_own_socket_is_found_among_ours() -> None:
    assert parse_udp(UDP, GROUP, 8849, ours=140) == Queue(0x1A900, 538)


def test_a_thread_that_does_not_run_has_no_queue() -> None:
    assert parse_udp(UDP, GROUP, 8850) is None
    assert parse_udp("", GROUP, 8849) is None


def test_a_machine_of_the_other_byte_order_prints_the_address_the_other_way() -> None:
    assert parse_udp(UDP.replace("510000E0", "E0000051"), GROUP, 8849, ours=140) == Queue(0x1A900, 538)


@given(st.integers(0, 10**6), st.integers(8, 9188))
def test_what_is_allowed_never_fills_the_buffer(queued: int, length: int) -> None:
    pacer = Pacer(capacity_bytes=425_984)
    allowed = pacer.allowance(Queue(queued, 0), length)
    assert allowed >= 0
    assert not allowed or queued + allowed * charge(length) <= 425_984


def test_an_empty_queue_takes_a_burst_and_a_full_one_nothing() -> None:
    pacer = Pacer(capacity_bytes=425_984)
    assert pacer.allowance(Queue(0, 0), 1472) > 50
    assert pacer.allowance(Queue(400_000, 0), 1472) == 0


def test_drops_are_counted_from_the_first_look_on() -> None:
    pacer = Pacer()
    assert [pacer.observe(Queue(0, drops)) for drops in (5, 5, 7, 7, 10)] == [0, 0, 2, 0, 3]
    assert pacer.lost == 5


def test_a_drop_makes_bursts_smaller_down_to_a_least_size() -> None:
    pacer = Pacer(capacity_bytes=425_984)
    before = pacer.allowance(Queue(0, 0), 1472)
    for drops in range(2):
        pacer.observe(Queue(0, drops))
    assert pacer.allowance(Queue(0, 0), 1472) in (before // 2, before // 2 + 1)
    for drops in range(2, 50):
        pacer.observe(Queue(0, drops))
    assert pacer.allowance(Queue(0, 0), 1472) >= 10


def test_a_count_that_fell_is_that_of_a_thread_started_anew() -> None:
    pacer = Pacer()
    assert [pacer.observe(Queue(0, drops)) for drops in (5, 0, 2)] == [0, 0, 2]


def test_a_datagram_is_charged_more_than_its_length() -> None:
    # Measured truesize on 6.1: 2304 bytes for 1472, 768 for a small one; never less than we reckon with.
    assert charge(1472) >= 2304
    assert charge(44) >= 768


def test_the_fuller_its_queue_the_longer_the_thread_is_left_alone() -> None:
    assert patience_seconds(Queue(0, 0)) == 0.0
    one, many = (patience_seconds(Queue(n * charge(65_000), 0)) for n in (1, 5))
    assert 0.001 < one < many < PATIENCE_SECONDS_MAX
    assert patience_seconds(Queue(8_000_000, 0)) == PATIENCE_SECONDS_MAX
    busy = 5 * 65_000 / 36 / 200_000  # seconds for its records, on a fast kernel
    assert many < busy / 2
