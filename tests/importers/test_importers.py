"""Realistic files become configuration that the master takes, and what has no place in it is said with its line."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from feedback.cli.main import main
from feedback.config import MasterConfig, parse
from feedback.importers import ImportFormatError, as_toml, keepalived, ldirectord, rules
from feedback.ops import keys

KEEPALIVED = """\
! Configuration File for keepalived
global_defs {
    router_id LVS_1
}
$VIP=10.0.0.100
include /etc/keepalived/more.conf

vrrp_instance VI_1 {
    state BACKUP
    virtual_ipaddress { 10.0.0.100/32 dev eth0 }
}

virtual_server $VIP 80 {
    delay_loop 6
    lb_algo wlc        # weights by load later
    lb_kind DR
    persistence_timeout 300
    persistence_granularity 255.255.255.0
    protocol TCP
    sorry_server 127.0.0.1 80
    quorum 2

    real_server 10.0.0.11 80 {
        weight 10
        uthreshold 400
        lthreshold 350
        notify_down "/usr/local/bin/page me"
        HTTP_GET {
            url {
                path "/health?a=b#c"
                status_code 200-204 301
            }
            connect_timeout 3
            retry 2
        }
    }
    real_server 10.0.0.12 80
    {
        weight 20
        inhibit_on_failure
        HTTP_GET {
            url {
                path "/health?a=b#c"
                status_code 200-204 301
            }
            connect_timeout 3
            retry 2
        }
    }
}

