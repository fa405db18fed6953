"""Each thing that can be wrong is found, at its level, with a command that mends it; and nothing where nothing is."""

from __future__ import annotations

from ipaddress import IPv4Interface
from typing import Any

import msgspec
import pytest

from feedback.doctor import Configuration, Facts, Finding, Interface, Level, examine, verdict
from feedback.ipvs.table import TableSize
from feedback.ipvs.text import parse_line
from feedback.model import (
    Destination,
    DestinationEntry,
    DestinationKey,
    Forward,
    Service,
    ServiceEntry,
    ServiceFlags,
    ServiceKey,
    SetService,
    Snapshot,
)

WEB = "tcp:10.0.0.100:80"
DNS = "udp:10.0.0.100:53"
GOOD_VS = {
    "conn_reuse_mode": 3,
    "expire_nodest_conn": 1,
    "expire_quiescent_template": 1,
    "run_estimation": 1,
    "est_cpulist": "0-3",
    "conn_max": 1 << 30,
}
DAY = 86400.0
NO_FLAGS = ServiceFlags(0)


def entry(
    *destinations: DestinationEntry,
    key: str = WEB,
    scheduler: str = "sed",
    flags: ServiceFlags = NO_FLAGS,
    timeout_seconds: int = 0,
) -> ServiceEntry:
    service = Service(ServiceKey.parse(key), scheduler, flags, timeout_seconds)
    return ServiceEntry(service, destinations or (server(1), server(2)))


def server(
    i: int, weight: int = 100, *, upper: int = 0, active: int = 0, inactive: int = 0, forward: Forward = Forward.ROUTE
) -> DestinationEntry:
    key = DestinationKey.parse(f"10.0.0.{10 + i}:80")
    return DestinationEntry(Destination(key, weight, forward, upper), active, inactive)


def destination(i: int = 1, state: str = "fresh", age: float | None = 0.1) -> dict[str, Any]:
    return {"address": f"10.0.0.{10 + i}:80", "state": state, "age_seconds": age}


EXPIRING = {"check": {"up": True, "text": "tls: connected", "warning": "the certificate expires on 2027-01-24"}}


SETTING = "net.ipv4.conf.eth0.accept_local"
UNASKED = {"check": {"up": None, "unasked": {"reason": f"{SETTING} is 0: dropped", "mend": f"sysctl -w {SETTING}=1"}}}


def status(*destinations: dict[str, Any], **fields: Any) -> dict[str, Any]:
    found = destinations or (destination(1), destination(2))
    return {"services": [{"virtual": WEB, "destinations": list(found)}], "orders": []} | fields


def order(**fields: Any) -> dict[str, Any]:
    fields = {"kind": "drain", "service": WEB, "destination": "10.0.0.11:80", "who": "ada"} | fields
    return {"at": 0.0, "until": None} | fields


def facts(*entries: ServiceEntry, **known: Any) -> Facts:
    base: dict[str, Any] = {
        "configurations": (Configuration("/etc/feedback/master.toml", True, "good"),),
        "snapshot": Snapshot(entries or (entry(),)),
        "vs": GOOD_VS,
        "host": {"net.ipv4.icmp_ratelimit": 0, "net.ipv4.ip_forward": 1},
        "enrolled": frozenset({"10.0.0.11", "10.0.0.12"}),
        "status": status(),
        "clock_synchronised": True,
        "now": 10 * DAY,
    }
    return Facts(**base | known)


def test_where_all_is_well_nothing_is_said() -> None:
    assert examine(facts()) == ()
    assert verdict(()) == "nothing is wrong"


PERSISTENT = entry(flags=ServiceFlags.PERSISTENT, timeout_seconds=300)
BAD_KEY = "/etc/k: others may read this secret (mode 0644): chmod 600 /etc/k"

