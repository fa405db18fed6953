"""Cases of keepalived.conf one by one: how it is read, what is checked, and what is said. The table itself is held
against the real program in test_owners.py."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from feedback.config import MasterConfig, parse
from feedback.importers import ImportFormatError, as_toml, keepalived
from feedback.importers.keepalived.lines import LINE_MAX, Lines, decommented
from feedback.importers.keepalived.words import Timer, number, shell_words, timer, words

SERVICE = "virtual_server 10.0.0.1 80 {\n protocol TCP\n lb_kind %s\n %s\n}\n"


def read(text: str, **options: Any) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Services of the TOML that was written, by their name, and the remarks."""
    found = keepalived.read(text, **options)
    toml = as_toml(found.services, "x")
    if found.services:
        parse(toml, MasterConfig)
    return {s["virtual"]: s for s in tomllib.loads(toml).get("service", ())}, [str(r) for r in found.remarks]


def service(reals: str, kind: str = "NAT", **options: Any) -> tuple[dict[str, Any], list[str]]:
    found, remarks = read(SERVICE % (kind, reals), **options)
    return found["tcp:10.0.0.1:80"], remarks


def said(remarks: list[str], *parts: str) -> bool:
    return any(all(p in r for p in parts) for r in remarks)


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("weight 5#x", "weight 5"),
        ("weight 5!x", "weight 5"),
        ('path "/a#b!c" # x', 'path "/a#b!c"'),
        (r"path /a\#b", "path /a#b"),
        ("  # all of it", ""),
        ("$A= b \\", "$A= b\\"),
        ("$A= b   # c \\", "$A= b\\"),
        ('a # "one quote', "a"),
    ],
)
def test_a_comment_begins_wherever_its_sign_stands_outside_of_quotes(line: str, left: str) -> None:
    assert decommented(line) == left


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a  b\tc", ["a", "b", "c"]),
        ('a "b c" d', ["a", "b c", "d"]),
        ('a"b c"d', ["a", "b c", "d"]),
        ('a ""', ["a", ""]),
        ('a "b c', ["a"]),
    ],
)
def test_words(text: str, found: list[str]) -> None:
    assert words(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"a 'b c' d\ e", ["a", "b c", "d e"]),
        (r"\x41\101\t\cA", ["AA\t\x01"]),
        ('a"b c"d ""', ["ab cd", ""]),
        ("a 'b", None),
        ("a \\", None),
    ],
)
def test_words_of_a_command(text: str, found: list[str] | None) -> None:
    assert shell_words(text) == found


@pytest.mark.parametrize(
    ("text", "value", "exact"),
    [("7", 7, True), ("7s", 7, False), ("x", 0, False), ("-1", None, False), ("300", None, False), (" 9", 9, True)],
)
def test_numbers_are_taken_as_far_as_they_go(text: str, value: int | None, exact: bool) -> None:
    found = number(text, 0, 255)
    assert (found.value, found.exact) == (value, exact)
    assert number(text, 0, 255, strict=True).value == (value if exact else None)


def test_a_time_with_a_unit_is_microseconds_to_keepalived() -> None:
    assert timer("6") == Timer(6.0)
    assert timer("0.25") == Timer(0.25)
    assert timer("6s") == Timer(0.000006, exact=False)
    assert timer("0") == timer("-1") == Timer(None, exact=False)
    assert timer("0", zero=True) == Timer(0.0)


def test_a_definition_that_uses_itself_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [line.text[:2] for line in Lines("$A=$A\n$B=x$B\nl $A\nm $B")] == ["l ", "m "]
    monkeypatch.setattr("feedback.importers.keepalived.lines.LINES_MAX", 2_000)
    with pytest.raises(ImportFormatError, match="more than"):
        list(Lines("$A=a \\\n$A\n\n$A\n"))


def test_a_long_line_is_read_in_parts_as_keepalived_does() -> None:
    assert [len(line.text) for line in Lines("a" * 2 * LINE_MAX)] == [LINE_MAX, LINE_MAX]


