"""The cut, without a network: which flow is told when, the bytes of it, and the course of a destination."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.config import MasterConfig, OnFailure, parse
from feedback.master.controller import Controller
from feedback.master.cuts import segments
from feedback.master.cuts.course import LIST_SECONDS, Cut, Do, Told
from feedback.master.cuts.listing import Listing
from feedback.master.cuts.plan import BURST, LAST_SECONDS, RATE, ROUNDS_SECONDS, Plan, Summary
from feedback.master.cuts.segments import Flow, Heard, Way, checksum
from feedback.model import DestinationKey, Forward, RemoveDestination, ServiceKey, TunnelType
from tests.master.builders import VIRTUAL, rip
from tests.master.test_watched import BAD, GOOD, Site


def packed(text: str) -> bytes:
    return ip_address(text).packed


def flow(number: int, six: bool = False) -> Flow:
    if six:
        return Flow(packed(f"fd00::1:{number % 60000:x}"), 1024 + number % 60000, packed("fd00::100"), 80)
    return Flow(packed("10.0.1.1"), 1024 + number, packed("10.0.0.100"), 80)


# --- the plan --------------------------------------------------------------------------------------------------------


def answer(of: Flow, flags: int = segments.ACK) -> Heard:
    return Heard(of, 7, 9, flags)


def test_all_are_poked_at_once_in_their_order_and_who_answers_is_left_alone() -> None:
    flows = [flow(i) for i in range(5)]
    plan = Plan(flows, 10.0)
    assert plan.due(10.0) == flows
    assert plan.heard(answer(flows[1]), 10.01) == flows[1] and plan.heard(answer(flows[1]), 10.02) is None
    assert plan.heard(answer(flows[4], segments.RST), 10.02) == flows[4]
    assert plan.due(10.5) == []
    assert plan.due(10.6) == [flows[0], flows[2], flows[3]]
    assert plan.due(11.7) == [] and plan.due(11.8) == [flows[0], flows[2], flows[3]]
    assert not plan.ended(12.7) and plan.ended(12.8)
    assert plan.summary() == Summary(5, 1, 1, 3, pytest.approx(0.02))


def test_a_stranger_is_not_heard() -> None:
    plan = Plan([flow(1)], 0.0)
    plan.due(0.0)
    assert plan.heard(answer(flow(2)), 0.1) is None and not plan.ended(0.1)


def test_it_ends_with_the_last_answer() -> None:
    plan = Plan([flow(1)], 0.0)
    plan.due(0.0)
    plan.heard(answer(flow(1)), 0.007)
    assert plan.ended(0.007) and plan.next_timer() == float("inf")


def test_a_plan_without_flows_is_over() -> None:
    assert Plan([], 0.0).ended(0.0)


def played(plan: Plan, began: float, answers: dict[Flow, int], step: float) -> dict[float, list[Flow]]:
    """Until it ends; each flow answers at its given poke. Moments with what was poked then."""
    now, pokes, times = began, {}, dict.fromkeys(plan.flows, 0)
    while not plan.ended(now):
        found = plan.due(now)
        if found:
            pokes[now] = found
        for each in found:
            times[each] += 1
            if times[each] == answers.get(each):
                plan.heard(answer(each), now)
        assert now < began + 60, "it does not end"
        now = max(now + step, plan.next_timer())
    return pokes


@given(
    st.integers(0, 3000),
    st.dictionaries(st.integers(0, 3000), st.integers(1, 4), max_size=200),
    st.sampled_from((0.001, 0.02, 0.7)),
)
def test_bounded_in_number_and_rate_and_it_ends(count: int, answers: dict[int, int], step: float) -> None:
    flows = [flow(i) for i in range(count)]
    plan = Plan(flows, 5.0)
    pokes = played(plan, 5.0, {flow(i): n for i, n in answers.items()}, step)
    times: dict[Flow, int] = {}
    sent = 0
    for at, found in pokes.items():
        sent += len(found)
        assert sent <= BURST + RATE * (at - 5.0) + 1e-6
        for each in found:
            times[each] = times.get(each, 0) + 1
    for each in flows:
        wanted = min(len(ROUNDS_SECONDS), answers.get(each.client_port - 1024, 9))
        assert times[each] == wanted
    made = plan.summary()
    assert made.told == sum(1 for i, n in answers.items() if i < count and n <= len(ROUNDS_SECONDS))
    assert made.told + made.gone + made.silent == count == made.flows
    first = [each for found in pokes.values() for each in found][:count]
    assert first == flows  # the freshest first


def test_a_hundred_thousand_are_poked_within_two_seconds() -> None:
    plan = Plan(
        [Flow(packed(f"10.{i >> 14}.1.1"), 1024 + (i & 16383), packed("10.0.0.100"), 80) for i in range(100_000)], 0.0
    )
    now, poked = 0.0, 0
    while poked < 100_000:
        now = max(now, plan.next_timer())
        poked += len(plan.due(now))
    assert now < 2.0 and LAST_SECONDS > 0


# --- the bytes -------------------------------------------------------------------------------------------------------


def valid(packet: bytes) -> Heard:
    """As a receiver reads it, with every checksum that it has."""
    if packet[0] >> 4 == 4:
        assert checksum(packet[:20]) == 0 and struct.unpack("!H", packet[2:4])[0] == len(packet)
        assert checksum(packet[12:20] + struct.pack("!HH", 6, len(packet) - 20) + packet[20:]) == 0
        heard = segments.parse_ipv4(packet)
    else:
        source, to, segment = packet[8:24], packet[24:40], packet[40:]
        assert packet[6] == 6 and struct.unpack("!H", packet[4:6])[0] == len(segment)
        assert checksum(source + to + struct.pack("!II", len(segment), 6) + segment) == 0
        heard = segments.parse_ipv6(segment, source, to)
    assert heard is not None
    return heard


@pytest.mark.parametrize("six", [False, True])
def test_a_poke_is_an_ack_of_the_virtual_address(six: bool) -> None:
    of = flow(7, six)
    heard = valid(segments.poke(of, 0xFFFFFFFF, 0))
    assert heard == Heard(Flow(of.virtual, 80, of.client, of.client_port), 0xFFFFFFFF, 0, segments.ACK)


@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize(("forward", "own"), [(Forward.ROUTE, False), (Forward.MASQUERADE, True)])
def test_a_reset_is_what_the_server_expects_of_its_client(forward: Forward, own: bool, six: bool) -> None:
    of, server = flow(7, six), packed("fd00::11" if six else "10.0.0.11")
    heard = valid(segments.reset(of, 1234, Way(forward, server, 8080)))
    expected = (server, 8080) if own else (of.virtual, 80)
    assert heard == Heard(Flow(of.client, of.client_port, *expected), 1234, 0, segments.RST) and heard.reset


@pytest.mark.parametrize(
    ("six", "outer", "kind", "protocol", "skipped"),
    [
        (False, "10.0.0.11", TunnelType.IPIP, 4, 0),
        (True, "fd00::11", TunnelType.IPIP, 41, 0),
        (True, "10.0.0.11", TunnelType.IPIP, 41, 0),
        (False, "10.0.0.11", TunnelType.GRE, 47, 4),
        (False, "10.0.0.11", TunnelType.GUE, 17, 12),
        (True, "fd00::11", TunnelType.GUE, 17, 12),
    ],
)
def test_a_tunnel_carries_it(six: bool, outer: str, kind: TunnelType, protocol: int, skipped: int) -> None:
    of, server = flow(7, six), packed(outer)
    source = packed("fd00::1" if len(server) == 16 else "10.0.0.1")
    packet = segments.reset(of, 9, Way(Forward.TUNNEL, server, 80, kind, 6080, source))
    header = 20 if len(server) == 4 else 40
    assert packet[9 if header == 20 else 6] == protocol
    if header == 20:
        assert checksum(packet[:20]) == 0 and packet[12:20] == source + server
    elif protocol == 17:
        assert checksum(source + server + struct.pack("!II", len(packet) - 40, 17) + packet[40:]) == 0
    assert valid(packet[header + skipped :]).flow == Flow(of.client, of.client_port, of.virtual, 80)


@given(st.binary(max_size=80), st.sampled_from((4, 16)))
def test_no_bytes_make_a_parser_raise(data: bytes, length: int) -> None:
    segments.parse_ipv4(data)
    segments.parse_ipv6(data, bytes(length), bytes(length))


def test_a_filter_fits_or_lets_all_through() -> None:
    assert len(segments.port_filter(range(1, 2001), ipv6=False)) <= 4096
    assert len(segments.port_filter(range(1, 3000), ipv6=True)) == 1
    assert len(segments.pack_filter(segments.port_filter([80], ipv6=False))) == 8 * 5


# --- the kernel's table ----------------------------------------------------------------------------------------------

TABLE = b"""\
Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 0A000101 C350 0A000064 0050 0A00000B 0050 ESTABLISHED     400
TCP 0A000101 C351 0A000064 0050 0A00000B 0050 FIN_WAIT        119
TCP 0A000101 C352 0A000064 0050 0A00000B 0050 ESTABLISHED     899
TCP 0A000101 C353 0A000064 0050 0A00000C 0050 ESTABLISHED     899
UDP 0A000101 C354 0A000064 0050 0A00000B 0050 UDP             299
TCP 0A000101 0000 0A000064 0050 0A00000B 0050 ESTABLISHED     250
TCP 0A000101 C355 0A000064 0050 0A00000B 0050 CLOSE             8
TCP 0A000101 ZZZZ 0A000064 0050 0A00000B 0050 ESTABLISHED     250
TCP fd00:0000:0000:0000:0000:0000:0001:0007 C350 fd00:0000:0000:0000:0000:0000:0000:0100 0050 """
TABLE += b"fd00:0000:0000:0000:0000:0000:0000:000b 0050 ESTABLISHED     899\nshort line\n"


def test_the_flows_of_a_destination_are_found_the_freshest_first() -> None:
    here = VIRTUAL, rip(1)
    six = ServiceKey.parse("tcp:[fd00::100]:80"), DestinationKey.parse("[fd00::b]:80")
    listing = Listing([here, six])
    for line in TABLE.splitlines():
        listing.take(line)
    assert [f.client_port for f in listing.flows(here)] == [0xC352, 0xC350, 0xC351]
    assert listing.flows(six) == [Flow(packed("fd00::1:7"), 0xC350, packed("fd00::100"), 80)]


# --- the course ------------------------------------------------------------------------------------------------------

ASKS = 'on_failure = "cut"\n[service.check]\nrise = 1\nfall = 2\ninterval_seconds = 1\n'


class CutSite(Site):
    """Also tells a controller what a shell would, `late` turns after it was asked."""

    def __init__(self, late: int = 0) -> None:
        super().__init__(0)
        text = f'[[service]]\nvirtual = "{VIRTUAL}"\n' + ASKS
        text += "".join(f'[[service.destination]]\naddress = "{rip(i).address}"\n' for i in range(1, 4))
        self.controller, self.servers = Controller(parse(text, MasterConfig)), 3
        self.answers = dict.fromkeys(range(1, 4), GOOD)
        self.late, self.asked = late, []
        self.course: list[tuple[float, str]] = []

    def turn(self) -> None:
        self.now = round(self.now + 0.1, 1)
        for probe in self.controller.probes(self.now):
            i = next(i for i in range(1, self.servers + 1) if rip(i).address == probe.target.address)
            self.controller.receive_probe(probe, self.answers.get(i), self.now)
        for at, cut in [a for a in self.asked if a[0] <= self.now]:
            summary = Summary(2, 2, 0, 0, 0.01) if cut.do is Do.CUT else None
            self.controller.receive_cut(Told(*cut.place, 2, summary), self.now)
            self.asked.remove((at, cut))
        self.controller.receive_kernel(self.table.snapshot(), self.now)
        decision = self.controller.decide(self.now)
        self.table.apply(decision.edits)
        for edit in decision.edits:
            if isinstance(edit, RemoveDestination):
                self.course.append((self.now, "removed"))
        for cut in decision.cuts:
            self.course.append((self.now, str(cut.do)))
            self.asked.append((round(self.now + 0.1 * (1 + self.late), 1), cut))

    def go(self, seconds: float) -> list[str]:
        before = len(self.course)
        for _ in range(round(seconds * 10)):
            self.turn()
        return [what for _, what in self.course[before:]]


def test_flows_are_listed_at_the_first_suspicion_and_cut_in_the_turn_of_the_removal() -> None:
    site = CutSite()
    assert site.go(4) == []
    site.answers[2] = BAD
    assert site.go(4) == ["list", "removed", "cut"]
    at = {what: when for when, what in site.course}
    assert at["removed"] == at["cut"] > at["list"]
    site.answers[2] = GOOD
    assert site.go(4) == ["forget"]


def test_a_false_alarm_forgets_its_list() -> None:
    site = CutSite()
    site.go(4)
    site.answers[2] = BAD
    while "list" not in [what for _, what in site.course]:
        site.turn()
    site.answers[2] = GOOD
    assert site.go(4) == ["forget"] and len(site.table.weights()) == 3


def test_a_list_that_takes_too_long_holds_up_nobody() -> None:
    site = CutSite(late=30)
    site.go(4)
    site.answers[2] = BAD
    site.go(1)
    began = site.now
    while "removed" not in [what for _, what in site.course]:
        site.turn()
        assert site.now - began < 2 + LIST_SECONDS
    assert site.course[-1][1] == "cut"


def test_the_configuration_says_who_is_cut() -> None:
    site = CutSite()
    site.go(1)
    rows = site.controller._pipelines[VIRTUAL].rows
    assert all(row.on_failure is OnFailure.CUT for row in rows)
    assert Cut(Do.LIST, VIRTUAL, rows[0].base).place == (VIRTUAL, rip(1))


# --- of some clients -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("six", [False, True])
def test_each_end_is_reset_with_the_number_that_it_expects(six: bool) -> None:
    of = flow(7, six)
    heard = Heard(of, 0xFFFFFFF0, 99, segments.ACK, 32)
    assert valid(segments.reset_client(heard)) == Heard(
        Flow(of.virtual, 80, of.client, of.client_port), 99, 0, segments.RST
    )
    assert valid(segments.reset_through(heard)) == Heard(of, 16, 0, segments.RST)  # after its data, around the corner


@pytest.mark.parametrize("six", [False, True])
def test_a_packet_is_read_with_the_length_of_its_data(six: bool) -> None:
    of = flow(7, six)
    bare = segments.poke(of, 5, 6)
    length = len(bare) - (40 if six else 20) + 3
    with_data = bare[:4] + struct.pack("!H", length) + bare[6:] if six else bare[:2] + struct.pack("!H", 43) + bare[4:]
    heard = segments.parse_packet(with_data + b"abc" + bytes(6))  # and the padding of a short frame
    assert heard is not None and (heard.sequence, heard.length) == (5, 3)
    assert segments.parse_packet(bare) == Heard(Flow(of.virtual, 80, of.client, of.client_port), 5, 6, segments.ACK)


@given(st.binary(max_size=90))
def test_no_packet_makes_the_parser_raise(data: bytes) -> None:
    segments.parse_packet(data)


def run_filter(program: list[segments.Instruction], packet: bytes) -> bool:
    """What the kernel would do with it."""
    accumulator = index = at = 0
    while True:
        code, yes, no, operand = program[at]
        at += 1
        if code == 0x06:
            return bool(operand)
        sizes = {0x20: 4, 0x28: 2, 0x30: 1}
        if code in sizes:
            accumulator = int.from_bytes(packet[operand : operand + sizes[code]], "big")
        elif code == 0xB1:
            index = 4 * (packet[operand] & 0xF)
        elif code == 0x48:
            accumulator = int.from_bytes(packet[index + operand : index + operand + 2], "big")
        elif code == 0x54:
            accumulator &= operand
        elif code == 0x15:
            at += yes if accumulator == operand else no
        else:
            raise AssertionError(f"unknown instruction {code:#x}")


@pytest.mark.parametrize(
    ("client", "network", "passes"),
    [
        ("10.0.1.1", "10.0.1.0/24", True),
        ("10.0.1.1", "10.0.1.1", True),
        ("10.0.1.1", "0.0.0.0/0", True),
        ("10.0.2.1", "10.0.1.0/24", False),
        ("fd00::1:7", "fd00::/64", True),
        ("fd00::1:7", "fd00::1:0/112", True),
        ("fd00::2:7", "fd00::1:0/112", False),
    ],
)
@pytest.mark.parametrize("port", [80, 81])
def test_a_filter_lets_the_chosen_clients_through(client: str, network: str, passes: bool, port: int) -> None:
    virtual = "fd00::100" if ":" in client else "10.0.0.100"
    from_client = segments.poke(Flow(packed(virtual), port, packed(client), 5000), 1, 1)
    program = segments.client_filter({80, 443}, ip_network(network))
    assert run_filter(program, from_client) == (passes and port == 80)
    assert run_filter(segments.port_filter({80, 443}, ipv6=False), from_client) == (port == 80) or ":" in client
