"""The owners themselves agree: what keepalived and ldirectord make of a file is the table that we read in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from feedback.config import MasterConfig, parse, to_destination, to_service
from feedback.importers import as_toml, keepalived, ldirectord
from feedback.ipvs.difference import Rules, Table, difference, of_snapshot
from feedback.ipvs.text import format_edit
from feedback.model import Snapshot
from tests.ipvs import conftest
from tests.ipvs.conftest import RealDirector

netns, real = conftest.netns, conftest.real  # fixtures

pytestmark = pytest.mark.lab

DEADLINE_SECONDS = 60.0

KEEPALIVED = """\
global_defs {
    router_id test
}
$PORT=80
virtual_server 10.0.0.100 $PORT {
    lb_algo wlc
    lb_kind DR
    persistence_timeout 300
    persistence_granularity 255.255.255.0
    protocol TCP
    real_server 10.1.0.1 80 {
        weight 10
        uthreshold 400
        lthreshold 350
    }
    real_server 10.1.0.2 80 { weight 0 }
    real_server 10.1.0.3 8080 {
        lvs_method TUN type gue port 6080
    }
}
virtual_server_group MORE {
    10.0.0.101-103 25
    10.0.0.104/31 26
    fwmark 7
}
virtual_server group MORE {
    protocol TCP
    lvs_sched wrr
    real_server 10.1.0.1 25 { weight 3 }
    real_server 10.1.0.2 25
    {
    }
}
virtual_server 10.0.0.100 443 {
    lvs_sched mh
    mh-port
    mh-fallback
    lvs_method NAT
    persistence_timeout
    real_server 10.1.0.1 443 { weight 1 }
}
virtual_server 2001:db8::100 53 {
    lb_algo rr
    lb_kind DR
    protocol UDP
    ops
    real_server 2001:db8::11 53 { weight 7 }
}
"""

LDIRECTORD = """\
checkinterval=1
logfile="/dev/null"
quiescent=no

virtual=10.0.0.100:80
\treal=10.1.0.1->10.1.0.3:80 gate 10
\treal=10.1.0.20:8080 masq 5
\tscheduler=wlc
\tpersistent=600
\tnetmask=255.255.255.0
\tprotocol=tcp
\tchecktype=on

virtual=7
\treal=10.1.0.11:80 gate
\tprotocol=fwm
\tchecktype=on

virtual=10.0.0.100:domain
\treal=10.1.0.1:53 ipip 3
\tscheduler=sh
\tops=yes
\tchecktype=on
"""


def table(text: str, module: ModuleType) -> Table:
    config = parse(as_toml(module.read(text).services, "x"), MasterConfig)
    found: Table = {}
    for service in config.service:
        made = to_service(service)
        found[made.key] = Rules(made, tuple(to_destination(d, service) for d in service.destination))
    return found


def destinations(snapshot: Snapshot) -> int:
    return sum(len(s.destinations) for s in snapshot.services)


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def same(real: RealDirector, wanted: Table) -> None:
    """Once the owner has made all of it."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while edits := difference(wanted, of_snapshot(real.kernel.snapshot())):
        assert time.monotonic() < deadline, [format_edit(edit) for edit in edits]
        time.sleep(0.1)


def test_keepalived_makes_the_table_that_we_read(real: RealDirector, tmp_path: Path) -> None:
    path = tmp_path / "keepalived.conf"
    path.write_text(KEEPALIVED)
    pids = [f"-{option}{tmp_path}/{option}.pid" for option in "pc"]
    with running("ip", "netns", "exec", real.netns, "keepalived", "-C", "-n", "-l", "-G", f"-f{path}", *pids):
        same(real, table(KEEPALIVED, keepalived))
        assert destinations(real.kernel.snapshot()) == 17


@pytest.mark.skipif(shutil.which("ldirectord") is None, reason="ldirectord is not installed")
def test_ldirectord_makes_the_table_that_we_read(real: RealDirector, tmp_path: Path) -> None:
    path = tmp_path / "test.cf"
    path.write_text(LDIRECTORD)
    with running("ip", "netns", "exec", real.netns, "ldirectord", "-d", str(path), "start"):
        same(real, table(LDIRECTORD, ldirectord))
        assert destinations(real.kernel.snapshot()) == 6
