"""`feedback doctor`: collects the facts of this machine; feedback.doctor judges them."""

from __future__ import annotations

import contextlib
import ctypes
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from ipaddress import IPv4Interface, ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from feedback.cli.asking import MASTER, SYNC, ask, directory_option, json_option, told
from feedback.cli.check import results
from feedback.cli.errors import Failure, Unreachable
from feedback.config import AGENT_PATH, MASTER_PATH, SYNC_PATH

if TYPE_CHECKING:
    from feedback.doctor import Facts, Finding, Interface
    from feedback.doctor.rulesets import Rule
    from feedback.ipvs.sysctl import Value
    from feedback.model import Address

TRACKING = ("nf_conntrack_max", "nf_conntrack_count", "nf_conntrack_tcp_loose")
HOST = ("net.ipv4.icmp_ratelimit", "net.ipv4.ip_forward", *(f"net.netfilter.{name}" for name in TRACKING))
RULES_SECONDS = 10.0  # that a firewall's own program may take to list its rules
USER = "feedback"  # of the units
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


@click.command()
@directory_option
@click.option(
    "--control", type=click.Path(path_type=Path), default=None, help=f"The master's socket; default {MASTER}."
)
@click.option("--netns", default=None, metavar="NAME", help="The director's network namespace.")
@json_option
def doctor(directory: Path, control: Path | None, netns: str | None, as_json: bool) -> None:
    """Find what is wrong on this machine, and print the command that fixes it. Changes nothing.

    On a director: the kernel module, IPVS's sysctls, schedulers, thresholds, persistence, the clock, keys, missing or
    silent agents, forgotten orders, ARP if two interfaces share a network, a stateful firewall, missing or colliding
    firewall marks, ranges that both directors would answer for, and the pair.
    On a real server: its agent's configuration, and ARP for a virtual address on lo.
    Exit status 1 if there is an error; warnings and advice do not count.
    """
    from feedback.doctor import Level, examine, verdict

    findings = examine(collect(directory, control, netns))
    if as_json:
        plain = [{"level": str(f.level), "area": f.area, "what": f.what, "mend": f.mend} for f in findings]
        told({"findings": plain, "verdict": verdict(findings)})
    else:
        for finding in findings:
            click.echo(f"{finding.level:<8} {finding.area}: {finding.what}\n         {finding.mend}")
        click.echo(verdict(findings))
    sys.exit(1 if any(f.level is Level.ERROR for f in findings) else 0)


def collect(directory: Path, control: Path | None, netns: str | None) -> Facts:
    """The facts of this machine, each part as far as it can be read."""
    from feedback.doctor import Configuration, Facts
    from feedback.ipvs import Client, IpvsError
    from feedback.ipvs.sysctl import read_all
    from feedback.ipvs.table import read_size

    found = [Configuration(r["path"], r["good"], r["text"]) for r in results(directory)]
    names = {Path(c.path).name for c in found}
    facts: dict[str, Any] = {"configurations": tuple(found), "now": time.time()}
    facts |= {"unreadable": _unreadable(directory)}
    facts |= {"clock_synchronised": _synchronised(), "directs": names != {AGENT_PATH.name}}
    with contextlib.suppress(IpvsError):
        facts["interfaces"] = _interfaces(netns)
    if facts["directs"]:
        facts |= _configured(directory / MASTER_PATH.name)
        facts |= _master(control or facts.pop("control", MASTER), wanted=MASTER_PATH.name in names)
        facts |= _sync(SYNC, wanted=SYNC_PATH.name in names)
        facts |= _steered(directory)
        facts.pop("control", None)
        try:
            with Client(netns=netns) as client:
                facts |= {"snapshot": client.snapshot().without_checks(), "timeouts": client.timeouts()}
            facts |= {"vs": read_all(netns), "table": read_size(netns), "host": _host(netns)}
            facts |= {"rules": rules(netns), "modules": _modules(), "conntrackd": _runs("conntrackd")}
        except IpvsError as error:
            facts["ipvs_problem"] = str(error)
    return Facts(**facts)


