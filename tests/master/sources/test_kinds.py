"""Each kind of page as what an agent would have said, and the stream of reports that pages make."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.config import Exporter
from feedback.master.servers.window import Window, difference
from feedback.master.sources.reading import Reader, Unread, name
from feedback.wire import Application, Connections, Pressure, Report, decode_report, encode
from tests.master.sources.pages import NODE, WINDOWS

RIP = ip_address("10.0.0.11")


def reader(**keys: Any) -> Reader:
    return Reader(Exporter(**keys), RIP)


def read(page: bytes, **keys: Any) -> Report:
    made = reader(**keys).read(page, 100.0)
    assert isinstance(made, Report), made
    return made


def unread(page: bytes, **keys: Any) -> str:
    made = reader(**keys).read(page, 100.0)
    assert isinstance(made, Unread)
    return made.reason


def window(of: Reader, first: bytes, second: bytes, seconds: float = 1.0) -> Window:
    a, b = of.read(first, 100.0), of.read(second, 100.0 + seconds)
    assert isinstance(a, Report) and isinstance(b, Report), (a, b)
    made = difference(a, b, 0.0, b.sampled_at - a.sampled_at)
    assert isinstance(made, Window)
    return made


def test_node_exporter_says_what_an_agent_of_the_host_says() -> None:
    made = read(NODE)
    assert made.cpu.cores == 2
    busy = 9512.82 + 17.14 + 21.16 + 5886.12 + 24166.92 + 9620.68 + 64.64 + 20.75 + 4861.31 + 25314.43
    assert made.cpu.busy_seconds == pytest.approx(busy)
    assert made.cpu.steal_seconds == pytest.approx(41.91)
    assert made.cpu.runnable == 2
    assert made.connections == Connections(590288, 2, 138553, 561854)
    assert made.pressure == Pressure(29780.687018, 0, 0, 230.812319, 69.874738)
    assert (made.memory.available, made.memory.total, made.memory.swap_in_pages) == (24516313088, 25276502016, 12)
    assert (made.addresses, made.interval_seconds) == (("10.0.0.11",), 1.0)
    assert made.sampled_at == pytest.approx(1.7960418137418895e09, abs=1e-6)


def test_a_report_of_an_exporter_can_be_recorded_as_an_agents() -> None:
    for address in (RIP, ip_address("2001:db8::11")):
        made = Reader(Exporter(), address).read(NODE, 1.0)
        assert isinstance(made, Report)
        assert decode_report(encode(made)) == made


def test_windows_exporter_counts_nothing_twice() -> None:
    made = read(WINDOWS, kind="windows")
    assert (made.cpu.cores, made.cpu.busy_seconds) == (2, 800.5)  # dpc and interrupt are inside privileged
    assert made.connections == Connections(10_000, 35)
    assert (made.memory.available, made.memory.total) == (6_000_000_000, 16_000_000_000)
    assert made.sampled_at == 100.0  # it does not tell its clock


@pytest.mark.parametrize(
    "kind, page", [("node", WINDOWS), ("windows", NODE), ("node", b""), ("windows", b"<html>no</html>")]
)
def test_another_page_is_said_to_be_one(kind: str, page: bytes) -> None:
    assert "_total in it: is it" in unread(page, kind=kind)


def test_what_a_page_leaves_out_is_not_known() -> None:
    made = read(b'node_cpu_seconds_total{cpu="0",mode="user"} 1\n')
    assert (made.connections, made.pressure, made.memory.total, made.cpu.runnable) == (None, None, 0, None)


VLLM = {"kind": "custom", "port": 8000, "gauge": "vllm:num_requests_running", "limit": 256}
FPM = {"kind": "custom", "port": 9253, "gauge": "phpfpm_active_processes", "limit": "phpfpm_total_processes"}
HAPROXY = {
    "kind": "custom",
    "port": 8404,
    "gauge": 'haproxy_backend_current_sessions{proxy="app"}',
    "limit": 'haproxy_backend_limit_sessions{proxy="app"}',
}
COUNTERS = {"kind": "custom", "port": 1, "busy": "busy_seconds_total", "total": "worker_seconds_total"}


@pytest.mark.parametrize(
    "keys, page, part",
    [
        (VLLM, b'vllm:num_requests_running{engine="0",model_name="m"} 64\n', 0.25),
        (VLLM, b'vllm:num_requests_running{engine="0"} 100\nvllm:num_requests_running{engine="1"} 400\n', 1.0),
        (FPM, b'phpfpm_active_processes{pool="www"} 3\nphpfpm_total_processes{pool="www"} 12\n', 0.25),
        (
            HAPROXY,
            b'haproxy_backend_current_sessions{proxy="app"} 30\nhaproxy_backend_current_sessions{proxy="x"} 999\n'
            b'haproxy_backend_limit_sessions{proxy="app"} 300\n',
            0.1,
        ),
        (VLLM, b"vllm:num_requests_running -5\n", 0.0),
    ],
)
def test_a_gauge_is_a_part_of_its_limit(keys: dict[str, Any], page: bytes, part: float) -> None:
    assert read(page, **keys).applications == (Application(utilisation=part),)


def test_a_cumulative_pair_tells_by_what_it_grows() -> None:
    of = reader(**COUNTERS)
    assert isinstance(of.read(b"busy_seconds_total 100\nworker_seconds_total 1000\n", 1.0), Unread)
    made = of.read(b"busy_seconds_total 102\nworker_seconds_total 1008\n", 2.0)
    assert isinstance(made, Report)
    assert made.applications == (Application(utilisation=0.25),)
    assert "have not grown" in str(of.read(b"busy_seconds_total 1\nworker_seconds_total 2\n", 3.0))


@pytest.mark.parametrize(
    "keys, page, why",
    [
        (VLLM, b"other 1\n", "no vllm:num_requests_running in it"),
        (FPM, b"phpfpm_active_processes 1\n", "no phpfpm_total_processes in it"),
        (FPM, b"phpfpm_active_processes 1\nphpfpm_total_processes 0\n", "not a usable limit"),
    ],
)
def test_a_custom_page_that_lacks_something_says_what(keys: dict[str, Any], page: bytes, why: str) -> None:
    assert why in unread(page, **keys)


def test_two_pages_of_node_exporter_make_the_window_of_an_agent() -> None:
    later = (
        NODE.replace(b"24166.92", b"24167.42").replace(b"590288", b"590388").replace(b"CurrEstab 2", b"CurrEstab 12")
    )
    later = later.replace(b"29780.687018", b"29780.787018").replace(
        b"1.7960418137418895e+09", b"1.7960418147418895e+09"
    )
    made = window(reader(), NODE, later, seconds=1.2)
    assert made.seconds == pytest.approx(1.0, abs=1e-6)  # by the server's clock, whatever the network did
    assert (made.busy, made.stolen) == (pytest.approx(0.25), 0.0)
    assert (made.opened, made.completions, made.own) == (100, 90, None)
    assert made.cpu_pressure == pytest.approx(0.1)


def test_a_custom_page_is_of_no_neighbour_and_the_director_counts() -> None:
    made = window(reader(**VLLM), b"vllm:num_requests_running 64\n", b"vllm:num_requests_running 128\n")
    assert (made.busy, made.own, made.completions) == (0.0, 0.0, None)
    assert made.applications[0].utilisation == 0.5


@pytest.mark.parametrize(
    "change",
    [
        (b"1.795994968e+09", b"1.796041000e+09"),  # it was booted
        (b"1.7960418137418895e+09", b"1.7960482137418895e+09"),  # its clock was set
        (b"node_time_seconds", b"node_no_time"),
    ],
)
def test_a_server_that_begins_anew_makes_no_window_with_what_was_before(change: tuple[bytes, bytes]) -> None:
    of = reader()
    a, b = of.read(NODE, 100.0), of.read(NODE.replace(*change), 101.0)
    assert isinstance(a, Report) and isinstance(b, Report)
    assert a.boot != b.boot


@pytest.mark.parametrize("number", [b"-1", b"1e300", b"9e18", b"-1e12"])
@pytest.mark.parametrize(
    "of", [b"24166.92", b"590288", b"2.5276502016e+10", b"1.7960418137418895e+09", b"29780.687018"]
)
def test_numbers_that_no_agent_may_say_are_refused_or_bounded(number: bytes, of: bytes) -> None:
    made = reader().read(NODE.replace(of, number), 100.0)
    if isinstance(made, Report):
        assert decode_report(encode(made)) == made
    else:
        assert made.reason.isprintable()


@given(st.binary(max_size=200), st.integers(0, len(NODE)))
def test_no_page_breaks_a_reader(data: bytes, at: int) -> None:
    for kind, page in (("node", NODE), ("windows", WINDOWS)):
        made = reader(kind=kind).read(page[:at] + data + page[at:], 100.0)
        assert isinstance(made, Report | Unread)


def test_the_same_question_of_the_same_server_has_one_name() -> None:
    assert name(Exporter(), RIP) == name(Exporter(kind="node"), RIP)
    assert len({name(Exporter(port=port), RIP) for port in (9100, 9101)} | {name(Exporter(tls=True), RIP)}) == 3
