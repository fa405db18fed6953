"""Cases of ldirectord.cf one by one: how it is read, what is checked, and what is said. The table itself is held
against the real program in test_owners.py."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from feedback.config import MasterConfig, parse
from feedback.importers import as_toml, ldirectord


def read(text: str, **options: Any) -> tuple[dict[str, dict[str, Any]], list[str]]:
    found = ldirectord.read(text, **options)
    toml = as_toml(found.services, "x")
    if found.services:
        parse(toml, MasterConfig)
    return {s["virtual"]: s for s in tomllib.loads(toml).get("service", ())}, [str(r) for r in found.remarks]


def service(*lines: str, before: str = "", where: str = "10.0.0.1:80") -> tuple[dict[str, Any], list[str]]:
    text = before + f"virtual={where}\n" + "".join(f"\t{line}\n" for line in lines)
    found, remarks = read(text)
    return next(iter(found.values())), remarks


def said(remarks: list[str], *parts: str) -> bool:
    return any(all(p in r for p in parts) for r in remarks)


REAL = "real=10.1.0.1:80 gate"


@pytest.mark.parametrize(
    ("rest", "weight", "upper", "lower"),
    [
        ("", 1, 0, 0),
        (" 5", 5, 0, 0),
        (" weight 5", 5, 0, 0),
        (" l:10 u:20", 1, 20, 10),
        (' 5 "a b", "c" l:10 u:20', 5, 20, 10),
        (" 5 u:20 l:10", 5, 0, 0),  # ldirectord looks for l: first and skips u:, and the kernel refuses l: alone
    ],
)
def test_a_real_server_is_read_as_ldirectord_reads_it(rest: str, weight: int, upper: int, lower: int) -> None:
    found, remarks = service(REAL + rest, "checktype=on")
    only = found["destination"][0]
    assert (only["weight"], only.get("upper", 0), only.get("lower", 0)) == (weight, upper, lower)
    assert said(remarks, "its thresholds are left out") == ("u:20 l:10" in rest)
    assert said(remarks, "is skipped") == (rest in (" weight 5", " 5 u:20 l:10"))


def test_numbers_are_found_in_what_is_around_them() -> None:
    found, remarks = service(
        REAL, "persistent=600 sec", before="checkinterval = 2 sec\nchecktimeout=5s\nfailurecount=x3\n"
    )
    check = found["check"]
    assert (found["persistence_seconds"], check["interval_seconds"], check["fall"]) == (600, 2, 3)
    assert check["timeout_seconds"] == 5
    assert not said(remarks, "left out")


def test_services_names_are_those_of_the_host() -> None:
    text = "virtual=10.0.0.1:www\n\treal=10.1.0.1:80 gate\nvirtual=10.0.0.1:odd\n\treal=10.1.0.1:7 gate\n"
    found, _ = read(text, port_of=lambda name, protocol: {("www", "tcp"): 80, ("odd", "tcp"): 7}.get((name, protocol)))
    assert found.keys() == {"tcp:10.0.0.1:80", "tcp:10.0.0.1:7"}
    found, remarks = read(text)
    assert found.keys() == {"tcp:10.0.0.1:80"}
    assert said(remarks, "line 3: virtual=10.0.0.1:odd: left out", "service's name")


def test_a_check_that_is_off_takes_its_servers_out_of_service() -> None:
    found, remarks = service(REAL + " 5", "checktype=off")
    assert found["destination"][0]["weight"] == 0
    assert "check" not in found
    assert said(remarks, "checktype=off: its servers are not in service")


LOST = {"checktype=5", "checktype=ping", "checktype=external-perl", "service=smtp", "service=imaps"}


@pytest.mark.parametrize(
    ("lines", "check"),
    [
        (["checktype=on"], None),
        (["service=none"], None),
        (["checktype=connect"], {"type": "tcp"}),
        (["checktype=negotiate"], {"type": "http", "path": "/"}),
        (['request="a"', 'receive="b c"'], {"type": "http", "path": "/a", "body": "b c"}),
        (["service=https", "virtualhost=h"], {"type": "https", "host": "h"}),
        (["checktype=external", "checkcommand=/x"], {"command": ["/x", "10.0.0.1", "80", "{address}", "{port}"]}),
        (["checktype=5"], {"type": "tcp"}),
        (["service=smtp", "checkport=25"], {"type": "tcp", "port": 25, "expect": "220"}),
        (["service=imaps"], {"type": "tls", "expect": "* "}),
        (["service=dns", 'request="a.b"', 'receive="10.0.0.9"'], {"name": "a.b", "answer": "10.0.0.9"}),
        (["checktype=ping"], None),
        (["checktype=external-perl"], None),
        (["service=dns"], None),
        (['receive="a.*b"'], {"type": "http"}),
    ],
)
def test_what_is_checked(lines: list[str], check: dict[str, Any] | None) -> None:
    found, remarks = service(REAL, *lines)
    made = found.get("check")
    assert (made is None) == (check is None)
    assert check is None or {k: made[k] for k in check} == check
    lost = lines in (["service=dns"], ['receive="a.*b"']) or lines[0] in LOST
    assert bool([r for r in remarks if "not carried" in r or "becomes" in r]) == lost


def test_a_head_request_is_said_to_become_a_get() -> None:
    assert said(service(REAL, "httpmethod=HEAD")[1], "httpmethod=HEAD: replaced by GET")


@pytest.mark.parametrize(
    ("words", "before", "timeout"),
    [
        ([], "", 30),
        (["checktype=connect"], "", 5),
        (["checktimeout=7"], "", 7),
        (["checktimeout=7", "negotiatetimeout=8"], "", 8),
        (["checktype=connect", "negotiatetimeout=8"], "", 8),
        ([], "checktimeout=9\n", 9),
        (["checktimeout=7"], "negotiatetimeout=9\n", 7),
    ],
)
def test_timeouts_stand_in_for_each_other(words: list[str], before: str, timeout: int) -> None:
    assert service(REAL, *words, before=before)[0]["check"]["timeout_seconds"] == timeout


def test_an_interval_of_its_own_needs_fork() -> None:
    found, remarks = service(REAL, "checkinterval=3")
    assert found["check"]["interval_seconds"] == 10
    assert said(remarks, "checkinterval=3: ignored without fork=yes")
    assert service(REAL, "checkinterval=3", before="fork=yes\n")[0]["check"]["interval_seconds"] == 3


def test_each_server_is_asked_at_its_own_port() -> None:
    found, _ = service("real=10.1.0.1:80 gate", "real=10.1.0.2:8080 gate", "checktype=connect")
    assert [d.get("check_port") for d in found["destination"]] == [None, 8080]
    assert "port" not in found["check"]
    without, remarks = service("real=10.1.0.1 gate", "real=10.1.0.2 gate", "checktype=connect", where="7")
    assert "check" not in without
    assert said(remarks, "have a port for it")
    masqueraded, _ = service("real=10.1.0.1:80 masq", "real=10.1.0.2:8080 masq", "checktype=connect")
    assert "port" not in masqueraded["check"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("quiescent=maybe", "yes or no"),
        ("checkport=0", "a port"),
        ("httpmethod=POST", "one of GET, HEAD"),
        ("request=index.html", "text in double quotes"),
        ("persistent=long", "a number"),
        ("colour=blue", "unknown"),
        ("real=10.1.0.2:80 through", "expected ADDRESS:PORT gate|masq|ipip"),
        ("real=10.1.0.2:80 gate 5 fast", "'fast' is unknown"),
        ("real6=[2001:db8::1]:80 gate", "a virtual6 has real6"),
    ],
)
def test_what_keeps_ldirectord_from_starting_costs_that_line_and_is_said(line: str, expected: str) -> None:
    found, remarks = service(REAL, line, "checktype=on")
    assert [d["address"] for d in found["destination"]] == ["10.1.0.1"]
    assert said(remarks, "line 3", expected, "ldirectord does not start with it"), remarks


def test_a_password_is_not_for_terminals_and_logs() -> None:
    _, remarks = service(REAL, "passwd=hunter2", 'secret="hunter2"', "checktype=on")
    assert len(remarks) == 2
    assert not said(remarks, "hunter2")
