"""The owners themselves agree: what keepalived, ldirectord and ipvsadm make of a file is the table that we read in it,
and what they ask is what we ask. Where it is not, the importer has said so.

Each file of the corpus is given to the real program in the lab's guest. DIFFERENT has the edits that would make their
table of ours, all of them known and each of them remarked.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from feedback.cli.imports import read_file
from feedback.config import MasterConfig, parse, to_destination, to_service
from feedback.importers import Imported, as_toml
from feedback.ipvs.difference import Rules, Table, applied, difference
from feedback.ipvs.text import format_edit, parse_line
from feedback.model import AddService, Edit, ServiceKey, SetService
from tests.importers import dump, owners
from tests.importers.owners import Site

CORPUS = Path(__file__).parent / "corpus"
KINDS = {
    "keepalived": ("keepalived.conf", "*.conf", owners.keepalived),
    "ldirectord": ("ldirectord.cf", "*.cf", owners.ldirectord),
    "ipvsadm": ("ipvsadm-save", "*.rules", owners.ipvsadm),
}
# What `make test` has time for.
QUICK = {"keepalived/ten-years", "keepalived/templates", "keepalived/groups", "keepalived/comments"}
QUICK |= {"keepalived/check-http", "ldirectord/checks", "ipvsadm/names", "ipvsadm/twice"}
DIFFERENT = {
    "keepalived/empty-values": ["-D -t 10.0.0.100:80"],  # it does not start with it
    "keepalived/engine": ["-E -t 10.0.0.101:5060 -s rr -p 120 --pe sip"],  # where it looks into nothing
    "keepalived/persistence": ["-E -t 10.0.0.104:80 -s wlc -p 360 -M 0.0.0.24"],
    "keepalived/persistence-odd": ["-E -t 10.0.0.100:80 -s wlc -p 100 -M 255.0.255.0"],
    "keepalived/quorum-lost": [
        "-a -t 10.0.0.100:80 -r 10.1.0.9:80 -g -w 1",
        "-d -t 10.0.0.100:80 -r 10.1.0.1:80",
    ],
    "keepalived/sorry": ["-a -t 10.0.0.100:80 -r 10.1.0.9:80 -m -w 0"],
    # The kernel refuses a lower threshold without a higher one, and the server with it.
    "keepalived/thresholds": ["-d -t 10.0.0.100:80 -r 10.1.0.4:80"],
    "keepalived/thresholds-odd": ["-d -t 10.0.0.100:80 -r 10.1.0.1:80"],
    "keepalived/tunnel-checksum": [
        "-e -t 10.0.0.100:80 -r 10.1.0.1:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum",
        "-e -t 10.0.0.100:80 -r 10.1.0.2:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum",
    ],
    "keepalived/unknown-block": ["-d -t 10.0.0.100:80 -r 10.1.0.2:80"],
    "ldirectord/blank-inside": ["-D -t 10.0.0.100:80", "-D -t 10.0.0.101:80"],
    "ldirectord/comment-behind-global": ["-D -t 10.0.0.100:80"],
    "ldirectord/flags-wrong": [
        "-D -t 10.0.0.102:80",
        "-D -t 10.0.0.103:80",
        "-D -t 10.0.0.104:80",
        "-E -t 10.0.0.105:80 -s wrr -p 300 -M 255.0.255.0",
    ],
    "ldirectord/hosts": [
        "-A -t 127.0.0.1:80 -s wrr",
        "-a -t 10.0.0.100:80 -r 127.0.0.1:80 -g -w 1",
        "-a -t 127.0.0.1:80 -r 10.1.0.1:80 -g -w 1",
    ],
    "ldirectord/off": ["-d -t 10.0.0.100:80 -r 10.1.0.1:80", "-d -t 10.0.0.100:80 -r 10.1.0.2:80"],
    "ldirectord/thresholds": ["-d -t 10.0.0.100:80 -r 10.1.0.2:80"],
    "ldirectord/twice": ["-D -t 10.0.0.100:80"],
    "ldirectord/unknown-word": ["-D -t 10.0.0.100:80"],
    "ipvsadm/wrong": ["-D -t 10.0.0.102:80"],
}
# Real servers that are not asked what keepalived asks them, or asked although it asks nothing.
ASKED_DIFFERENTLY = {
    "keepalived/alpha": 2,
    "keepalived/braces": 4,
    "keepalived/check-http": 4,
    "keepalived/check-kinds": 8,
    "keepalived/check-ports": 2,
    "keepalived/check-programs": 2,
    "keepalived/check-times": 2,
    "keepalived/check-units": 1,
    "keepalived/comments": 1,
    "keepalived/escapes": 3,
}

pytestmark = pytest.mark.lab(seconds=1)


def files() -> Iterator[object]:
    for kind, (_, pattern, _) in KINDS.items():
        for path in sorted((CORPUS / kind).glob(pattern)):
            name = f"{kind}/{path.stem}"
            yield pytest.param(path, id=name, marks=() if name in QUICK else pytest.mark.long)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with owners.namespace() as name:
        made = Site(name, tmp_path_factory.mktemp("owners"))
        yield made
        made.close()


def configuration(imported: Imported) -> MasterConfig:
    return parse(as_toml(imported.services, "x"), MasterConfig) if imported.services else MasterConfig()


def table(config: MasterConfig) -> Table:
    found: Table = {}
    for service in config.service:
        made = to_service(service)
        found[made.key] = Rules(made, tuple(to_destination(d, service) for d in service.destination))
    return found


def said(imported: Imported, key: ServiceKey) -> bool:
    """Whether a remark concerns this service: by its name, or by a line of its block; or where there is no such service
    of ours, whether something was left out at all. A line with which the owner does not start concerns all of them."""
    lines = [*sorted(draft.line for draft in imported.services), 10**9]
    ours = {draft.key: draft.line for draft in imported.services}
    for remark in imported.remarks:
        if remark.note:
            continue
        lost = "left out" in remark.text or "not carried over" in remark.text
        if str(key) in remark.text or (key not in ours and lost) or "does not start with it" in remark.text:
            return True
        if key in ours and ours[key] <= remark.line < next(line for line in lines if line > ours[key]):
            return True
    return False


def key_of(edit: Edit) -> ServiceKey:
    return edit.service.key if isinstance(edit, AddService | SetService) else edit.service


@pytest.mark.parametrize("path", list(files()))
def test_a_table_is_what_its_owner_makes_of_the_file_or_the_difference_is_said(site: Site, path: Path) -> None:
    kind, name = path.parent.name, f"{path.parent.name}/{path.stem}"
    if shutil.which(kind) is None:
        pytest.skip(f"{kind} is not installed")
    format_, _, make = KINDS[kind]
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        imported = read_file(format_, str(path), file)
    config = configuration(imported)
    site.clear()
    known = DIFFERENT.get(name, [])
    theirs, log = make(site, path, applied(table(config), map(parse_line, known)))
    edits = difference(theirs, table(config))
    assert sorted(map(format_edit, edits)) == known, log
    assert [format_edit(edit) for edit in edits if not said(imported, key_of(edit))] == []
    if kind == "keepalived":
        differently = asked_differently(dump.of_keepalived(log), dump.of_ours(config))
        assert len(differently) == ASKED_DIFFERENTLY.get(name, 0), differently
        assert [key for key, _ in differently if not said(imported, ServiceKey.parse(key))] == []
    elif kind == "ldirectord" and not edits:
        assert asked(config) <= {
            (q.replace("HEAD", "GET"), a, p, h) for a, p, q, host in site.asked for h in ("", host)
        }


def asked_differently(
    theirs: dict[dump.Place, list[dump.Asked]], ours: dict[dump.Place, dump.Asked]
) -> list[dump.Place]:
    """Where ours is not the one thing that keepalived asks."""
    places = theirs.keys() | ours.keys()
    return sorted(p for p in places if p not in ours or len(t := theirs.get(p, [])) != 1 or ours[p].differs(t[0]))


def asked(config: MasterConfig) -> set[tuple[str, str, int, str]]:
    """What ours asks by HTTP of which server, and by which name if it is given one."""
    return {
        (f"GET {a.what}", address, a.port, a.host)
        for (_, address), a in dump.of_ours(config).items()
        if a.kind == "http"
    }