def _configured(path: Path) -> dict[str, Any]:
    """The contents of a good master.toml."""
    from feedback.config import ConfigError, MasterConfig, load, removes, service_key
    from feedback.ops import keys

    try:
        config = load(path, MasterConfig)
    except ConfigError:
        return {}
    facts: dict[str, Any] = {"control": config.control, "removes": removes(config)}
    facts["adopts"] = config.ownership == "weights"
    if config.ownership == "table":
        facts["owned"] = frozenset(str(service_key(s)) for s in config.service)
    try:
        by_key = keys.enrolled(config.enrolled).by_key
        facts["enrolled"] = frozenset(str(a) for e in by_key.values() for a in e.addresses)
    except keys.KeyFileError:
        pass  # the check has said it
    return facts


def _steered(directory: Path) -> dict[str, Any]:
    """Where a good master.toml has a match."""
    from feedback.config import ConfigError, MasterConfig, SyncConfig, load, marks
    from feedback.doctor import Steered
    from feedback.ipvs import IpvsError
    from feedback.ipvs.namespace import within

    try:
        config = load(directory / MASTER_PATH.name, MasterConfig)
        wanted = marks(config)
    except ConfigError:
        return {}
    if not wanted:
        return {}
    from feedback.cli.steer import keeper
    from feedback.steer.errors import SteerError

    moving: frozenset[Address] = frozenset()
    paired = False
    with contextlib.suppress(ConfigError):
        pair = load(directory / SYNC_PATH.name, SyncConfig)
        moving, paired = frozenset(ip_interface(a.address).ip for a in pair.address), True
    place: dict[str, Any] = {"marks": wanted, "table": config.steer.table, "priority": config.steer.priority}
    try:
        kept = keeper(config)
        found: dict[str, Any] = {"lacking": kept.lacking(), "foreign_marks": kept.foreign()}
        found |= within(config.netns, lambda: _routing(config.steer.table))
    except (SteerError, IpvsError) as error:
        found = {"problem": str(error)}
    return {"steered": Steered(**place, **found, moving=moving, paired=paired)}


def _routing(table: int) -> dict[str, Any]:
    """The routing of this thread's namespace, without our own part. Raises SteerError."""
    from feedback.steer.plan import PROTOCOL
    from feedback.steer.routing import LOCAL, Routing

    with Routing() as routing:
        policy = tuple(rule for rule in routing.policy() if rule.protocol != PROTOCOL)
        strangers = tuple(route for route in routing.routes(table=table) if route.protocol != PROTOCOL)
        local = tuple(route for route in routing.routes(type=LOCAL) if route.table != table)
    settings = {"valid_marks": _switched_on("src_valid_mark"), "proxies": _switched_on("proxy_arp")}
    return {"policy": policy, "strangers": strangers, "local": local} | settings


def _switched_on(name: str) -> tuple[str, ...]:
    """The interfaces, or `all`, where this setting is on."""
    found = []
    for path in sorted(Path("/proc/sys/net/ipv4/conf").glob(f"*/{name}")):
        with contextlib.suppress(OSError):  # the interface went away meanwhile
            found += [path.parent.name] if path.read_text().strip() != "0" else []
    return tuple(found)


def _unreadable(directory: Path) -> tuple[str, ...]:
    """Secrets that do not belong to the units' user, if there is one."""
    from feedback.config import AgentConfig, ConfigError, MasterConfig, SyncConfig, load

    try:
        user = pwd.getpwnam(USER).pw_uid
    except KeyError:
        return ()
    secrets: list[Path] = []
    with contextlib.suppress(ConfigError):
        secrets.append(load(directory / MASTER_PATH.name, MasterConfig).key)
    with contextlib.suppress(ConfigError):
        secrets.append(load(directory / AGENT_PATH.name, AgentConfig).key)
    with contextlib.suppress(ConfigError):
        secrets.append(load(directory / SYNC_PATH.name, SyncConfig).secret)
    return tuple(str(path) for path in secrets if path.exists() and path.stat().st_uid != user)


