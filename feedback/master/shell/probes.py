"""The shell of the checks: asks real servers, and hands the outcomes to the controller. It decides nothing.

kinds.py has the requests and decides which answer is good; exec is a program's exit status, run elsewhere and without
capabilities (programs.py), all of it killed at the deadline; agent-check is one line, an exporter a page (scrapes.py).
Every probe has a deadline and an end; a bounded number run at once, and the rest wait their turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial

from msgspec import structs

from feedback.config.exporter import Exporter
from feedback.config.probe import AgentSource, Check
from feedback.faults import said
from feedback.master.claims.advice import LINE_BYTES_MAX
from feedback.master.claims.asking import Probe, Result
from feedback.master.claims.health import Outcome, Unasked
from feedback.master.shell.kinds import KINDS, Blocked, Nonsense
from feedback.master.shell.programs import Gone, Programs
from feedback.master.shell.scrapes import Scrapes
from feedback.ops.descriptors import NONE_LEFT
from feedback.ops.logs import Log
from feedback.ops.tasks import Tasks
from feedback.refusals import printable

LOG = Log("probes")

CONNECTIONS_MAX = 512
PROGRAMS_MAX = 16
OUTPUT_BYTES_MAX = 200

Receive = Callable[[Probe, Result, float], None]


class Probes:
    """Runs probes in a loop and a thread of their own: thousands a second must not make the master's turns late.
    `receive` gets each result in the loop that made this object."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self._home = receive, asyncio.get_running_loop()
        self._tasks = Tasks(LOG)
        self._places: dict[str, contextlib.AbstractAsyncContextManager[None]] = {
            "exec": asyncio.Semaphore(PROGRAMS_MAX),
            "exporter": contextlib.nullcontext(),
        }
        self._usual = asyncio.Semaphore(CONNECTIONS_MAX)
        self._programs, self._scrapes = Programs(), Scrapes()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="probes", daemon=True)
        self._thread.start()

    def start(self, probes: list[Probe]) -> None:
        self._loop.call_soon_threadsafe(self._start, probes)

    async def close(self) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._end(), self._loop))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _start(self, probes: list[Probe]) -> None:
        for probe in probes:
            self._tasks.start(self._run(probe), f"check of {probe.target}")

    async def _end(self) -> None:
        await self._tasks.close()
        self._scrapes.close()
        await self._programs.close()

    async def _run(self, probe: Probe) -> None:
        what = probe.what
        kind = what.type if isinstance(what, Check) else "exporter" if isinstance(what, Exporter) else "agent"
        async with self._places.get(kind, self._usual):
            result: Result
            try:
                if isinstance(what, Check):
                    result = _printable(await _checked(what, probe, self._programs))
                elif isinstance(what, Exporter):
                    result = await self._scrapes.read(what, probe)
                else:
                    result = await _asked(what, probe)
            except Exception as error:
                LOG.error("fault", check=kind, target=str(probe.target), reason=said(error))
                result = None
        with contextlib.suppress(RuntimeError):  # the master stopped meanwhile
            self._home.call_soon_threadsafe(self._receive, probe, result, time.monotonic())


def _printable(outcome: Outcome | Unasked | None) -> Outcome | Unasked | None:
    """What a server or a program said is repeated in it."""
    return outcome if not isinstance(outcome, Outcome) else structs.replace(outcome, text=printable(outcome.text))


async def _asked(source: AgentSource, probe: Probe) -> bytes | None:
    """The agent's line, None where it cannot be reached or says none."""
    try:
        async with asyncio.timeout(source.timeout_seconds):
            reader, writer = await asyncio.open_connection(str(probe.target.address), source.port)
            with contextlib.closing(writer.transport):
                if source.send:
                    writer.write(source.send.encode())
                return await _line(reader)
    except (TimeoutError, OSError):
        return None


async def _line(reader: asyncio.StreamReader) -> bytes:
    data = b""
    while len(data) < LINE_BYTES_MAX and b"\n" not in data and b"\r" not in data:
        more = await reader.read(LINE_BYTES_MAX)
        if not more:
            break
        data += more
    return data


async def _checked(check: Check, probe: Probe, programs: Programs) -> Outcome | Unasked | None:
    """None where it could not be asked for want of descriptors or memory here: that says nothing of the server."""
    began = time.monotonic()
    try:
        if check.type == "exec":
            await programs.start()
            began = time.monotonic()
        async with asyncio.timeout(check.timeout_seconds):
            ask = partial(_program, programs) if check.type == "exec" else KINDS[check.type]
            outcome = await ask(check, probe)
    except Gone as gone:
        LOG.error("check-not-run", program=check.command[0], reason=str(gone))
        return None
    except Blocked as blocked:
        return blocked.why
    except TimeoutError:
        missing = f"{check.expect!r} did not come" if check.expect else "no answer"
        return Outcome(False, f"{check.type}: {missing} within {check.timeout_seconds:g} s")
    except ssl.SSLError as error:
        return Outcome(False, f"{check.type}: {error.reason or 'TLS fails'}")
    except OSError as error:
        if error.errno in NONE_LEFT:
            return None
        reason = os.strerror(error.errno) if error.errno else str(error)  # asyncio's own strerror hides it
        return Outcome(False, f"{check.type}: {reason.lower()}")
    except (Nonsense, ValueError) as error:  # and names that cannot be sent
        return Outcome(False, f"{check.type}: {error}"[:OUTPUT_BYTES_MAX])
    took = time.monotonic() - began
    return structs.replace(outcome, text=f"{check.type}: {outcome.text}, {1000 * took:.0f} ms", seconds=took)


async def _program(programs: Programs, check: Check, to: Probe) -> Outcome:
    place = {"{address}": str(to.target.address), "{port}": str(to.target.port)}
    words = [w.replace("{address}", place["{address}"]).replace("{port}", place["{port}"]) for w in check.command]
    status, said = await programs.run(words)
    return Outcome(status == 0, f"exit status {status}" + (f": {said}" if said else ""))
