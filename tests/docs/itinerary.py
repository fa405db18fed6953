"""The way through the guides: which block of commands is typed on which machine, and what the sentences between them
tell people to do by hand. Data for test_followed.py, which walks it.

What is typed is what the page says, but for two tables: INSTEAD, a line that is put in the place of another, and
ELSEWHERE, what is not typed here at all. Each has its reason beside it, and each is to be kept short.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.docs.machines import ADDRESSES, Site
from tests.docs.pages import ROOT, blocks

# Seconds, so it is typed on the first machine only.
ONCE = {"python3 -m venv /opt/lvs-feedback"}

DIRECTORS, SERVERS = ("d1", "d2"), ("rs1", "rs2")
ALL = tuple(name for name in ADDRESSES if name != "client")

# Line as it stands, after its comment is gone -> what is typed for it.
INSTEAD = {
    # There is no PyPI in the lab. `make setup` and `make deb` install by pip.
    "python3 -m venv /opt/lvs-feedback": "python3 -m venv --without-pip /opt/lvs-feedback",
    "/opt/lvs-feedback/bin/pip install .": "install -D /opt/feedback/launcher /opt/lvs-feedback/bin/feedback",
    # The same, in a time that a test has.
    "timeout 30 sh -c 'while :; do :; done'": "timeout 3 sh -c 'while :; do :; done'",
    "feedback record -o day.jsonl.gz --for 24h": "feedback record -o day.jsonl.gz --for 4s",
    "feedback record -o trace.gz --for 10m": "feedback record -o trace.gz --for 2s",
    "feedback simulate": "feedback simulate --scenario mine.toml --law capacity --law orca",
    "feedback simulate --case bursts --law capacity": "feedback simulate --scenario mine.toml --law capacity",
    "feedback simulate --case bursts --servers 200": "feedback simulate --scenario mine.toml --servers 12 --law pid",
    "feedback simulate --suite --json --picture laws.svg": "feedback simulate --scenario mine.toml --law pid --json"
    " --picture laws.svg",
    "feedback simulate --scenario mine.toml --seeds 3": "feedback simulate --scenario mine.toml --seeds 2 --law pid",
    "feedback simulate --suite --picture docs/laws.png": "feedback simulate --scenario mine.toml --law pid"
    " --picture docs/laws.png",
}

# What is not typed here, word for word, and where it is tried.
ELSEWHERE = {
    "feedback keys token rs1 --rip 10.0.0.11 --role NAME": "tests/master/test_joining.py",
    "feedback keys token --role": "the same",
    "make demo": "a lab of its own: tests/lab/test_command.py",
    "make test": "this",
    "make test-all": "this, and more",
    "make check": "the part of it without a kernel",
    "make bench": "measures for minutes; run when its figures are published",
    "make deb": "needs PyPI; it tries its packages by debian/tests/installation",
    "make rpm": "the same: tests/packages/test_built.py",
    "make pyz": "the same",
    "make rpm AGENT_PYTHON=3.12 DIRECTOR_PYTHON=3.12": "the same, for other interpreters",
    "apt-get install ./lvs-feedback-agent_0.1.0_amd64.deb": "debian/tests/installation installs it, and over itself",
    "apt-get install ./lvs-feedback_0.1.0_amd64.deb": "debian/tests/installation installs it, and over itself",
    "apt-get install python3-venv": "needs Debian's mirror; the Makefile installs it",
    "feedback lab run hog --source exporter": "the same",
    "feedback lab run hog --source none": "the same",
    "feedback lab run hog": "the scenarios: `make test` and tests/lab run the lab's machinery",
    "make test-packages": "needs PyPI and mounts; minutes",
    "make test-kernels": "hours; `make test` boots one kernel of it",
    "feedback lab run takeover --kernel qemu:6.1": "the same: `make test-kernels` runs it",
    "feedback lab run hog --kernel qemu:newest --processors 2": "the same",
    "feedback lab run takeover --kernel qemu:newest --second-kernel uml": "the same",
    "feedback lab list": "tests/lab/test_command.py",
    "feedback lab run takeover": "the same",
    "feedback lab run takeover --firewall strict": "the same",
    "feedback lab run protocols": "a scenario; tests/lab/test_protocols.py",
    "feedback lab run protocols --firewall strict": "the same",
    "feedback lab run firewall": "a scenario; tests/docs/test_firewall.py and tests/sync/conntrack on the real kernel",
    "feedback simulate --case starved": "tests/simulate/test_verdict.py",
    "feedback simulate --law exporter --law 'no agent' --case cold-start": "tests/simulate/test_sources.py",
    "feedback simulate --case wlc-memory": "tests/simulate/test_verdict.py",
    "promtool test rules contrib/prometheus/feedback.test.yml": "tests/web/test_prometheus.py",
    "ssh -L 7480:127.0.0.1:7480 director": "no sshd in the lab",
    "python -m bench.hostile": "attacks and a million messages; run when its figures are published",
    "python -m tests.fuzz 600": "tests/fuzz runs the same for seconds",
    "ipvsadm --set 0 2 0": "a remark on what ipvsadm can",
    "feedback lab run deadflows": "a scenario; tests/lab/test_waiting_figures.py",
    "python -m bench.checks": "measures; run when its figures are published",
    "python -m bench.cuts": "measures, as root, on a machine that has nothing else to do",
    "feedback lab run writers": "the same",
    "feedback lab run range": "a scenario; tests/lab/test_ranges.py",
    "feedback lab run standin": "a scenario; tests/lab/test_standin.py",
    "feedback drain 10.0.0.11 --then-cut 10m": "tests/master/test_orders.py; what is cut: tests/lab/test_cuts_real.py",
    "feedback cut 10.0.0.11": "tests/cli/test_orders.py, tests/lab/test_cuts_real.py",
    "feedback cut 10.0.0.11 --dry-run": "the same",
    "feedback cut 10.0.0.11 --client 10.9.0.0/16": "the same",
    "feedback promote 10.0.0.12": "tests/cli/test_orders.py, and the scenario writers",
}

# Lines that go on until a key is pressed: what is to be seen first, the key.
WATCHED = {
    "feedback top": ("10.0.0.11", "q"),
    "feedback events --follow": ('"kind"', "\x03"),
    "feedback events --follow --kind foreign-edit": ('"theirs": 7', "\x03"),
    "feedback sync events --follow": ('"new"', "\x03"),
}
# Daemons in the foreground: they go on.
DAEMONS = {"feedback agent check && feedback agent", "feedback master check && feedback master"}
# Lines whose exit status says something else than 0: `timeout` that it has ended what it ran.
STATUS = {
    "timeout 30 sh -c 'while :; do :; done'": 124,
    "feedback import ldirectord.cf /etc/ha.d/ldirectord.cf": 4,  # its fallback server is left out
}


@dataclass(frozen=True, slots=True)
class Stop:
    """A block of commands, known by its page and first line, and typed line by line on each machine of `on`.

    `by_hand` is done before. `shows`: patterns of what is to be seen. `soon`: lines to wait for.
    `sooner`: why it is visited out of the page's order.
    """

    page: str
    first: str
    on: tuple[str, ...] = ("d1",)
    by_hand: Callable[[Site], None] | None = None
    shows: tuple[str, ...] = ()
    soon: tuple[str, ...] = ()
    sooner: str = ""

    def __str__(self) -> str:
        return f"{self.page}-{self.first}"


@dataclass(frozen=True, slots=True)
class Also:
    """What stands in a sentence."""

    line: str
    on: str = "d1"
    by_hand: Callable[[Site], None] | None = None
    shows: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"also-{self.line}"


def configuration(page: str, containing: str) -> str:
    """The page's TOML that has this in it."""
    (found,) = (b.text for b in blocks(ROOT / "docs" / page) if b.language == "toml" and containing in b.text)
    return found + "\n"


