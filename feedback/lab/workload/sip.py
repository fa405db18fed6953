"""SIP as far as a persistence engine reads it: requests with a Call-ID, answered with the server's name.

    python -m feedback.lab.workload.sip NAME PORT

It uses UDP. The answer comes from the address that was asked; with direct routing that is the VIP on lo. Everything but
the server is pure. Source: RFC 3261, sections 8.1.1 and 8.2.6; net/netfilter/ipvs/ip_vs_pe_sip.c.
"""

from __future__ import annotations

import re
import socket
import sys

ANSWER_BYTES = 4096
IP_PKTINFO = 8  # linux/in.h; the socket module has it only since Python 3.12
ECHOED = ("via", "from", "to", "call-id", "cseq")  # headers that an answer repeats


def request(call: str, phone: str, vip: str, number: int) -> bytes:
    lines = [
        f"OPTIONS sip:desk@{vip} SIP/2.0",
        f"Via: SIP/2.0/UDP {phone}:5060;branch=z9hG4bK{call}{number}",
        "Max-Forwards: 70",
        f"From: <sip:phone@{phone}>;tag={call}",
        f"To: <sip:desk@{vip}>",
        f"Call-ID: {call}@{phone}",
        f"CSeq: {number} OPTIONS",
        "Content-Length: 0",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def answer(data: bytes, name: str) -> bytes:
    lines = data.decode("latin-1").split("\r\n")
    repeated = [line for line in lines if line.partition(":")[0].lower() in ECHOED]
    return "\r\n".join(["SIP/2.0 200 OK", *repeated, f"Server: {name}", "Content-Length: 0", "", ""]).encode("latin-1")


def server_of(data: bytes) -> str:
    """The server's name in an answer, or ""."""
    found = re.search(rb"^Server: (\S+)\r$", data, re.M)
    return found[1].decode("latin-1") if found else ""


def serve(name: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        sock.bind(("0.0.0.0", port))
        while True:
            data, ancillary, _flags, peer = sock.recvmsg(ANSWER_BYTES, 64)
            source = bytes(4) + ancillary[0][2][8:12] + bytes(4)  # struct in_pktinfo: from the address that was asked
            sock.sendmsg([answer(data, name)], [(socket.IPPROTO_IP, IP_PKTINFO, source)], 0, peer)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
