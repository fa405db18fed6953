"""Heartbeats on real sockets: over every link, from the peer's address only, and a dead link is counted."""

from __future__ import annotations

import asyncio

import pytest

from feedback.config.sync import LinkConfig
from feedback.sync.election.links import LinkError, Links
from tests.ports import free_port


def pairs(host: str) -> tuple[LinkConfig, LinkConfig]:
    a, b = (f"{host}:{free_port()}" for _ in range(2))
    return LinkConfig(local=a, peer=b), LinkConfig(local=b, peer=a)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_datagram_goes_over_every_link(host: str) -> None:
    async def scenario() -> None:
        first, second = pairs(host), pairs(host)
        got: list[tuple[int, bytes]] = []
        one = Links([first[0], second[0]], lambda link, data: None)
        other = Links([first[1], second[1]], lambda link, data: got.append((link, data)))
        one.open()
        other.open()
        try:
            one.send(b"alive")
            async with asyncio.timeout(60):
                while len(got) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert sorted(got) == [(0, b"alive"), (1, b"alive")]
        finally:
            one.close()
            other.close()

    asyncio.run(scenario())


def test_a_peer_that_is_not_there_is_counted_and_harms_nothing() -> None:
    async def scenario() -> None:
        link, _ = pairs("127.0.0.1")
        links = Links([link], lambda *_: None)
        links.open()
        try:
            for _ in range(5):
                links.send(b"alive")
                await asyncio.sleep(0.01)
        finally:
            links.close()

    asyncio.run(scenario())


def test_an_address_that_is_not_here_is_one_clear_line() -> None:
    async def scenario() -> None:
        link = LinkConfig(local="192.0.2.1:7434", peer="192.0.2.2:7434")
        with pytest.raises(LinkError, match=r"link 192.0.2.1:7434: .* no interface here has this address"):
            Links([link], lambda *_: None).open()

    asyncio.run(scenario())