virtual_server_group MAIL {
    10.0.0.100 25
    10.0.0.101-103 25
    fwmark 7
}
virtual_server group MAIL {
    protocol TCP
    lvs_sched wrr
    lvs_method NAT
    real_server 10.1.0.1 25 { weight 1
        MISC_CHECK {
            misc_path "/usr/lib/check-smtp 10.1.0.1 25 --fast"
            misc_dynamic
        } }
    real_server 10.1.0.2 25 { weight 3
        lvs_method TUN type gue port 6080 csum
        MISC_CHECK {
            misc_path "/usr/lib/check-smtp 10.1.0.2 25 --fast"
            misc_dynamic
        } }
    real_server smtp.example.org 25 { weight 1 }
}
virtual_server 2001:db8::100 53 {
    lb_algo mh
    mh-port
    mh-fallback
    lb_kind DR
    protocol UDP
    ops
    real_server 2001:db8::11 53 {
        DNS_CHECK { name example.org }
    }
}
@backup virtual_server 10.0.0.9 80 {
"""

LDIRECTORD = """\
# Global Directives
checktimeout=3
checkinterval=2
autoreload=yes
quiescent=no

virtual=10.0.0.100:80
\tservicename=Web
\treal=10.0.0.11->10.0.0.13:80 gate 10
\treal=10.0.0.20:8080 masq 5 ".health", "OK" l:10 u:20
\treal=web.example.org:80 gate
\tfallback=127.0.0.1:80 gate
\tservice=http
\tscheduler=wlc
\tpersistent=600
\tnetmask=255.255.255.255
\tprotocol=tcp
\tchecktype=negotiate
\trequest="index.html"
\treceive="Test Page"
\tvirtualhost=www.example.org
\tpasswd="hunter2"

virtual=1
\treal=10.0.0.11 gate
\tprotocol=fwm
\tscheduler=rr
\tchecktype=external
\tcheckcommand=/usr/lib/check
\tcheckport=80

virtual6=[2001:db8::5]:53
\treal6=[2001:db8::6]:53 ipip
\tprotocol=udp
\tscheduler=sh
\tschedflags=sh-fallback,sh-port
\tops=yes
\tchecktype=ping
"""

RULES = """\
-A -t 10.0.0.100:80 -s sed
-a -t 10.0.0.100:80 -r 10.1.0.2:80 -g -w 0
-a -t 10.0.0.100:80 -r 10.1.0.1:8080 -m -w 100 -x 400 -y 350
-A -t 10.0.0.100:443 -s mh -p 300 -M 255.255.255.0 -b mh-fallback,mh-port --pe sip
-a -t 10.0.0.100:443 -r 10.1.0.1:443 -i -w 30 --tun-type gue --tun-port 6080 --tun-csum
-A -f 7 -6 -s wrr -o
"""


def services(text: str, module: ModuleType) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Services of the TOML that was written, by their name, and the remarks."""
    found = module.read(text)
    toml = as_toml(found.services, "x")
    parse(toml, MasterConfig)
    return {s["virtual"]: s for s in tomllib.loads(toml)["service"]}, [str(r) for r in found.remarks]


def said(remarks: list[str], *words: str) -> bool:
    return any(all(w in r for w in words) for r in remarks)


def test_keepalived() -> None:
    found, remarks = services(KEEPALIVED, keepalived)
    web = found["tcp:10.0.0.100:80"]
    assert (web["scheduler"], web["forward"]) == ("wlc", "route")
    assert (web["persistence_seconds"], web["persistence_prefix"]) == (300, 24)
    assert web["destination"] == [
        {"address": "10.0.0.11", "weight": 10, "upper": 400, "lower": 350},
        {"address": "10.0.0.12", "weight": 20, "on_failure": "quiesce"},
    ]
    assert web["check"] == {
        "type": "http",
        "status": [200, 201, 202, 203, 204, 301],
        "path": "/health?a=b#c",
        "interval_seconds": 4.0,
        "timeout_seconds": 3.0,
        "rise": 1,
        "fall": 3,
    }
    mail = [f"tcp:10.0.0.{i}:25" for i in (100, 101, 102, 103)]
    assert found.keys() == {"tcp:10.0.0.100:80", *mail, "fwmark:7", "udp:[2001:db8::100]:53"}
    assert found[mail[3]]["destination"] == [
        {"address": "10.1.0.1", "weight": 1},
        {"address": "10.1.0.2", "weight": 3, "forward": "tunnel", "tunnel": "gue", "tunnel_port": 6080},
    ]
    assert found[mail[0]]["check"] == {
        "type": "exec",
        "command": ["/usr/lib/check-smtp", "{address}", "{port}", "--fast"],
        "interval_seconds": 60.0,
        "timeout_seconds": 60.0,
        "rise": 1,
        "fall": 1,
    }
    smtp = ["/usr/lib/check-smtp", "{address}", "25", "--fast"]  # a tunnel's destination has no port of its own here
    assert found["fwmark:7"]["check"] == found[mail[0]]["check"] | {"command": smtp, "port": 25}
    dns = found["udp:[2001:db8::100]:53"]
    assert (dns["scheduler"], dns["flags"]) == ("mh", ["fallback", "one-packet", "port"])
    for words in (
        ("line 6: include /etc/keepalived/more.conf",),
        ("line 8: vrrp_instance VI_1", "feedback sync"),
        ("line 20: sorry_server 127.0.0.1 80", "spillover"),
        ("line 21: quorum 2",),
        ("line 27: notify_down", "feedback events"),
        ("line 64: misc_dynamic",),
        ("line 67: lvs_method TUN", "checksum: not carried over"),
        ("line 72: real_server smtp.example.org 25: left out",),
        ("line 82: DNS_CHECK",),
        ("line 85: @backup: a conditional line",),
        ("line 28: HTTP_GET: every 4 s, out after 3 failures; keepalived asks every 6 s, and then up to 2 more",),
    ):
        assert said(remarks, *words), (words, remarks)


def test_keepalived_takes_a_service_without_protocol_for_udp_and_ports_for_equal_without_nat() -> None:
    text = "virtual_server 10.0.0.1 80 {\n lb_kind DR\n lb_algo wrr\n real_server 10.1.0.1 8080 {\n }\n}\n"
    found, remarks = services(text, keepalived)
    assert found["udp:10.0.0.1:80"]["destination"] == [{"address": "10.1.0.1", "weight": 1}]
    assert said(remarks, "line 1: 10.0.0.1 80: has no protocol")
    assert said(remarks, "line 4: real_server 10.1.0.1 8080: port 80")
    nat, _ = services(text.replace("DR", "NAT"), keepalived)
    assert nat["udp:10.0.0.1:80"]["destination"] == [{"address": "10.1.0.1", "port": 8080, "weight": 1}]


def test_keepalived_removes_whom_it_does_not_inhibit() -> None:
    def ways(service: str, first: str, second: str) -> tuple[str, list[str | None]]:
        real = " real_server 10.1.0.{} 80 {{\n  {}\n  TCP_CHECK {{\n  }}\n }}\n"
        text = f"virtual_server 10.0.0.1 80 {{\n protocol TCP\n lb_kind DR\n {service}\n"
        text += real.format(1, first) + real.format(2, second) + "}\n"
        (found,) = services(text, keepalived)[0].values()
        return found["on_failure"], [d.get("on_failure") for d in found["destination"]]

    inhibit = "inhibit_on_failure"
    assert ways("", "", "") == ("remove", [None, None])
    assert ways(inhibit, "", "") == ("quiesce", [None, None])
    assert ways("", inhibit, inhibit) == ("quiesce", [None, None])
    assert ways("", inhibit, "") == ("remove", ["quiesce", None])
    assert "on_failure" not in str(
        services("virtual_server 10.0.0.1 80 {\n real_server 10.1.0.1 80 {\n }\n}", keepalived)
    )


@pytest.mark.parametrize(
    ("whole", "service", "becomes"),
    [("", "", "remove"), ("yes", "", "quiesce"), ("no", "yes", "quiesce"), ("yes", "no", "remove")],
)
def test_ldirectord_removes_what_is_not_quiescent(whole: str, service: str, becomes: str) -> None:
    text = f"quiescent={whole}\n" if whole else ""
    text += "virtual=10.0.0.1:80\n\treal=10.1.0.1:80 gate\n\tchecktype=connect\n"
    text += f"\tquiescent={service}\n" if service else ""
    (found,) = services(text, ldirectord)[0].values()
    assert found["on_failure"] == becomes


def test_ldirectord() -> None:
    found, remarks = services(LDIRECTORD, ldirectord)
    web = found["tcp:10.0.0.100:80"]
    assert [d["address"] for d in web["destination"]] == ["10.0.0.11", "10.0.0.12", "10.0.0.13", "10.0.0.20"]
    assert web["destination"][0] == {"address": "10.0.0.11", "weight": 10}
    assert web["destination"][3] == {
        "address": "10.0.0.20",
        "port": 8080,
        "weight": 5,
        "upper": 20,
        "lower": 10,
        "forward": "masquerade",
    }
    assert (web["scheduler"], web["persistence_seconds"]) == ("wlc", 600)
    check = web["check"]
    assert check["type"] == "tcp"  # one of them is asked something else
    assert (check["interval_seconds"], check["timeout_seconds"], check["fall"]) == (2.0, 3.0, 1)
    assert web["on_failure"] == "remove"
    assert found["fwmark:1"]["check"]["command"] == ["/usr/lib/check", "1", "0", "{address}", "{port}"]
    dns = found["udp:[2001:db8::5]:53"]
    assert (dns["forward"], dns["flags"]) == ("tunnel", ["fallback", "one-packet", "port"])
    for words in (
        ("line 4: autoreload=yes", "systemctl reload"),
        ("line 18:", "its servers have different requests"),
        ("line 11: real=web.example.org:80 gate: left out",),
        ("line 12: fallback=", "spillover"),
        ("line 24: fwmark:1: scheduler rr only checks",),
        ("line 38:", "its check (ping) is not carried over"),
    ):
        assert said(remarks, *words), (words, remarks)
    assert not said(remarks, "hunter2"), "a password is not for terminals and logs"


def test_ipvsadm_save() -> None:
    found, remarks = services(RULES, rules)
    assert found["tcp:10.0.0.100:80"]["forward"] == "route"
    assert found["tcp:10.0.0.100:80"]["destination"] == [
        {"address": "10.1.0.2", "weight": 0},
        {"address": "10.1.0.1", "port": 8080, "weight": 100, "upper": 400, "lower": 350, "forward": "masquerade"},
    ]
    hashed = found["tcp:10.0.0.100:443"]
    assert (hashed["flags"], hashed["persistence_prefix"]) == (["fallback", "port"], 24)
    assert hashed["destination"][0]["tunnel"] == "gue"
    assert found["fwmark:7:ipv6"]["flags"] == ["one-packet"]
    assert said(remarks, "its persistence engine is left out: pe: sip: only works with UDP")
    assert said(remarks, "tunnel checksums")
    assert said(remarks, "10.1.0.2:80 has weight 0")
    assert said(remarks, "fwmark:7:ipv6: has no destination")


ALL: list[tuple[str, str, ModuleType]] = [
    ("keepalived.conf", KEEPALIVED, keepalived),
    ("ldirectord.cf", LDIRECTORD, ldirectord),
    ("ipvsadm-save", RULES, rules),
]


def command(*words: str | Path, text: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(w) for w in words], input=text)


