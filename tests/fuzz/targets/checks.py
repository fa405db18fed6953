"""What real servers answer to health checks: a name server's answer, a certificate."""

from __future__ import annotations

from feedback.config.probe import Check
from feedback.master.shell import certificate
from feedback.master.shell.nameserver import DNS_BYTES_MAX, judged, question
from feedback.refusals import RefusalError
from tests.fuzz.target import Target

CHECK = Check(type="dns", name="web.example", record="A", answer="10.0.0.1")
ASKED = question(CHECK)
ASKED.id = 7


def answer(data: bytes) -> None:
    outcome = judged(CHECK, ASKED, data[:DNS_BYTES_MAX])
    assert outcome.text.isascii() and len(outcome.text) < 200


def shown(data: bytes) -> None:
    found = certificate.expiry(data)
    if found is None:
        raise ValueError("not a certificate")
    assert isinstance(certificate.warning(found, 1.8e9, 14), str)


TARGETS = (
    Target(name="dns-answer", take=answer, refuses=(RefusalError,), bytes_max=DNS_BYTES_MAX,
           tokens=(b"\x00\x07", b"\xc0\x0c", b"\x81\x80", b"\x00\x01\x00\x01", b"\x00\x10", b"\x00\x06", b"\x00\x29",
                   b"\x00\x41", b"\x3f" + b"a" * 63, b"\x03web\x07example\x00")),
    Target(name="certificate", take=shown, refuses=(ValueError,), tokens=(b"\x30\x82", b"\x17\x0d", b"\x18\x0f", b"Z")),
)  # fmt: skip
