"""keepalived.conf as a tree: which words open a block, and inside which. Source: 2.2.7's keyword tables.

keepalived reads line by line: a word that it does not know is ignored, a word that opens a block opens one whether a
brace follows or not, and a `}` closes the innermost. So if a brace is missing, the lines of the next service belong to
the first one. One thing is better here: at an unknown word with a block, keepalived takes the `}` of that block for the
end of the enclosing one; here the block is left out as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from feedback.importers.draft import Remark
from feedback.importers.keepalived.lines import Line
from feedback.importers.keepalived.words import words

Table = dict[str, "Table | None"]


def _plain(text: str) -> Table:
    return dict.fromkeys(text.split())


_COMMON = _plain("retry delay_before_retry warmup delay_loop alpha log_all_failures")
_CONNECTION = _COMMON | _plain("connect_ip connect_port bindto bind_port bind_if connect_timeout fwmark")
_URL = _plain("path digest status_code virtualhost regex regex_no_match regex_options regex_min_offset")
_URL |= _plain("regex_max_offset regex_stack")
_HTTP: Table = _CONNECTION | _plain("nb_get_retry virtualhost http_protocol enable_sni fast_recovery") | {"url": _URL}
CHECKERS: Table = {
    "MISC_CHECK": _COMMON | _plain("misc_path misc_timeout misc_dynamic user"),
    "SMTP_CHECK": _CONNECTION | _plain("helo_name") | {"host": dict(_CONNECTION)},
    "TCP_CHECK": _CONNECTION,
    "PING_CHECK": _CONNECTION,
    "UDP_CHECK": _CONNECTION | _plain("payload require_reply min_reply_length max_reply_length"),
    "HTTP_GET": _HTTP,
    "SSL_GET": _HTTP,
    "DNS_CHECK": _CONNECTION | _plain("type name"),
    "FILE_CHECK": _COMMON | _plain("track_file weight"),
    "BFD_CHECK": _plain("name alpha"),
}
_REAL: Table = _plain("weight lvs_method uthreshold lthreshold inhibit_on_failure notify_up notify_down alpha retry")
_REAL |= _plain("delay_before_retry warmup connect_timeout delay_loop smtp_alert virtualhost snmp_name")
_VIRTUAL: Table = _plain("ip_family retry delay_before_retry warmup connect_timeout delay_loop inhibit_on_failure")
_VIRTUAL |= _plain("lb_algo lvs_sched hashed ops flag-1 flag-2 flag-3 sh-port sh-fallback mh-port mh-fallback")
_VIRTUAL |= _plain("lb_kind lvs_method persistence_engine persistence_timeout persistence_granularity protocol")
_VIRTUAL |= _plain("ha_suspend smtp_alert virtualhost snmp_name alpha omega quorum_up quorum_down quorum hysteresis")
_VIRTUAL |= _plain("weight sorry_server sorry_server_inhibit sorry_server_lvs_method")
ROOT: Table = {"virtual_server": _VIRTUAL | {"real_server": _REAL | CHECKERS}}
GROUP = "virtual_server_group"  # a block of addresses, not of words
# Blocks of other parts of keepalived, whose braces match whatever is in them.
OTHERS = frozenset(_plain("global_defs SSL track_group static_ipaddress static_routes static_rules vrrp_sync_group"))
OTHERS |= frozenset(_plain("garp_group linkbeat_interfaces vrrp_instance vrrp_script vrrp_track_process track_file"))
OTHERS |= frozenset(_plain("interface_up_down_delays bfd_instance vrrp_track_file linkbeat_use_polling net_namespace"))
OTHERS |= frozenset(_plain("net_namespace_ipvs namespace_with_ipsets use_pid_dir instance child_wait_time"))


def _names(table: Table) -> set[str]:
    return set(table).union(*(_names(inner) for inner in table.values() if inner is not None))


_KNOWN = _names(ROOT) | OTHERS | {GROUP}


@dataclass(slots=True)
class Node:
    """A line, with the lines of its block if it opens one."""

    line: Line
    words: list[str]
    block: list[Node] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.words[0]

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def word(self, position: int, absent: str = "") -> str:
        return self.words[position] if len(self.words) > position else absent

    def remark(self, text: str, *, note: bool = False) -> Remark:
        """A `note` says what keepalived does, where we do the same."""
        return Remark(self.line.number, text, self.line.file, note)


@dataclass(slots=True)
class _Open:
    node: Node | None
    table: Table | None  # None: any line
    brace: bool  # whether its { has come


def tree(lines: Iterable[Line], remarks: list[Remark]) -> list[Node]:
    """The outermost lines, and of those in blocks the ones that are known there. `remarks` grows."""
    roots: list[Node] = []
    open_blocks = [_Open(None, ROOT, True)]
    skipped, unknown = 0, None  # how deep in a block that is left out, and the word that may open one
    for line in lines:
        here = open_blocks[-1]
        if skipped:
            skipped += {"{": 1, "}": -1}.get(line.text, 0)
        elif line.text == "{":
            if unknown is not None and (unknown.name in OTHERS if here.node is None else unknown.name not in _KNOWN):
                skipped = 1
            elif here.brace:
                remarks.append(Remark(line.number, "a { that belongs to nothing: ignored", line.file))
            here.brace = True
        elif line.text == "}":
            if len(open_blocks) > 1:
                open_blocks.pop()
            else:
                remarks.append(Remark(line.number, "one } too many: ignored", line.file))
        elif found := words(line.text):
            if not here.brace:
                here.brace = True
                text = f"{here.node.text if here.node else ''}: its {{ is missing: this line counts as its first"
                remarks.append(Remark(line.number, text, line.file))
            node = Node(line, found)
            unknown = None
            if here.node is not None and here.table is not None and node.name not in here.table:
                remarks.append(node.remark(f"{node.text}: is unknown there: not carried over"))
                unknown = node
                continue
            (here.node.block if here.node else roots).append(node)
            if here.table is None:
                continue
            if node.name == GROUP and here.node is None:
                open_blocks.append(_Open(node, None, False))
            elif node.name not in here.table:
                unknown = node
            elif (inner := here.table[node.name]) is not None:
                open_blocks.append(_Open(node, inner, False))
            continue
        unknown = None
    for left in open_blocks[1:]:
        if left.node is not None:
            remarks.append(left.node.remark(f"{left.node.text}: its }} is missing: it ends with the file"))
    return roots
