"""Asks repeatedly who has certain addresses, by ARP and neighbour solicitation, and counts the answers.

    python -m feedback.lab.pair.asker OUTPUT_FILE ADDRESS...

It runs in the watcher's namespace. Some of the addresses should belong to nobody. Others belong to somebody, since
otherwise silence would prove nothing. Unsolicited announcements count too. At SIGTERM it writes the file, {address:
answers}, and ends.
"""

from __future__ import annotations

import json
import select
import signal
import socket
import sys
import time
from ipaddress import ip_address
from pathlib import Path

from feedback.lab.pair import frames
from feedback.lab.pair.topology import WATCHER
from feedback.model import Address

TURN_SECONDS = 0.25
FRAME_BYTES = 256


def main(output: Path, addresses: list[Address]) -> None:
    ending: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: ending.append(True))
    questions = [frames.question(WATCHER.mac, _own(address), address) for address in addresses]
    answers = dict.fromkeys(map(str, addresses), 0)
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    listeners = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(p)) for p in (frames.ARP, frames.IPV6)]
    for sock in (sender, *listeners):
        sock.bind(("eth0", sock.getsockname()[1]))
    while not ending:
        for question in questions:
            sender.send(question)
        due = time.monotonic() + TURN_SECONDS
        while (left := due - time.monotonic()) > 0:
            for listener in select.select(listeners, [], [], left)[0]:
                said = frames.answer(listener.recv(FRAME_BYTES))
                if said is not None and str(said.address) in answers:
                    answers[str(said.address)] += 1
    output.write_text(json.dumps(answers), encoding="utf-8")


def _own(address: Address) -> Address:
    return WATCHER.front if address.version == 4 else WATCHER.front6


if __name__ == "__main__":
    main(Path(sys.argv[1]), [ip_address(text) for text in sys.argv[2:]])
