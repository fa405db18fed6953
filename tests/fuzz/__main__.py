"""`python -m tests.fuzz SECONDS [DECODER...]`: look for inputs that break a decoder; what is found is kept.

Goes round the decoders until the time is over. Exit status 1 if anything was found: the input, shrunk, is then in
tests/fuzz/corpus/DECODER/, where the unit tests replay it.
"""

from __future__ import annotations

import hashlib
import random
import sys
import time
import traceback

from tests.fuzz.target import CORPUS, Target, explore
from tests.fuzz.targets import TARGETS

EXAMPLES = 400  # of a decoder before the next one's turn


def main(seconds: float, names: list[str]) -> int:
    chosen = [target for target in TARGETS if not names or target.name in names]
    end, rounds, found = time.monotonic() + seconds, 0, set[str]()
    while time.monotonic() < end:
        for target in chosen:
            if time.monotonic() < end and target.name not in found and not _explored(target):
                found.add(target.name)
        rounds += 1
    broken = ", ".join(sorted(found)) or "none"
    sys.stdout.write(f"{rounds} rounds of {EXAMPLES} inputs for {len(chosen)} decoders; broken: {broken}\n")
    return 1 if found else 0


def _explored(target: Target) -> bool:
    try:
        explore(target, EXAMPLES, random.getrandbits(32))
    except Exception as error:
        data: bytes = getattr(error, "input", b"")
        path = CORPUS / target.name / f"broke-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        traceback.print_exc(limit=-4)
        sys.stderr.write(f"{target.name}: kept as {path}\n")
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0, sys.argv[2:]))