CASES: dict[str, tuple[Facts, Level, str, str]] = {
    "nothing": (facts(configurations=()), Level.ERROR, "nothing is configured", "examples/"),
    "key": (
        facts(configurations=(Configuration("m", False, BAD_KEY),)),
        Level.ERROR,
        "others may read",
        "chmod 600 /etc/k",
    ),
    "configuration": (
        facts(configurations=(Configuration("m.toml", False, "m.toml: law: x"),)),
        Level.ERROR,
        "law: x",
        "feedback check",
    ),
    "owner": (facts(unreadable=("/etc/k",)), Level.ERROR, "does not belong to", "chown feedback /etc/k"),
    "clock": (facts(clock_synchronised=False), Level.WARNING, "not synchronised", "timedatectl set-ntp true"),
    "module": (
        facts(snapshot=None, ipvs_problem="the running kernel has no IPVS: load"),
        Level.ERROR,
        "no IPVS",
        "modprobe ip_vs",
    ),
    "rights": (facts(snapshot=None, ipvs_problem="EPERM"), Level.ERROR, "EPERM", "sudo"),
    "master": (
        facts(status=None, master_problem="nobody answers"),
        Level.ERROR,
        "nobody answers",
        "systemctl enable --now feedback-master",
    ),
    "stuck": (facts(status=status(decision_age_seconds=60.0)), Level.ERROR, "no decision for 60 s", "journalctl"),
    "left": (
        facts(status=status(left=["udp:10.0.0.1:53"])),
        Level.WARNING,
        "udp:10.0.0.1:53: was made by this master",
        "ipvsadm -D -u 10.0.0.1:53",
    ),
    "reload": (facts(status=status(reload={"good": False})), Level.WARNING, "was refused", "feedback check"),
    "sync": (facts(sync_problem="no sync"), Level.ERROR, "no sync", "systemctl enable --now feedback-sync"),
    "pair": (facts(sync=(Finding(Level.ERROR, "pair", "alone", "m"),)), Level.ERROR, "alone", "m"),
    "silent agent": (
        facts(status=status(destination(1, "lost", 40.0), destination(2))),
        Level.WARNING,
        "10.0.0.11 is lost: last report 40 s ago",
        "on 10.0.0.11: systemctl status feedback-agent",
    ),
    "missing agent": (
        facts(status=status(destination(1, "never", None), destination(2))),
        Level.WARNING,
        "has not reported",
        "systemctl enable --now feedback-agent",
    ),
    "agent without a key": (
        facts(status=status(destination(1, "never", None), destination(2)), enrolled=frozenset()),
        Level.WARNING,
        "no agent is enrolled for 10.0.0.11",
        "--rip 10.0.0.11",
    ),
    "service without agents": (
        facts(status=status(destination(1, "never", None), destination(2, "never", None))),
        Level.WARNING,
        f"{WEB}: no destination has an agent",
        "feedback-agent",
    ),
    "certificate": (
        facts(status=status(destination(1) | EXPIRING, destination(1) | EXPIRING, destination(2))),
        Level.WARNING,
        "10.0.0.11: the certificate expires on 2027-01-24",
        "on 10.0.0.11: renew it",
    ),
    "check that is not made": (
        facts(status=status(*(destination(i) | UNASKED for i in (1, 2)))),
        Level.ERROR,
        "the check of 10.0.0.11:80 cannot run: net.ipv4.conf.eth0.accept_local is 0",
        "sysctl -w net.ipv4.conf.eth0.accept_local=1",
    ),
    "forgotten drain": (
        facts(status=status(orders=[order()])),
        Level.ADVICE,
        "drain by ada has been in force for 10 d",
        "feedback undrain 10.0.0.11:80",
    ),
    "forgotten pause": (
        facts(status=status(orders=[order(kind="pause", destination="", service="")])),
        Level.ADVICE,
        "everything: pause by ada",
        "feedback resume",
    ),
    "persistence against zero": (
        facts(PERSISTENT, vs=GOOD_VS | {"expire_quiescent_template": 0}),
        Level.WARNING,
        "drained server",
        "sysctl -w net.ipv4.vs.expire_quiescent_template=1",
    ),
    "reuse 0": (
        facts(vs=GOOD_VS | {"conn_reuse_mode": 0}),
        Level.WARNING,
        "goes to its old server",
        "conn_reuse_mode=3",
    ),
    "reuse 1": (facts(vs=GOOD_VS | {"conn_reuse_mode": 1}), Level.ADVICE, "FIN_WAIT", "conn_reuse_mode=3"),
    "removed, and on_failure removes": (
        facts(vs=GOOD_VS | {"expire_nodest_conn": 0}, removes=True),
        Level.ERROR,
        "revive when the server returns",
        "on both directors",
    ),
    "flows that stay with another owner's dead server": (
        facts(entry(server(1, 0, inactive=12), server(2), key=DNS, scheduler="wrr"), adopts=True),
        Level.WARNING,
        "10.0.0.11:80 has weight 0 and 12 UDP flows",
        "quiescent=no",
    ),
    "removed": (
        facts(vs=GOOD_VS | {"expire_nodest_conn": 0}),
        Level.ADVICE,
        "silently dropped",
        "expire_nodest_conn=1",
    ),
    "counters": (facts(vs=GOOD_VS | {"run_estimation": 0}), Level.ADVICE, "stand still", "run_estimation=1"),
    "counters of UDP": (
        facts(entry(key=DNS, scheduler="wrr"), vs=GOOD_VS | {"run_estimation": 0}),
        Level.WARNING,
        "rates of UDP services",
        "run_estimation=1",
    ),
    "counters on no processor": (
        facts(entry(key=DNS, scheduler="wrr"), vs=GOOD_VS | {"est_cpulist": ""}),
        Level.WARNING,
        "est_cpulist is empty",
        "est_cpulist=0-N",
    ),
    "nearly full": (
        facts(vs=GOOD_VS | {"conn_max": 100}, table=TableSize(connections=80)),
        Level.WARNING,
        "conn_max=100 and 80 connections",
        "conn_max=200",
    ),
    "full": (
        facts(entry(server(1, active=60, inactive=40)), vs=GOOD_VS | {"conn_max": 100}),
        Level.ERROR,
        "drops the packets of new clients",
        "both directors",
    ),
    "long chains": (
        facts(entry(server(1, active=90_000)), table=TableSize(most_buckets=4096)),
        Level.ADVICE,
        "90000 connections in a table of 4096 buckets: every packet searches 21",
        "conn_tab_bits=17",
    ),
    "a table that has grown": (
        facts(table=TableSize(90_000, 4096, grows=True)),
        Level.ADVICE,
        "at most 4096 buckets",
        "conn_tab_bits=17",
    ),
    "refusals": (
        facts(entry(server(1, upper=10)), host={"net.ipv4.icmp_ratelimit": 1000}),
        Level.ADVICE,
        "only one refusal",
        "icmp_ratelimit=0",
    ),
    "forwarding": (
        facts(entry(server(1, forward=Forward.MASQUERADE)), host={"net.ipv4.ip_forward": 0}),
        Level.ERROR,
        "which masquerading needs",
        "ip_forward=1",
    ),
    "sed for UDP": (facts(entry(key=DNS)), Level.ERROR, "one server gets everything", "-s wrr"),
    "rr": (facts(entry(scheduler="rr")), Level.WARNING, "have no effect", "-s sed"),
    "wrr": (facts(entry(scheduler="wrr")), Level.ADVICE, "restarts its round", "-s sed"),
    "wlc": (
        facts(entry(server(1, inactive=900, active=3), scheduler="wlc")),
        Level.ADVICE,
        "counts closed connections for 120 s",
        "-s sed",
    ),
    "wlc of ours": (
        facts(entry(server(1, inactive=900, active=3), scheduler="wlc"), owned=frozenset({WEB})),
        Level.ADVICE,
        "counts closed connections",
        'scheduler = "sed" for tcp:10.0.0.100:80 in master.toml',
    ),
    "sh": (facts(entry(scheduler="sh")), Level.WARNING, "refuses the clients", "-b sh-fallback"),
    "nobody": (facts(entry(server(1, 0))), Level.ERROR, "every destination has weight 0", "feedback explain"),
    "clogged": (
        facts(entry(server(1, upper=100, active=3, inactive=97))),
        Level.WARNING,
        "full because of closed connections (97 of 100)",
        "ipvsadm --set 0 30 0",
    ),
    "persistent threshold": (
        facts(msgspec.structs.replace(PERSISTENT, destinations=(server(1, upper=9),))),
        Level.ADVICE,
        "pass its thresholds",
        'thresholds = "off"',
    ),
}