def example(path: str) -> str:
    return (ROOT / path).read_text()


FIRST = configuration("first-director.md", "we make the service below")


def web_servers(site: Site) -> None:
    """A web server that answers at port 80 on each real server."""
    for name in (*SERVERS, "rs3"):
        unit = "[Service]\nExecStart=/usr/bin/python3 -m http.server 80 --directory /srv\n"
        site[name].write("/etc/systemd/system/nginx.service", unit)
        site[name].must("systemctl start nginx")


def first_configuration(site: Site) -> None:
    site["d1"].write("/etc/feedback/master.toml", FIRST)


def as_if_new(*names: str) -> Callable[[Site], None]:
    """What was tried there before is gone."""

    def clear(site: Site) -> None:
        for name in names:
            site[name].stop()
            site[name].run("systemctl stop feedback-agent feedback-master keepalived")
            site[name].must("rm -rf /etc/feedback/* /var/lib/feedback/* && ipvsadm -C")
            site[name].must("systemd-tmpfiles --create feedback.conf")

    return clear


def web_servers_and_readme(site: Site) -> None:
    web_servers(site)
    first_configuration(site)


def named_cgroup(site: Site) -> None:
    """The page's agent.toml, with the public key that `join` wrote. Before, `check` says what the page's line is."""
    written = re.search(r'public_key = "(.*)"', site["rs1"].read("/etc/feedback/agent.toml"))
    assert written
    page = configuration("first-director.md", 'name = "rs1"')
    page = re.sub(r'public_key = ".*"', lambda _: written[0], page)
    line = re.search(r'service_cgroup = "(.*)"\n', page)
    assert line
    site["rs1"].write("/etc/feedback/agent.toml", page.replace(line[0], ""))
    said = site["rs1"].must("feedback agent check")
    assert f"port 80: the listener is in {line[1]}:" in said, said
    site["rs1"].write("/etc/feedback/agent.toml", page)


