#!/usr/bin/env python3
"""Tells ExaBGP which ranges the active director has: ranges.py NEXT_HOP_IPV4 NEXT_HOP_IPV6

Reads the kernel's table 74, into which the sync daemon puts them (protocol 252), every half second, and prints what
came and went. Knows nothing of roles: a standby's table is empty.
"""

import json
import subprocess
import sys
import time

TABLE, PROTOCOL = "74", "252"


def ranges(family: str) -> set[str]:
    command = ["ip", "-json", "-N", family, "route", "show", "table", TABLE, "proto", PROTOCOL, "type", "blackhole"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:  # the table never had a route
        return set()
    return {route["dst"] for route in json.loads(done.stdout or "[]")}


def main(next_hops: dict[str, str]) -> None:
    told: set[tuple[str, str]] = set()
    while True:
        there = {(network, next_hop) for family, next_hop in next_hops.items() for network in ranges(family)}
        for network, next_hop in sorted(there - told):
            print(f"announce route {network} next-hop {next_hop}", flush=True)
        for network, next_hop in sorted(told - there):
            print(f"withdraw route {network} next-hop {next_hop}", flush=True)
        told = there
        time.sleep(0.5)


if __name__ == "__main__":
    main({"-4": sys.argv[1], "-6": sys.argv[2]})
