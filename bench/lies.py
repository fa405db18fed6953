"""The worst that a lying agent draws, in the model: docs/security.md's table. `python -m bench.lies`."""

from __future__ import annotations

from tests.simulate.test_lies import DOWN, UP, shares


def table() -> None:
    """Of each lie, pool and scheduler: what the liar draws in equal shares, mean and worst second, and what failed."""
    for servers in (4, 10):
        for lie in (*UP, *(DOWN if servers == 10 else ())):
            for scheduler in ("sed", "wlc", "wrr"):
                drawn, errors = shares(lie, servers, scheduler)
                mean, worst = sum(drawn) / len(drawn), max(drawn)
                print(f"{lie:10}{servers:4} {scheduler}  {mean:4.1f} {worst:4.1f} {100 * errors:5.1f} %", flush=True)


if __name__ == "__main__":
    table()
