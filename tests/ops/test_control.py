"""The control socket: who may talk, what comes back, and what a bad client cannot do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from feedback.ops.control import CLIENTS_MAX, ControlError, NotRunningError, ask, serve


def echo(request: dict[str, Any]) -> dict[str, Any]:
    return {"error": "no"} if request.get("command") == "fail" else {"got": request}


async def served(path: Path, work: Any) -> Any:
    server = await serve(path, echo)
    try:
        return await asyncio.to_thread(work)
    finally:
        server.close()
        await server.wait_closed()


def test_a_request_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "run" / "s.sock"
    answer = asyncio.run(served(path, lambda: ask(path, {"command": "status"})))
    assert answer == {"got": {"command": "status"}}


def test_what_the_daemon_refuses_is_raised(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with pytest.raises(ControlError, match="no"):
        asyncio.run(served(path, lambda: ask(path, {"command": "fail"})))


def test_others_cannot_open_it(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    mode = asyncio.run(served(path, lambda: stat.S_IMODE(path.stat().st_mode)))
    assert mode == 0o660


def test_nobody_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match="feedback master"):
        ask(tmp_path / "none.sock", {})


def test_a_dead_daemons_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    assert asyncio.run(served(path, lambda: ask(path, {"a": 1}))) == {"got": {"a": 1}}


def test_a_living_daemons_socket_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"

    async def twice() -> None:
        server = await serve(path, echo)
        try:
            with pytest.raises(ControlError, match="another daemon"):
                await serve(path, echo)
        finally:
            server.close()
            await server.wait_closed()

    asyncio.run(twice())


@pytest.mark.parametrize("sent, expected", [(b"nonsense\n", "not a JSON line"), (b"[1]\n", "expected a JSON object")])
def test_nonsense_is_answered_with_an_error(tmp_path: Path, sent: bytes, expected: str) -> None:
    path = tmp_path / "s.sock"

    def talk() -> str:
        with socket.socket(socket.AF_UNIX) as c:
            c.connect(str(path))
            c.sendall(sent)
            return str(json.loads(c.makefile().readline())["error"])

    assert asyncio.run(served(path, talk)) == expected


def test_too_much_is_cut_off_and_the_next_client_is_served(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"

    def talk() -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as c:
            c.connect(str(path))
            with contextlib.suppress(OSError):
                c.sendall(b"x" * 300_000)  # it is reset where it is cut off with bytes left unread
                c.shutdown(socket.SHUT_WR)
                while c.recv(4096):
                    pass
        return ask(path, {"b": 2})

    assert asyncio.run(served(path, talk)) == {"got": {"b": 2}}


def test_so_many_clients_and_no_more_and_one_that_goes_makes_room(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"

    def crowd() -> None:
        with contextlib.ExitStack() as stack:
            waiting = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(CLIENTS_MAX)]
            for one in waiting:
                one.connect(str(path))
            with pytest.raises(ControlError):
                ask(path, {"command": "status"})
            waiting[0].close()
            while True:
                with contextlib.suppress(ControlError):
                    assert ask(path, {"command": "status"})
                    return

    asyncio.run(asyncio.wait_for(served(path, crowd), 60))