@pytest.mark.parametrize(("name", "text", "_module"), ALL)
def test_what_is_written_is_what_master_check_takes(name: str, text: str, _module: ModuleType, tmp_path: Path) -> None:
    _, secret, _ = keys.create(tmp_path / "master")
    (tmp_path / "agents").mkdir()
    answer = command("import", name, "-", text=text)
    assert answer.exit_code == 4, answer.output
    path = tmp_path / "master.toml"
    path.write_text(f'key = "{secret}"\nenrolled = "{tmp_path}/agents"\n' + answer.stdout)
    checked = command("master", "check", "-c", path)
    assert checked.exit_code == 0, checked.output
    assert "services" in answer.stderr
    as_json = json.loads(command("import", "--json", name, "-", text=text).stdout)
    assert (as_json["schema"], as_json["toml"]) == (1, answer.stdout)
    assert len(as_json["remarks"]) == answer.stderr.count("\n") - 1


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("keepalived.conf", "}\n", "no virtual_server"),
        ("keepalived.conf", "", "no virtual_server"),
        ("keepalived.conf", LDIRECTORD, "no virtual_server"),
        ("ldirectord.cf", KEEPALIVED, "line 1"),
        ("ldirectord.cf", "", "no virtual="),
        ("ipvsadm-save", KEEPALIVED, "line 1"),
        ("ipvsadm-save", "", "no service"),
    ],
)
def test_a_file_of_another_kind_is_refused_in_a_line(name: str, text: str, error: str) -> None:
    answer = command("import", name, "-", text=text)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert error in answer.stderr and answer.stderr.count("\n") == 1


