"""Runs programs in a separate process that has no capability, whoever starts it.

    python -m feedback.ops.runner      requests in, an empty line and then answers out

A unit's capabilities survive execve, so a check could edit IPVS as the master does. So this process drops its
capabilities, restarts itself, and verifies that they are gone before it reports ready.

Everything that a program starts ends with it. Some of that may have a session and a parent of its own; so this process
adopts orphans (a subreaper), each carries the mark of its program in its environment, and every process without the
mark of a running program is killed. Invariants: when a program is over none of its processes runs, and those of others
go on; when standard input ends, none at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import signal
import sys
import time
from pathlib import Path

import msgspec
import psutil

from feedback.faults import said
from feedback.ops.logs import Log
from feedback.ops.process import adopt_orphans, give_up_privileges

OUTPUT_BYTES_MAX = 200  # of what a program says
READ_BYTES = 64 * 1024
LINE_BYTES_MAX = 1 << 20
ROUNDS_MAX = 100  # of killing: each finds the children of those that the last one killed
LOOKS_MAX, EXECVE_SECONDS = 50, 0.001  # at a process whose environment cannot be read, and between them
CONFINED = "--confined"
MARK = "FEEDBACK_PROGRAM"

LOG = Log("programs")


class Request(msgspec.Struct, frozen=True, array_like=True):
    """Run these words as program `number`; None: end it, its time is over."""

    number: int
    words: tuple[str, ...] | None


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """Exit status and the first line that was said; or the `errno` with which it could not be started."""

    number: int
    status: int
    said: str
    errno: int = 0


class Runner:
    """The programs that run now."""

    def __init__(self) -> None:
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._marks: dict[int, str] = {}  # by process
        self._starts = asyncio.Lock()  # while one is being started it is not known yet whose it is

    async def serve(self, reader: asyncio.StreamReader) -> None:
        """Serve until there are no more requests."""
        while line := await reader.readline():
            request = msgspec.json.decode(line, type=Request)
            if request.words is not None:
                self._tasks[request.number] = asyncio.create_task(self._run(request.number, request.words))
            elif request.number in self._tasks:
                self._tasks[request.number].cancel()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._sweep()

    async def _run(self, number: int, words: tuple[str, ...]) -> None:
        try:
            status, line = await self._program(words)
            _answer(Answer(number, status, line))
        except OSError as error:
            _answer(Answer(number, 0, "", error.errno or errno.EIO))
        except ValueError:  # words that no program can be given
            _answer(Answer(number, 0, "", errno.EINVAL))
        except Exception as error:  # whoever waits is told at once
            LOG.error("fault", reason=said(error))
            _answer(Answer(number, 0, "", errno.EIO))
        finally:
            del self._tasks[number]

    async def _program(self, words: tuple[str, ...]) -> tuple[int, str]:
        mark = secrets.token_hex(8)
        heard = _Heard()
        try:
            async with self._starts:
                process = await asyncio.create_subprocess_exec(
                    *words,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=heard.write_end,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                    env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", MARK: mark},
                )
                self._marks[process.pid] = mark
        except BaseException:
            heard.close()
            raise
        try:
            status = await process.wait()
            return status, heard.first_line()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(asyncio.CancelledError):
                await process.wait()
            del self._marks[process.pid]
            heard.close()
            async with self._starts:
                self._sweep()

    def _sweep(self) -> None:
        """Kill whoever belongs to no program that runs. Not while one is being started."""
        marks = set(self._marks.values())
        for _ in range(ROUNDS_MAX):
            adopted = [child for child in psutil.Process().children() if child.pid not in self._marks]
            strays = [child for child in adopted if _mark(child) not in marks]
            if not strays:
                return
            for stray in strays:
                with contextlib.suppress(psutil.Error, ChildProcessError):
                    stray.kill()
                    os.waitpid(stray.pid, 0)  # a killed one ends at once, and its children become ours


class _Heard:
    """What a program says, as far as it counts; the rest is read too, since a full pipe would stop it. A pipe of our
    own: what the program leaves behind may hold the other end for long after its exit."""

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self.write_end, True)
        self._said = b""
        asyncio.get_running_loop().add_reader(self._read_end, self._take)

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._read_end, READ_BYTES)
            self._said += data[: OUTPUT_BYTES_MAX - len(self._said)]
            if not data:
                asyncio.get_running_loop().remove_reader(self._read_end)

    def first_line(self) -> str:
        """After the program's end."""
        self._take()
        return self._said.decode("utf-8", "replace").strip().partition("\n")[0]

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._read_end)
        os.close(self._read_end)
        os.close(self.write_end)


def _mark(child: psutil.Process) -> str:
    """The mark of its program; '' where it has none, or hides it. In the moment of an execve its environment reads as
    empty: then it is looked at again."""
    with contextlib.suppress(psutil.Error, OSError):
        for _ in range(LOOKS_MAX):
            found = child.environ()
            if found or _without_environment(child.pid):
                return found.get(MARK, "")
            time.sleep(EXECVE_SECONDS)
    return ""


def _without_environment(pid: int) -> bool:
    """Whether it has an empty one: `env_start` and `env_end` of proc(5), which are 0 until they are set up."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()
    return fields[47] == fields[48] != "0"


def _answer(answer: Answer) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


def confine() -> None:
    """Begin anew without privileges, and without a way to any."""
    give_up_privileges()
    os.execv(sys.executable, [sys.executable, "-m", "feedback.ops.runner", CONFINED])


def confined() -> bool:
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return all(int(line.split()[1], 16) == 0 for line in status if line.startswith(("CapPrm:", "CapEff:", "CapAmb:")))


async def main() -> None:
    adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the master's, which then closes our input
    reader = asyncio.StreamReader(LINE_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()
    await Runner().serve(reader)


if __name__ == "__main__":
    if CONFINED not in sys.argv:
        confine()
    if not confined():
        sys.exit("this process cannot drop its capabilities: no program is run with them")
    asyncio.run(main())