def _master(control: Path, *, wanted: bool) -> dict[str, Any]:
    try:
        return {"status": ask(control, "status")}
    except Unreachable as error:
        return {"master_problem": error.message} if wanted else {}
    except Failure as error:
        return {"master_problem": "" if "standby" in error.message else error.message}


def _sync(control: Path, *, wanted: bool) -> dict[str, Any]:
    from feedback.doctor import Level

    try:
        answer = ask(control, "doctor", "feedback sync")
    except Unreachable as error:
        return {"sync_problem": error.message} if wanted else {}
    except Failure as error:
        return {"sync_problem": error.message}
    facts: dict[str, Any] = {"sync": tuple(_finding(Level(f["level"]), f) for f in answer["findings"])}
    with contextlib.suppress(Failure):
        status = ask(control, "status", "feedback sync")
        facts |= {"tracking": status["tracking"], "ledger": (status["replica"]["ledger"] or {}).get("connections", 0)}
    return facts


def _finding(level: Any, found: Mapping[str, str]) -> Finding:
    from feedback.doctor import Finding

    return Finding(level, "pair", found["what"], found["mend"])


def _host(netns: str | None) -> dict[str, Value]:
    from feedback.ipvs.namespace import within

    def read() -> dict[str, Value]:
        found: dict[str, Value] = {}
        for name in HOST:
            path = Path("/proc/sys", *name.split("."))
            if path.exists():
                found[name] = int(path.read_text())
        return found

    return within(netns, read)


def rules(netns: str | None) -> tuple[Rule, ...]:
    """The rules of every firewall that can be asked: both kinds of iptables, and nftables. Changes nothing."""
    from feedback.doctor.rulesets import of_iptables, of_nftables
    from feedback.ipvs.namespace import within

    found: list[Rule] = []
    for kind in ("nft", "legacy"):
        for family, name in ((4, "iptables"), (6, "ip6tables")):
            found += of_iptables(within(netns, partial(_printed, f"{name}-{kind}-save")), family)
    return (*found, *of_nftables(within(netns, partial(_printed, "nft", "-j", "list", "ruleset"))))


def _printed(program: str, *arguments: str) -> str:
    """Nothing if it is not installed, or refuses."""
    path = shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        return ""
    try:
        done = subprocess.run([path, *arguments], capture_output=True, timeout=RULES_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def _modules() -> frozenset[str]:
    root = Path("/sys/module")
    return frozenset(path.name for path in root.iterdir()) if root.is_dir() else frozenset()


def _runs(name: str) -> bool:
    import psutil

    return any(process.info["name"] == name for process in psutil.process_iter(["name"]))


def _interfaces(netns: str | None) -> tuple[Interface, ...]:
    """Their IPv4 addresses, and how they answer ARP."""
    import socket

    import psutil

    from feedback.doctor import Interface
    from feedback.ipvs.namespace import within

    conf = Path("/proc/sys/net/ipv4/conf")

    def setting(name: str, key: str) -> int:
        try:
            return max(int((conf / which / key).read_text()) for which in ("all", name))
        except (OSError, ValueError):  # it went away meanwhile
            return 2

    def read() -> tuple[Interface, ...]:
        found = []
        for name, addresses in sorted(psutil.net_if_addrs().items()):
            name = name.partition(":")[0]  # an alias, as `eth0:1`
            mine = [IPv4Interface(f"{a.address}/{a.netmask}") for a in addresses if a.family is socket.AF_INET]
            found.append(Interface(name, tuple(mine), setting(name, "arp_ignore"), setting(name, "arp_announce")))
        return tuple(found)

    return within(netns, read)


def _synchronised() -> bool | None:
    """The kernel's value; None if it has none."""
    buffer = ctypes.create_string_buffer(512)  # struct timex, zeroed: only read
    try:
        state = int(ctypes.CDLL(None, use_errno=True).adjtimex(buffer))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != TIME_ERROR
