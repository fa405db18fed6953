"""Run the contract tests and scenarios on several kernels, and print what came of it as a table.

    python -m tests.kernels [--on KERNEL[/PROCESSORS] ...] [--only STEP ...] [--table]

What has run is kept in build/kernels, a file a step: what is there is not run again. `--table` runs nothing.
Exit status 0 only if every step of every kernel is as it should be.
"""

from __future__ import annotations

import argparse
import sys

from tests.kernels.steps import SETUPS, STEPS, Outcome, Setup, known, perform
from tests.kernels.table import table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kernels", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--on", action="append", metavar="KERNEL[/PROCESSORS]", help="default: " + " ".join(map(str, SETUPS))
    )
    parser.add_argument("--only", action="append", choices=STEPS, metavar="STEP", help="default: " + " ".join(STEPS))
    parser.add_argument("--table", action="store_true", help="of what has run before; run nothing")
    arguments = parser.parse_args()
    setups = [Setup.parse(text) for text in arguments.on] if arguments.on else list(SETUPS)
    outcomes: dict[Setup, dict[str, Outcome]] = {setup: known(setup) for setup in setups}
    for setup in [] if arguments.table else setups:
        for step in arguments.only or setup.steps:
            if step not in outcomes[setup]:
                print(f"{setup}: {step}", file=sys.stderr, flush=True)
                outcomes[setup][step] = perform(setup, step)
                print(f"{setup}: {step}: {outcomes[setup][step].said}", file=sys.stderr, flush=True)
    print(table(outcomes))
    ran = [outcome for each in outcomes.values() for outcome in each.values()]
    return 0 if ran and all(outcome.ok for outcome in ran) else 1


sys.exit(main())
