"""ipvsadm's rules: round trips, what ipvsadm itself prints, and one line for each mistake."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.ipvs.rules import RulesError
from feedback.ipvs.text import format_edit, format_table, parse, parse_line
from feedback.model import (
    AddDestination,
    AddService,
    Destination,
    DestinationEntry,
    DestinationKey,
    Edit,
    Forward,
    RemoveDestination,
    RemoveService,
    Service,
    ServiceEntry,
    ServiceFlags,
    ServiceKey,
    SetDestination,
    SetService,
    Snapshot,
    TunnelType,
)
from tests.ipvs.examples import destination_keys, ports, service_keys, services, u32

WEB = ServiceKey.parse("tcp:10.0.0.1:80")
ANY6 = ServiceKey.parse("tcp:[2001:db8::1]:0")


def plain(service: Service) -> Service:
    """What ipvsadm can say of a service: a timeout only with persistence."""
    if service.persistent:
        return service
    return Service(service.key, service.scheduler, service.flags, 0, service.netmask, service.pe_name)


@st.composite
def sayable(draw: st.DrawFn) -> Destination:
    forward = draw(st.sampled_from([Forward.ROUTE, Forward.TUNNEL, Forward.MASQUERADE]))
    limits = {"weight": draw(u32), "upper": draw(u32), "lower": draw(u32)}
    kind = draw(st.sampled_from(TunnelType)) if forward is Forward.TUNNEL else TunnelType.IPIP
    if kind is TunnelType.IPIP:
        return Destination(draw(destination_keys), forward=forward, **limits)
    port, flags = draw(ports), draw(st.integers(0, 3))
    return Destination(
        draw(destination_keys), forward=forward, tunnel_type=kind, tunnel_port=port, tunnel_flags=flags, **limits
    )


sayable_services = services(flags=st.integers(0, 0x3F).map(lambda flags: flags & ~ServiceFlags.HASHED)).map(plain)
edits: st.SearchStrategy[Edit] = st.one_of(
    st.builds(AddService, sayable_services),
    st.builds(SetService, sayable_services),
    st.builds(RemoveService, service_keys),
    st.builds(AddDestination, service_keys, sayable()),
    st.builds(SetDestination, service_keys, sayable()),
    st.builds(RemoveDestination, service_keys, destination_keys),
)


@given(edits)
def test_what_is_written_is_read(edit: Edit) -> None:
    assert parse_line(format_edit(edit)) == edit


@given(st.text(max_size=60))
def test_any_text_is_rules_or_an_error_of_its_own(text: str) -> None:
    try:
        parse(text)
    except RulesError as error:
        assert str(error).startswith("line ")


# Printed by ipvsadm 1.31 -Sn for rules given to it on a 6.1 kernel.
PRINTED = """\
-A -t 10.0.0.1:80 -s mh -p 300 -M 255.255.0.255 -b mh-fallback,mh-port
-a -t 10.0.0.1:80 -r 10.1.0.1:80 -i -w 3 --tun-type gue --tun-port 6080 --tun-remcsum
-a -t 10.0.0.1:80 -r 10.1.0.2:80 -i -w 3 --tun-type gre --tun-csum
-a -t 10.0.0.1:80 -r 10.1.0.3:8080 -m -w 1
-a -t 10.0.0.1:80 -r [2001:db8::9]:80 -i -w 1 --tun-type ipip
-a -t 10.0.0.1:80 -r 127.0.0.1:80 -g -w 1
-A -u 10.0.0.1:5060 -s rr -p 20 --pe sip -o
-A --sctp-service 10.0.0.1:80 -s wlc
-A -t [2001:db8::1]:80 -s wlc
-A -f 7 -6 -s rr -p 20 -M 64
"""


def test_what_ipvsadm_prints_is_read() -> None:
    read = parse(PRINTED)
    flags = ServiceFlags.PERSISTENT | ServiceFlags.SCHED1 | ServiceFlags.SCHED2
    assert read[0] == AddService(Service(WEB, "mh", flags, 300, IPv4Address("255.255.0.255")))
    assert read[1] == AddDestination(
        WEB,
        Destination(DestinationKey.parse("10.1.0.1:80"), 3, Forward.TUNNEL, 0, 0, TunnelType.GUE, 6080, 2),
    )
    assert read[4] == AddDestination(WEB, Destination(DestinationKey.parse("[2001:db8::9]:80"), 1, Forward.TUNNEL))
    assert [format_edit(edit) for edit in read] == [
        line.removesuffix(" --tun-type ipip") for line in PRINTED.splitlines()
    ]


def test_a_table_is_written_with_its_thresholds_and_read_back_in_the_kernels_order() -> None:
    mail = ServiceKey.parse("tcp:10.0.0.1:25")
    first, second = (Destination(DestinationKey.parse(f"10.1.0.{n}:25"), n, Forward.ROUTE, 9, 5) for n in (1, 2))
    in_kernel = (DestinationEntry(second), DestinationEntry(first))  # the newest is at the head
    table = Snapshot((ServiceEntry(Service(WEB)), ServiceEntry(Service(mail, "wlc"), in_kernel)))
    text = format_table(table)
    assert text == (
        "-A -t 10.0.0.1:25 -s wlc\n"
        "-a -t 10.0.0.1:25 -r 10.1.0.1:25 -g -w 1 -x 9 -y 5\n"
        "-a -t 10.0.0.1:25 -r 10.1.0.2:25 -g -w 2 -x 9 -y 5\n"
        "-A -t 10.0.0.1:80 -s sed\n"
    )
    assert parse("# saved\n\n" + text)[1:3] == (AddDestination(mail, first), AddDestination(mail, second))


@pytest.mark.parametrize(
    ("line", "edit"),
    [
        ("ipvsadm -A -t 10.0.0.1:80", AddService(Service(WEB, "wlc"))),
        ("--add-service --tcp-service=10.0.0.1:80 --scheduler sed", AddService(Service(WEB, "sed"))),
        ("-A -t 10.0.0.1:80 -s rr -p", AddService(Service(WEB, "rr", ServiceFlags.PERSISTENT, 360))),
        ("-E -t 10.0.0.1:80 -p -s rr", SetService(Service(WEB, "rr", ServiceFlags.PERSISTENT, 360))),
        ("-D -f 7", RemoveService(ServiceKey.marked(7))),
        ("-a -t 10.0.0.1:80 -r 10.1.0.1", AddDestination(WEB, Destination(DestinationKey.parse("10.1.0.1:80")))),
        ("-d -t 10.0.0.1:80 -r 10.1.0.1:81 # gone", RemoveDestination(WEB, DestinationKey.parse("10.1.0.1:81"))),
        (
            "-A -t [2001:db8::1] -s rr -p 9 -M 128",
            AddService(Service(ServiceKey.parse("tcp:[2001:db8::1]:0"), "rr", ServiceFlags.PERSISTENT, 9)),
        ),
    ],
)
def test_what_people_write_is_read(line: str, edit: Edit) -> None:
    assert parse_line(line) == edit


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-C", "restored by difference"),
        ("-L -n", "'-L' is not a known option"),
        ("-A -s rr", "expected one service"),
        ("-A -t 10.0.0.1:80 -u 10.0.0.1:80", "expected one service"),
        ("-t 10.0.0.1:80", "expected one of -A"),
        ("-A -D -t 10.0.0.1:80", "expected one of -A"),
        ("-A -t web:http", "web:http"),
        ("-A -t 10.0.0.1:99999", "0..65535"),
        ("-A -f 0", "firewall mark 0"),
        ("-A -f x", "-f 'x': expected a number"),
        ("-A -t 10.0.0.1:80 -s", "-s needs a value"),
        ("-A -t 10.0.0.1:80 -s rr -s rr", "-s is listed twice"),
        ("-A -t 10.0.0.1:80 -M 255.0.0", "255.0.0"),
        ("-A -f 1 -6 -M 129", "1..128"),
        ("-A -t 10.0.0.1:80 -b sticky", "-b sticky: expected flag-1"),
        ("-a -t 10.0.0.1:80", "needs -r"),
        ("-a -t 10.0.0.1:80 -r 10.1.0.1:80 -g -m", "exclude one another"),
        ("-a -t 10.0.0.1:80 -r 10.1.0.1:80 -w -5", "expected a number"),
        ("-a -t 10.0.0.1:80 -r 10.1.0.1:80 -i --tun-type vxlan", "expected ipip, gue, gre"),
        ('-A -t "10.0.0.1:80', "No closing quotation"),
        ("-A=1 -t 10.0.0.1:80", "not a known option"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_was_expected(line: str, said: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse("-A -t 10.0.0.1:80\n" + line)
    assert str(caught.value).startswith("line 2: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