@pytest.mark.parametrize(("known", "level", "said", "mend"), CASES.values(), ids=CASES.keys())
def test_what_is_wrong_is_found_once_with_what_mends_it(known: Facts, level: Level, said: str, mend: str) -> None:
    found = [f for f in examine(known) if said in f.what]
    assert [(f.level, mend in f.mend) for f in found] == [(level, True)], examine(known)


@pytest.mark.parametrize(
    "known",
    [
        facts(entry(scheduler="wlc")),  # nothing closed: connections last
        facts(entry(server(1, upper=100, active=97, inactive=3))),  # full, and rightly
        facts(entry(scheduler="sh", flags=ServiceFlags.SCHED1)),
        facts(entry(key=DNS, scheduler="wrr")),
        facts(status=status(orders=[order(until=20 * DAY)])),
        facts(status=status(orders=[order(at=10 * DAY - 60)])),
        facts(status=status(destination(1, "quiesced", None), destination(2))),
        facts(vs=GOOD_VS | {"expire_quiescent_template": 0}),  # nothing is persistent
        facts(clock_synchronised=None),
        facts(status=None),  # a standby
    ],
)
def test_what_is_as_it_should_be_is_left_alone(known: Facts) -> None:
    assert examine(known) == ()


def test_a_real_server_is_not_asked_for_ipvs() -> None:
    assert (
        examine(facts(directs=False, snapshot=None, status=None, ipvs_problem="the running kernel has no IPVS")) == ()
    )