def test_sequences_are_bounded() -> None:
    lines = Lines("~SEQ(i, 1, 999999999) x$i\n~SEQ(i, 1, 0, 9) x\n~SEQ(i) x\n~LST(i) x\n~LST x")
    assert list(lines) == []
    assert len(lines.remarks) == 5


@pytest.mark.parametrize(
    ("instance", "kept"),
    [("", ["b", "d"]), ("main", ["a", "d"]), ("other", ["b", "c"])],
)
def test_conditional_lines_are_for_the_instance_that_is_named(instance: str, kept: list[str]) -> None:
    lines = Lines("@main a\n@^main b\n@other c\n@^other d\n@main\n", instance=instance)
    assert [line.text for line in lines] == kept
    assert len(lines.remarks) == 3


FILES = {
    "parts/*.inc": [("parts/a.inc", "include deep\n"), ("parts/b.inc", "real_server 10.1.0.2 80 {\n bad\n }\n")],
    "deep": [("parts/deep", "real_server 10.1.0.1 80 { weight $W }\n")],
    "self": [("self", "include self\n")],
    "large": [("large", "x" * 17 * 1024 * 1024)],
}


def included(pattern: str, _file: str) -> list[tuple[str, str]]:
    if pattern not in FILES:
        raise FileNotFoundError(2, "No such file or directory")
    return FILES[pattern]


def test_included_files_are_read_where_they_stand_and_remarks_name_them() -> None:
    found, remarks = service("$W=7\n include parts/*.inc\n include absent", include=included)
    assert [(d["address"], d["weight"]) for d in found["destination"]] == [("10.1.0.1", 7), ("10.1.0.2", 1)]
    assert said(remarks, "parts/b.inc: line 2: bad: is unknown there: not carried over")
    assert said(remarks, "line 6: include absent: cannot be read: No such file")


def test_includes_are_bounded() -> None:
    lines = Lines("include self", included)
    assert list(lines) == []
    assert said([str(r) for r in lines.remarks], "deep")
    with pytest.raises(ImportFormatError, match="more than 16777216 bytes"):
        list(Lines("include large", included))


def test_an_unknown_word_with_a_block_costs_that_block_and_no_more() -> None:
    found, remarks = service("real_server 10.1.0.1 80 {\n QUIC_CHECK {\n x { y }\n }\n weight 4\n }")
    assert found["destination"] == [{"address": "10.1.0.1", "weight": 4}]
    assert said(remarks, "line 5: QUIC_CHECK: is unknown there: not carried over")


@pytest.mark.parametrize(
    ("bad", "remark"),
    [
        ("real_server 10.1.0.1 80 { uthreshold 10\n lthreshold 20 }", "its thresholds are left out"),
        ("real_server 10.1.0.1 80 { uthreshold 3000000000 }", "its thresholds are left out"),
        ("real_server 10.1.0.300 80 { }", "real_server 10.1.0.300 80: left out"),
        ("real_server 10.1.0.9 80 { }\n real_server 10.1.0.9 80 { weight 2 }", "is listed twice"),
        ("persistence_engine sip", "its persistence engine is left out: pe: sip: needs persistence_seconds"),
        ("protocol QUIC", "protocol QUIC: no such protocol"),
        ("lvs_sched fastest", "lvs_sched fastest: no such scheduler"),
        ("@main weight 5", "@main: a conditional line"),
        ("}", "one } too many"),
    ],
)
def test_what_is_wrong_costs_its_own_line(bad: str, remark: str) -> None:
    text = SERVICE % ("NAT", "real_server 10.1.0.2 80 { weight 2 }\n" + bad)
    found, remarks = read(text + (SERVICE % ("DR", "real_server 10.1.0.3 80 { }")).replace("10.0.0.1 ", "10.0.0.2 "))
    assert found.keys() == {"tcp:10.0.0.1:80", "tcp:10.0.0.2:80"}
    assert {"address": "10.1.0.2", "weight": 2} in found["tcp:10.0.0.1:80"]["destination"]
    assert said(remarks, remark), remarks