GOOD = "virtual_server 10.0.0.1 80 {\n protocol TCP\n real_server 10.1.0.1 80 {\n }\n}\n"


@pytest.mark.parametrize(
    ("text", "strict", "status", "toml"),
    [
        (GOOD, False, 0, True),
        (GOOD, True, 0, True),
        (GOOD.replace("protocol TCP", ""), True, 0, True),  # a note: keepalived takes it for UDP, and so do we
        (GOOD.replace("protocol TCP", "quorum 2"), False, 4, True),
        (GOOD.replace("protocol TCP", "quorum 2"), True, 4, False),
        ("virtual_server 10.0.0.1 80 {\n}\n", False, 1, False),
    ],
)
def test_the_exit_status_says_whether_anything_was_left_out(text: str, strict: bool, status: int, toml: bool) -> None:
    answer = command("import", *["--strict"] * strict, "keepalived.conf", "-", text=text)
    assert (answer.exit_code, "[[service]]" in answer.stdout) == (status, toml), answer.output
    as_json = command("import", *["--strict"] * strict, "--json", "keepalived.conf", "-", text=text)
    told = json.loads(as_json.stdout)
    assert (told["lossless"], "[[service]]" in told["toml"]) == (status != 4, toml)


def test_files_that_a_file_includes_are_found_from_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "keepalived.conf").write_text("include more/*.conf\ninclude /dev/zero\n" + GOOD)
    (tmp_path / "more" / "a.conf").write_text("include b.inc\n")
    (tmp_path / "more" / "b.inc").write_bytes(GOOD.replace("0.1 80", "0.2 80").encode() + b"# \xff\n")
    (tmp_path / "more" / "b.inc").chmod(0o644)
    answer = command("import", "keepalived.conf", tmp_path / "keepalived.conf")
    assert answer.stdout.count("[[service]]") == 2
    assert "/dev/zero: not a regular file" in answer.stderr
    from_stdin = command("import", "keepalived.conf", "-", text="include /etc/passwd\n" + GOOD)
    assert "include /etc/passwd: import that file by itself" in from_stdin.stderr


