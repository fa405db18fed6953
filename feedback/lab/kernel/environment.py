"""The environment of a guest's first process: where everything is, and which modules the lab needs.

A file of shell assignments, read by init.sh. Must not know how the guest was booted.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import feedback
from feedback.lab.job import Job

MODULES = (
    *("ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_lc", "ip_vs_wlc", "ip_vs_sed", "ip_vs_nq", "ip_vs_fo", "ip_vs_ovf"),
    *("ip_vs_sh", "ip_vs_mh", "ip_vs_lblc", "ip_vs_lblcr", "ip_vs_dh", "veth", "bridge", "dummy", "sch_netem"),
    *("sch_prio", "sch_ingress", "cls_flower", "act_gact", "tun", "ipip", "fou", "ip_gre", "ip_vs_pe_sip"),
    # A firewall on a director, marks, and the protocols that carry addresses in their data.
    *("iptable_raw", "iptable_mangle", "iptable_nat", "iptable_filter", "ip6table_raw", "ip6table_mangle"),
    *("ip6table_nat", "ip6table_filter", "xt_conntrack", "xt_CT", "xt_mark", "xt_tcpudp", "nf_conntrack_netlink"),
    *("nf_conntrack_ftp", "nf_nat_ftp", "ip_vs_ftp", "xt_multiport", "xt_addrtype"),
)


def environment(job: Path, output: Path, scratch: Path, *, modules: Path, shipped: bool = False) -> str:
    """`modules` has a directory for each release; with `shipped` the output is written in memory and carried over."""
    bits = Job.read(job).conn_tab_bits
    values = {
        "PYTHON": sys.executable,
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "ROOT": Path(feedback.__file__).parents[1],
        "PREFIX": sys.prefix,
        "BASE_PREFIX": sys.base_prefix,
        "SCRATCH": scratch,
        "OUTPUT": output,
        "JOB": job,
        "MODULES": " ".join(MODULES),
        "IPVS_OPTIONS": f"conn_tab_bits={bits}" if bits else "",
        "MODULES_DIRECTORY": modules,
        "SHIPPED": "yes" if shipped else "",
    }
    return "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in values.items())
