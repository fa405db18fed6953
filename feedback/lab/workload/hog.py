"""The noisy neighbour: a busy loop. It stops itself and waits for SIGCONT, so that it then starts at once."""

from __future__ import annotations

import os
import signal

from feedback.lab.workload.burn import burn


def main() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    while True:
        burn(1_000_000)


if __name__ == "__main__":
    main()