def owner(site: Site) -> None:
    """keepalived owns the services there, with our example; the whole of master.toml is the page's."""
    d2 = site["d2"]
    d2.must("mkdir -p /etc/keepalived /etc/ha.d")
    d2.write("/etc/keepalived/keepalived.conf", example("contrib/keepalived/keepalived.conf"))
    d2.write("/etc/ha.d/ldirectord.cf", example("contrib/ldirectord/ldirectord.cf"))
    d2.must("systemctl start keepalived")
    d2.soon("grep -q 0A00000B:0050 /proc/net/ip_vs")
    d2.write(
        "/etc/feedback/master.toml", configuration("first-director.md", '# /etc/feedback/master.toml\nownership = "w')
    )


def credential(site: Site) -> None:
    d1 = site["d1"]
    d1.write("/etc/feedback/master.toml", 'key = "credential:master.key_secret"\n' + FIRST)
    d1.must("chown root:root /etc/feedback/master.key_secret")


def second_director(site: Site) -> None:
    as_if_new("d2")(site)
    site["d2"].must("feedback keys new /etc/feedback/master && systemd-tmpfiles --create feedback.conf")


def pair(site: Site) -> None:
    """The secret is copied, and each has its sync.toml and its master's `role`; the VIP is the pair's from now on."""
    d1, d2 = site["d1"], site["d2"]
    d2.write("/etc/feedback/pair.key", d1.read("/etc/feedback/pair.key"))
    d2.must("chmod 600 /etc/feedback/pair.key")
    text = example("examples/sync.toml").replace("10.0.0.2:", "10.0.0.1:").replace("10.0.0.3:", "10.0.0.2:")
    d1.write("/etc/feedback/sync.toml", text)
    turned = re.sub(r'local = (".*")\npeer = (".*")', r"local = \2\npeer = \1", text)
    turned = turned.replace('name = "d1"\npeer = "d2"', 'name = "d2"\npeer = "d1"').replace(
        "priority = 150", "priority = 100"
    )
    d2.write("/etc/feedback/sync.toml", turned)
    for director in (d1, d2):
        director.write("/etc/feedback/master.toml", 'role = "/run/feedback/role.json"\n' + FIRST)
    d1.must("rm /etc/systemd/system/feedback-master.service.d/*.conf && systemctl daemon-reload")


