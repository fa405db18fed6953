"""Commands in network namespaces of this host.

Not by `ip netns exec`, nor `ip -n`: these mount /sys anew, which fails in a chroot.
"""

from __future__ import annotations

import subprocess


def inside(netns: str, *command: str) -> list[str]:
    return ["nsenter", f"--net=/run/netns/{netns}", *command]


def ip(words: str, netns: str | None = None) -> str:
    """What it prints."""
    command = ["ip", *words.split()]
    done = subprocess.run(inside(netns, *command) if netns else command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout
