"""A real master reads pages over real sockets: two servers, of which the second completes three times as much."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tests.master.test_daemon import Site, run, site, until
from tests.master.test_watched_daemon import weights, written
from tests.ports import free_port

__all__ = ["site"]  # the fixture


@contextmanager
def exporter(address: str, port: int, per_second: float) -> Iterator[None]:
    """node_exporter of a server that is half busy and completes so many connections a second."""
    began, stopped = time.monotonic(), list[bool]()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if stopped:  # a kept connection outlives the listening socket
                self.close_connection = True
                return
            at = time.monotonic() - began
            page = (
                f'node_cpu_seconds_total{{cpu="0",mode="user"}} {at / 2}\n'
                f"node_netstat_Tcp_PassiveOpens {int(at * per_second)}\nnode_netstat_Tcp_CurrEstab 0\n"
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((address, port), Handler) as server:
        server.daemon_threads = True  # its connections are kept
        server.block_on_close = False
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            stopped.append(True)
            server.shutdown()
            thread.join(5)


def test_pages_set_the_weights_and_a_silent_one_takes_nobody_out(site: Site) -> None:
    port = free_port()
    written(site, f"[service.exporter]\nport = {port}\n")

    def work() -> None:
        with exporter("127.0.0.12", port, 300.0), exporter("127.0.0.11", port, 100.0):
            until(lambda: 2.4 < ratio() < 3.6)
            told = site.status()["services"][0]["destinations"]
            assert [d["source"] for d in told] == ["exporter", "exporter"]
        until(lambda: site.status()["services"][0]["destinations"][0]["unread"] is not None)
        assert min(weights(site)) > 0

    def ratio() -> float:
        one, two = weights(site)
        return two / one if one > 0 else 0.0

    run(site, work)