def agents_of_both(site: Site) -> None:
    """The other director's master is told of the agents that are there: of one as operations.md says it."""
    token = site["d2"].must("feedback keys token rs1 --rip 10.0.0.11").split()[-1]
    site["rs1"].must(f"echo '{token}' | feedback keys join --master tcp://10.0.0.2:7433")
    site["rs1"].must("feedback agent check && systemctl reload feedback-agent")
    site["d2"].write("rs2.key", site["rs2"].read("/etc/feedback/agent.key"))


def second_master_of_rs2(site: Site) -> None:
    """And of one without a token."""
    key = site["d2"].must("feedback keys show /etc/feedback/master.key").strip()
    more = f"\n[[master]]\nendpoint = 'tcp://10.0.0.2:7433'\npublic_key = '{key}'\n"
    site["rs2"].write("/etc/feedback/agent.toml", site["rs2"].read("/etc/feedback/agent.toml") + more)
    site["rs2"].must("feedback agent check && systemctl reload feedback-agent")
    site["d2"].must("systemctl reload feedback-master")


THIRD = '\n[[service.destination]]\naddress = "10.0.0.13"\n'


def third_server(site: Site) -> None:
    for name in DIRECTORS:
        site[name].edit("/etc/feedback/master.toml", ("\n[service.check]", THIRD + "\n[service.check]"))


def third_server_taken_out(site: Site) -> None:
    for name in DIRECTORS:
        site[name].edit("/etc/feedback/master.toml", (THIRD, ""))


def next_key_of_rs1(site: Site) -> None:
    site["rs1"].must("feedback keys new /etc/feedback/next")
    site["d1"].write("agent.key", site["rs1"].read("/etc/feedback/next.key"))


def foreign_edit(site: Site) -> None:
    site["d1"].must("ipvsadm -e -t 10.0.0.100:80 -r 10.0.0.12:80 -g -w 7")


def own_case(site: Site) -> None:
    """The page's case, in less time."""
    text = configuration("simulate.md", 'name = "evening"')
    for old, new in (
        ("seconds = 120", "seconds = 6"),
        ("seconds = 30", "seconds = 1"),
        ("seconds = 60", "seconds = 3"),
    ):
        text = text.replace(old, new)
    text = text.replace("count = 6", "count = 2").replace("servers = [6]", "servers = [2]")
    site["d1"].write("mine.toml", text)
    site["d1"].must("mkdir -p docs")


def range_of_addresses(site: Site) -> None:
    """The page's services behind those that are there. The lab's kernel has the older iptables only."""
    text = configuration("ranges.md", "fwmark:7:ipv6")
    for name in DIRECTORS:
        director = site[name]
        director.write("/etc/feedback/master.toml", director.read("/etc/feedback/master.toml") + text)
        directory = "/etc/systemd/system/feedback-master.service.d"
        director.must(f"mkdir -p {directory}")
        director.write(f"{directory}/iptables-legacy.conf", example("examples/iptables-legacy.conf"))
        director.must("systemctl daemon-reload && systemctl restart feedback-master")


COLUMNS = (
    r"Prot LocalAddress:Port Scheduler Flags",
    r"-> RemoteAddress:Port +Forward Weight ActiveConn InActConn +Base +Target +Load +Cap/s +Age State",
)
JOIN = "feedback keys join --master tcp://10.0.0.1:7433"
JOIN_OTHER = "feedback keys join --master tcp://10.0.0.2:7433"