# --- checks -----------------------------------------------------------------------------------------------------------


def real(check: str, last: int = 1, port: int = 80) -> str:
    return f"real_server 10.1.0.{last} {port} {{\n {check}\n }}\n"


@pytest.mark.parametrize(
    ("check", "interval", "fall", "found_seconds"),
    [
        ("TCP_CHECK { retry 0 }", 60, 1, 60),
        ("TCP_CHECK { }", 30.5, 2, 61),  # keepalived's own: one try more after 1 s
        ("HTTP_GET { url { path /\n } }", 31.5, 2, 63),  # and 3 s by HTTP
        ('MISC_CHECK { misc_path "/bin/x" }', 60, 1, 60),  # and none for a program
        ("TCP_CHECK { delay_loop 18\n retry 3\n delay_before_retry 1 }", 5.25, 4, 21),
        ("TCP_CHECK { delay_loop 10\n retry 2\n delay_before_retry 10 }", 10, 3, 30),
    ],
)
def test_a_dead_server_is_found_as_soon_as_keepalived_finds_it(
    check: str, interval: float, fall: int, found_seconds: float
) -> None:
    found, remarks = service(real(check))
    made = found["check"]
    assert (made["interval_seconds"], made["fall"], made["rise"]) == (interval, fall, 1)
    assert made["interval_seconds"] * made["fall"] == pytest.approx(found_seconds)
    assert said(remarks, "keepalived asks every") == (fall > 1 and interval != 10)


def test_times_come_from_the_check_the_server_and_the_service_in_this_order() -> None:
    reals = "delay_loop 9\n connect_timeout 8\n retry 1\n delay_before_retry 9\n"
    found, _ = service(reals + "real_server 10.1.0.1 80 {\n connect_timeout 7\n TCP_CHECK { }\n }")
    assert found["check"]["timeout_seconds"] == 7
    assert (found["check"]["interval_seconds"], found["check"]["fall"]) == (9, 2)
    found, _ = service(real('MISC_CHECK { misc_path "/bin/x" }'))
    assert found["check"]["timeout_seconds"] == 60  # a program's time is the delay loop


@pytest.mark.parametrize(
    ("kind", "reals", "port"),
    [
        ("NAT", real("TCP_CHECK { }", 1, 8080) + real("TCP_CHECK { }", 2, 8081), None),
        ("NAT", real("TCP_CHECK { connect_port 9 }", 1, 8080) + real("TCP_CHECK { connect_port 9 }", 2, 8081), 9),
        ("DR", real("TCP_CHECK { }", 1, 8080) + real("TCP_CHECK { }", 2, 8080), 8080),
    ],
)
def test_a_check_asks_the_port_that_keepalived_asks(kind: str, reals: str, port: int | None) -> None:
    found, _ = service(reals, kind)
    assert found["check"].get("port") == port


@pytest.mark.parametrize(
    ("where", "kind", "ports"),
    [
        ("10.0.0.1 80", "DR", [{}, {"check_port": 8080}]),
        ("10.0.0.1 80", "NAT", [{}, {"port": 8080}]),
        ("fwmark 7", "DR", [{"check_port": 80}, {"check_port": 8080}]),
        ("fwmark 7", "NAT", [{"port": 80}, {"port": 8080}]),
    ],
)
def test_each_server_is_asked_at_its_own_port(where: str, kind: str, ports: list[dict[str, int]]) -> None:
    text = SERVICE % (kind, real("TCP_CHECK { }") + real("TCP_CHECK { }", 2, 8080))
    found, remarks = read(text.replace("10.0.0.1 80", where))
    (only,) = found.values()
    assert [{k: d[k] for k in d if "port" in k} for d in only["destination"]] == ports
    assert "port" not in only["check"]
    assert not said(remarks, "no longer checked")


