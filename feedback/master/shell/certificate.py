"""When the certificate that a server showed expires: a warning and a moment for a metric, never a failure by itself."""

from __future__ import annotations

import asyncio
import time
from functools import cache
from importlib.util import find_spec

import msgspec

from feedback.master.claims.health import Outcome

DAY_SECONDS = 86400


def noted(outcome: Outcome, writer: asyncio.StreamWriter, days: int) -> Outcome:
    """With the moment at which the peer's certificate expires, and a warning where that is within so many days; as it
    is with 0 days, and where there is no library that reads certificates."""
    wanted = days and reads()
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True) if wanted else None
    if not shown:
        return outcome
    expires_at = expiry(shown)
    if expires_at is None:
        return msgspec.structs.replace(outcome, warning="the certificate cannot be read")
    return msgspec.structs.replace(outcome, expires_at=expires_at, warning=warning(expires_at, time.time(), days))


@cache
def reads() -> bool:
    """Whether there is a library for it."""
    return find_spec("cryptography") is not None


def warning(expires_at: float, now: float, days: int) -> str:
    """Both in seconds since 1970. Changes once a day."""
    left = expires_at - now
    if left >= days * DAY_SECONDS:
        return ""
    date = time.strftime("%Y-%m-%d", time.gmtime(expires_at))
    if left < 0:
        return f"the certificate expired on {date}"
    return f"the certificate expires on {date}, in {int(left / DAY_SECONDS)} days"


def expiry(der: bytes) -> float | None:
    """Seconds since 1970; None where it cannot be read. The standard library decodes the certificates that it has
    verified, and no others."""
    from cryptography.x509 import load_der_x509_certificate

    try:
        return load_der_x509_certificate(der).not_valid_after_utc.timestamp()
    except Exception:  # a server's bytes, and a parser with exceptions of its own
        return None