ITINERARY: tuple[Stop | Also, ...] = (
    Stop("install.md", "modprobe ip_vs"),
    Stop("install.md", "python3 -m venv /opt/lvs-feedback", on=ALL),
    Stop("install.md", "systemd-tmpfiles --create feedback.conf"),
    Stop("install.md", "feedback completion bash > /etc/bash_completion.d/feedback", sooner="needs no daemon"),
    Stop(
        "README.md",
        "feedback keys new /etc/feedback/master",
        by_hand=web_servers_and_readme,
        shows=COLUMNS,
    ),
    Also("feedback explain 10.0.0.11", shows=("weight", r"\n  law +", r"\n  actuate +")),
    Stop("first-director.md", "modprobe ip_vs", by_hand=as_if_new("d1", "rs1")),
    Stop("first-director.md", "ip address add 10.0.0.100/32 dev eth0"),
    Stop("first-director.md", "feedback keys new /etc/feedback/master"),
    Stop(
        "first-director.md",
        "feedback master check",
        by_hand=first_configuration,
        soon=("feedback show",),  # the weights just written are seen at the second look
        shows=(*COLUMNS, r"10.0.0.11:80 +Route +100 .* never", r"10.0.0.12:80 +Route +100 .* never"),
    ),
    Stop("first-director.md", "sysctl -w net.ipv4.conf.all.arp_ignore=1", on=SERVERS),
    Stop("first-director.md", "feedback keys token rs1 --rip 10.0.0.11"),
    Stop("first-director.md", JOIN, on=SERVERS),
    Stop(
        "first-director.md",
        "feedback show",
        shows=(*COLUMNS, r"10.0.0.11:80 +Route .* fresh", r"10.0.0.12:80 .* fresh"),
    ),
    Stop("first-director.md", "timeout 30 sh -c", on=("rs1",)),
    Stop("first-director.md", "feedback agent check", on=("rs1",), by_hand=named_cgroup),
    Stop("first-director.md", "feedback keys new /etc/feedback/master", on=("d2",), by_hand=owner),
    Also("feedback show", on="d2", shows=(*COLUMNS, r"10.0.0.11:80 +Route")),
    Stop("first-director.md", "feedback import keepalived.conf", on=("d2",), shows=(r"\[\[service\]\]",)),
    Stop("console.md", "feedback import keepalived.conf", on=("d2",), sooner="keepalived's configuration is here"),
    Also("feedback master check", on="d2"),
    Also("systemctl enable --now feedback-master", on="d2"),
    Stop("install.md", "mkdir -p /etc/systemd/system/feedback-master.service.d", by_hand=credential),
    Also("systemctl status feedback-master", shows=(r"active \(running\)",)),
    Stop("failure.md", "mkdir -p /etc/systemd/system/feedback-master.service.d"),
    Stop("sync.md", "ip address del 10.0.0.100/32", by_hand=second_director),
    Stop("sync.md", "feedback keys pair"),
    Stop("sync.md", "systemd-tmpfiles --create feedback.conf", on=DIRECTORS, by_hand=pair),
    Also("feedback keys enroll rs2 --key rs2.key --rip 10.0.0.12", on="d2", by_hand=agents_of_both),
    Also("feedback keys show /etc/feedback/master.key", on="d2", by_hand=second_master_of_rs2),
    Stop("sync.md", "feedback sync doctor", on=DIRECTORS, soon=("feedback sync doctor",)),
    Also("feedback sync status", shows=("active", "d2")),
    Also("feedback sync resync", on="d2"),
    Also("feedback sync events --follow"),
    Stop("operations.md", "feedback show", shows=COLUMNS),
    Stop("operations.md", "feedback drain 10.0.0.11 --wait --reason"),
    Stop("operations.md", "feedback override 10.0.0.11 50"),
    Stop("operations.md", "feedback pause --for 1h"),
    Stop("operations.md", "feedback keys token rs3 --rip 10.0.0.13"),
    Stop("operations.md", JOIN, on=("rs3",)),
    Stop("operations.md", "feedback master check", on=DIRECTORS, by_hand=third_server),
    Stop("operations.md", "feedback keys token rs3 --rip 10.0.0.13", on=("d2",)),
    Stop("operations.md", JOIN_OTHER, on=("rs3",)),
    Stop("operations.md", "feedback drain 10.0.0.13 --wait"),
    Stop("operations.md", "feedback master check", on=DIRECTORS, by_hand=third_server_taken_out),
    Also("feedback keys token rs1"),
    Also(f"{JOIN} --new-key", on="rs1"),
    Also("feedback keys token rs1", on="d2"),
    Also(JOIN_OTHER, on="rs1"),
    Also("systemctl reload feedback-agent", on="rs1"),
    Also("systemctl try-restart feedback-agent feedback-master feedback-sync", on="rs1"),
    Also("systemctl status feedback-agent", on="rs1", shows=(r"active \(running\)",)),
    Stop("operations.md", "feedback keys list", by_hand=next_key_of_rs1, shows=("rs1", "10.0.0.12")),
    Stop("operations.md", "apt-get install ./lvs-feedback_0.1.0_amd64.deb"),
    Stop("operations.md", "feedback sync doctor"),
    Stop("operations.md", "feedback sync doctor"),
    Stop("operations.md", "systemctl start feedback-sync", soon=("feedback sync status",), shows=("complete",)),
    Stop("operations.md", "tar -C / -czf /root/feedback-backup.tar.gz", on=("d2",)),
    Stop("operations.md", "feedback restore --dry-run", on=("d2",)),
    Also("feedback sync handover", on="d2"),
    Stop("console.md", "feedback drain 10.0.0.11 --wait", sooner="the import stands last on its page"),
    Stop("console.md", "feedback save > table.rules"),
    Also("feedback events --follow --kind foreign-edit", by_hand=foreign_edit),
    Also("feedback events --kind foreign-edit", shows=('"theirs": 7',)),
    Also("ipvsadm -e -t 10.0.0.100:80 -r 10.0.0.11:80 -g -w 100"),
    Also("ipvsadm -Ln", shows=("10.0.0.11:80",)),
    Also("ipvsadm -S"),
    Also("feedback show --json", shows=(r'"schema"',)),
    Also("feedback show --kernel", shows=("10.0.0.12:80",)),
    Also("feedback check"),
    Also("feedback orders"),
    Also("feedback drain --help"),
    Also("feedback completion zsh"),
    Also("feedback completion fish"),
    Also(
        "systemd-analyze security feedback-master", shows=(r"level for feedback-master.service: [01]\.\d OK|: 2\.0 OK",)
    ),
    Also("feedback record -o trace.gz --for 10m"),
    Stop("simulate.md", "feedback record -o day.jsonl.gz", sooner="the block above it needs its file"),
    Stop("simulate.md", "feedback simulate", by_hand=own_case),
    Stop("laws.md", "feedback simulate --suite"),
    Stop(
        "ranges.md",
        "feedback check",
        on=DIRECTORS,
        by_hand=range_of_addresses,
        soon=("feedback steer show",),
        shows=("mark 7 .*203.0.113.0/24 tcp 80,443,8000-8100", "iptables-legacy rules"),
    ),
    Stop("ranges.md", "ip route add local 203.0.113.0/24 dev lo", on=SERVERS),
    Stop("ranges.md", "feedback steer remove", on=DIRECTORS, shows=("no mark, rule or route of ours remains",)),
    Also("feedback keys revoke rs1; systemctl reload feedback-master"),
    Also("systemctl stop feedback-master"),
    # Only now: a master that runs would make its service again meanwhile.
    Also("feedback save >all.rules && ipvsadm -C && ipvsadm -R <all.rules"),
)