@pytest.mark.parametrize(
    ("kind", "reals", "why"),
    [
        ("DR", real("TCP_CHECK { }", 1, 80) + real("TCP_CHECK { connect_port 81 }", 2) + real("", 3), "have a port"),
        ("NAT", real("TCP_CHECK { connect_ip 10.1.0.9 }"), "asks another address"),
        (
            "NAT",
            real('MISC_CHECK { misc_path "/bin/x 1" }') + real('MISC_CHECK { misc_path "/bin/x 2" }', 2),
            "no one way of checking fits",
        ),
        ("NAT", real("DNS_CHECK { name a }") + real("UDP_CHECK { payload 01 }", 2), "no one way of checking fits"),
        ("NAT", real("UDP_CHECK { }"), "no payload"),
        ("NAT", real("PING_CHECK { }"), "no such check"),
        ("NAT", real("MISC_CHECK { misc_path x }"), "expected an absolute path"),
        ("NAT", real('MISC_CHECK { misc_path "/bin/x {port}" }'), "expected an absolute path"),
    ],
)
def test_no_check_is_better_than_one_that_asks_something_else(kind: str, reals: str, why: str) -> None:
    found, remarks = service(reals, kind)
    assert "check" not in found
    assert said(remarks, why), remarks


@pytest.mark.parametrize(
    ("check", "made"),
    [
        ("SMTP_CHECK { }", {"type": "tcp", "expect": "220", "quit": "QUIT\r\n"}),
        ("DNS_CHECK { type a\n name example.org }", {"type": "dns", "name": "example.org", "record": "A"}),
        ("DNS_CHECK { }", {"type": "dns", "name": ".", "record": "SOA", "fall": 4, "interval_seconds": 60}),
        ("UDP_CHECK { payload 00 ff }", {"type": "udp", "send": "\x00\u00ff", "reply": False}),
        ("UDP_CHECK { payload 41\n require_reply 42 }", {"type": "udp", "send": "A"}),
    ],
)
def test_other_kinds(check: str, made: dict[str, Any]) -> None:
    found = service(real(check))[0]["check"]
    assert {k: found[k] for k in made} == made


def test_where_servers_are_asked_different_things_a_connection_remains() -> None:
    reals = real("HTTP_GET { url { path /a\n } }") + real("HTTP_GET { url { path /b\n } }", 2)
    found, remarks = service(reals)
    assert found["check"]["type"] == "tcp"
    assert said(remarks, "all get a connection check")


def test_a_programs_arguments_name_the_server_by_placeholders() -> None:
    check = 'MISC_CHECK { misc_path "/bin/x --host=%(a)s %(a)s:80 http://%(a)s:80/ 80 %(a)s0 [%(a)s]" }'
    reals = "".join(real(check % {"a": f"10.1.0.{i}"}, i) for i in (1, 2))
    found, remarks = service(reals.replace("10.1.0.20 ", "10.1.0.10 "))
    assert found["check"]["command"] == [
        "/bin/x",
        "--host={address}",
        "{address}:{port}",
        "http://{address}:{port}/",
        "{port}",
        "10.1.0.10",
        "[{address}]",
    ]
    assert not said(remarks, "program")


@pytest.mark.parametrize(
    ("path", "asked"), [('"/a b"', "/a%20b"), ("/café", "/caf%C3%A9"), ("/caf\udce9", "/caf%E9"), ("x", "/x")]
)
def test_a_path_that_is_no_plain_text_is_encoded(path: str, asked: str) -> None:
    found, remarks = service(real(f"HTTP_GET {{ url {{ path {path}\n }} }}"))
    assert found["check"]["path"] == asked
    assert said(remarks, f"asked for as {asked}")


def test_the_nearest_virtualhost_counts() -> None:
    check = "HTTP_GET { %s\n url { path /\n %s\n } }"
    hosts = [
        ("virtualhost c.example", "virtualhost d.example", "d.example"),
        ("virtualhost c.example", "", "c.example"),
        ("", "", "b.example"),
    ]
    for of_check, of_url, host in hosts:
        own = f"virtualhost b.example\n {check % (of_check, of_url)}"
        assert service("virtualhost a.example\n" + real(own))[0]["check"]["host"] == host
    assert service("virtualhost a.example\n" + real(check % ("", "")))[0]["check"]["host"] == "a.example"