def test_a_file_without_end_is_refused() -> None:
    answer = command("import", "ldirectord.cf", "/dev/zero")
    assert answer.exit_code == 1
    assert "more than" in answer.stderr


def test_rules_keep_the_first_of_two_as_the_kernel_does() -> None:
    text = """\
-A -t 10.0.0.1:80 -s wrr
-a -t 10.0.0.1:80 -r 10.1.0.1:80 -g -w 1
-a -t 10.0.0.1:80 -r 10.1.0.1:80 -g -w 9
-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -g -w 9
-A -t 10.0.0.1:80 -s sed
-a -t 10.0.0.2:80 -r 10.1.0.1:80 -g -w 9
-a -t 10.0.0.1:80 -r 10.1.0.2:8080 -g -w 9
"""
    found, remarks = services(text, rules)
    only = found["tcp:10.0.0.1:80"]
    assert only["scheduler"] == "wrr"
    assert only["destination"] == [{"address": "10.1.0.1", "weight": 1}, {"address": "10.1.0.2", "weight": 9}]
    for words in (
        ("line 3:", "is listed twice: the kernel keeps the first"),
        ("line 4:", "is listed twice"),
        ("line 5:", "is listed twice"),
        ("line 6:", "before its service's"),
        ("line 7:", "port 80, as ipvsadm makes it"),
    ):
        assert said(remarks, *words), (words, remarks)


def test_names_of_services_are_those_of_the_host() -> None:
    text = "-A -u 10.0.0.1:domain -s rr\n-a -u 10.0.0.1:domain -r 10.1.0.1:domain -m\n-A -t 10.0.0.1:odd -s rr\n"
    found = rules.read(text, port_of=lambda name, protocol: {("domain", "udp"): 53}.get((name, protocol)))
    assert [str(s.key) for s in found.services] == ["udp:10.0.0.1:53"]
    assert found.services[0].destinations[0]["port"] == 53
    assert said([str(r) for r in found.remarks], "line 3: left out: odd: an unknown service name")


def _lines(text: str) -> st.SearchStrategy[str]:
    """Lines of a real file in any order, some of them with other words in their place."""
    words = st.sampled_from(["", "{", "}", "-1", "99999", "10.0.0.0/8", "::", '"', "virtual=x", "999999999999", "\x7f"])
    line = st.one_of(
        st.sampled_from(text.splitlines()),
        st.tuples(st.sampled_from(text.splitlines()), words, words).map(
            lambda t: t[0].replace("10.0.0.11", t[1]).replace("80", t[2])
        ),
        st.text(max_size=30),
    )
    return st.lists(line, max_size=60).map("\n".join)


@pytest.mark.parametrize(("_name", "text", "module"), ALL)
@settings(max_examples=2 * settings.default.max_examples)
@given(data=st.data())
def test_whatever_is_read_is_refused_in_a_line_or_gives_what_the_master_takes(
    _name: str, text: str, module: ModuleType, data: st.DataObject
) -> None:
    try:
        found = module.read(data.draw(_lines(text)))
    except ImportFormatError:
        return
    if found.services:
        parse(as_toml(found.services, "x\n y"), MasterConfig)


def test_a_persistence_engine_comes_over_where_it_has_an_effect() -> None:
    sip = "-A -u 10.0.0.100:5060 -s rr -p 120 --pe sip\n-a -u 10.0.0.100:5060 -r 10.1.0.1:5060 -m -w 1\n"
    found, remarks = services(sip, rules)
    assert found["udp:10.0.0.100:5060"]["pe"] == "sip" and not said(remarks, "engine")
    block = "virtual_server 10.0.0.100 5060 {\n lvs_method NAT\n lvs_sched rr\n protocol UDP\n %s\n"
    servers = " real_server 10.1.0.1 5060 { }\n}\n"
    found, remarks = services(block % "persistence_timeout 120\n persistence_engine sip" + servers, keepalived)
    assert found["udp:10.0.0.100:5060"]["pe"] == "sip" and not said(remarks, "engine")
    found, remarks = services(block % "persistence_timeout 120\n persistence_engine rtp" + servers, keepalived)
    assert "pe" not in found["udp:10.0.0.100:5060"] and said(
        remarks, "engine is left out: pe: 'rtp': expected one of sip"
    )
