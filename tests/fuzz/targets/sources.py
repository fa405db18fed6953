"""What servers say instead of an agent of ours: pages of exporters, and a weight in the answer to a check."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from feedback.config import Exporter
from feedback.config.probe import Check
from feedback.master.servers.fleet import Fleet
from feedback.master.shell.weight import in_body
from feedback.master.sources.reading import Reader, Unread
from feedback.wire import decode_report, encode
from tests.fuzz.target import Target


def page(**keys: str | int) -> Callable[[bytes], None]:
    exporter = Exporter(**keys)  # type: ignore[arg-type]

    def take(data: bytes) -> None:
        reader, fleet = Reader(exporter, ip_address("10.0.0.11")), Fleet(2.0, 15.0)
        for at in (100.0, 101.0):
            made = reader.read(data, at)
            if isinstance(made, Unread):
                raise ValueError(made.reason)
            assert decode_report(encode(made)) == made
            fleet.receive_reading(made, at)

    return take


def weight(data: bytes) -> None:
    said = in_body(Check(type="http", weight_json="/load/0/w"), data)
    if said.weight is None:
        raise ValueError(said.problem)
    assert 0 <= said.weight <= 1e6


PAGES = (b"node_cpu_seconds_total", b'{cpu="0",mode="user"} ', b"NaN", b"1e308", b"-Inf", b'\\"', b"} ", b" # {} 1",
         b"\n" * 500, b"node_time_seconds 1e99\n", b'{a="' + b"x" * 600)  # fmt: skip
TARGETS = (
    Target(name="exporter-node", take=page(), refuses=(ValueError,), tokens=PAGES),
    Target(name="exporter-windows", take=page(kind="windows"), refuses=(ValueError,), tokens=PAGES),
    Target(name="exporter-custom", take=page(kind="custom", port=1, gauge='g{a="b"}', limit="l"),
           refuses=(ValueError,), tokens=(*PAGES, b'g{a="b"} ', b"l 0\n")),
    Target(name="check-weight", take=weight, refuses=(ValueError,),
           tokens=(b'{"load":[{"w":', b"1e400", b"9" * 400, b"[" * 600, b"null", b"true")),
)  # fmt: skip