def test_the_command_that_mends_a_scheduler_keeps_the_rest_of_the_service() -> None:
    known = facts(entry(scheduler="rr", flags=ServiceFlags.PERSISTENT | ServiceFlags.HASHED, timeout_seconds=300))
    (mend,) = [f.mend for f in examine(known) if f.area == "scheduler"]
    edit = parse_line(mend.partition("   (")[0])
    assert isinstance(edit, SetService)
    assert (edit.service.scheduler, edit.service.timeout_seconds) == ("sed", 300)


def test_errors_come_first_and_make_the_verdict() -> None:
    known = facts(entry(server(1, 0), scheduler="wrr"), clock_synchronised=False)
    assert [f.level for f in examine(known)] == [Level.ERROR, Level.WARNING, Level.ADVICE]
    assert verdict(examine(known)) == "1 error: fix the first one first"
    assert verdict(examine(known)[1:]) == "nothing is wrong, with the remarks above"


def interface(name: str, *addresses: str, ignore: int = 0, announce: int = 0) -> Interface:
    return Interface(name, tuple(map(IPv4Interface, addresses)), ignore, announce)


LO = interface("lo", "127.0.0.1/8", "10.0.0.100/32")
ETH0, ETH1 = interface("eth0", "10.0.0.1/24", "10.0.0.100/32"), interface("eth1", "10.0.0.2/24")
QUIET = [interface(i.name, *map(str, i.addresses), ignore=1, announce=2) for i in (ETH0, ETH1)]
REAL_SERVER = [interface("eth0", "10.0.0.11/24")]


@pytest.mark.parametrize(
    ("directs", "interfaces", "said"),
    [
        (True, [ETH0, ETH1], "eth0 and eth1 are both in 10.0.0.0/24, and each answers ARP for 10.0.0.100"),
        (True, [interface("eth0", "10.0.0.1/24"), ETH1], "10.0.0.100"),  # a standby
        (True, [QUIET[0], ETH1], "eth1: arp_ignore=0"),
        (True, QUIET, ""),
        (True, [ETH0], ""),
        (True, [ETH0, interface("eth1", "10.0.1.2/24")], ""),
        (True, [interface("eth0", "10.9.0.1/24"), interface("eth1", "10.9.0.2/24")], ""),  # no virtual address there
        (False, [LO, *REAL_SERVER], "10.0.0.100 is on lo, and eth0 announces it to the network"),
        (False, [LO, interface("eth0", "10.0.0.11/24", ignore=1, announce=2)], ""),
        (False, [LO, interface("eth0", "10.0.0.11/24", ignore=1)], "arp_announce=0"),
        (False, [interface("lo", "127.0.0.1/8"), *REAL_SERVER], ""),
    ],
)
def test_who_answers_arp_for_a_virtual_address(directs: bool, interfaces: list[Interface], said: str) -> None:
    found = [f for f in examine(facts(interfaces=tuple(interfaces), directs=directs)) if f.area == "arp"]
    assert bool(found) is bool(said)
    assert all(said in f.what and "net.ipv4.conf.all.arp_ignore=1" in f.mend for f in found)
