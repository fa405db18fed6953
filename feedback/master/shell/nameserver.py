"""DNS checks: the query, and which answer is good. Uses dnspython, imported when a check needs it.

An answer is hostile. dnspython takes 5 ms for a record that is made to be slow, so RECORDS_MAX of the answer are read,
and nothing of the sections that nobody asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from feedback.config.probe import Check
from feedback.master.claims.health import Outcome
from feedback.refusals import RefusalError

if TYPE_CHECKING:
    from dns.message import Message

DNS_BYTES_MAX = 4096
RECORDS_MAX = 32
SHOWN_MAX = 60


def question(check: Check) -> Message:
    from dns import message

    return message.make_query(check.name, check.record)


def judged(check: Check, asked: Message, wire: bytes) -> Outcome:
    """Good is NOERROR with at least one record of what was asked. Raises RefusalError where it is no answer to it."""
    from dns import message, rcode
    from dns.exception import DNSException

    try:
        answer = message.from_wire(_answers(wire), ignore_trailing=True)
        good = asked.is_response(answer)
        kind = asked.question[0].rdtype
        records = [record.to_text() for found in answer.answer if found.rdtype == kind for record in found]
    except DNSException as error:
        raise RefusalError(f"not DNS: {str(error) or type(error).__name__}") from None
    if not good:
        raise RefusalError("not the answer to this query")
    said = f"{check.name} {check.record}"
    if answer.rcode() != rcode.NOERROR:
        return Outcome(False, f"{said}: {rcode.to_text(answer.rcode())}")
    if not records:
        return Outcome(False, f"{said}: without a record")
    if check.answer not in ("", *records):
        return Outcome(False, f"{said}: {', '.join(records)[:SHOWN_MAX]}, not {check.answer}")
    return Outcome(True, f"{said}: {(check.answer or records[0])[:SHOWN_MAX]}")


def _answers(wire: bytes) -> bytes:
    """The message without its further sections."""
    count = int.from_bytes(wire[6:8])
    if count > RECORDS_MAX:
        raise RefusalError(f"an answer of {count} records: {RECORDS_MAX} are taken")
    return wire[:8] + bytes(4) + wire[12:] if len(wire) >= 12 else wire
