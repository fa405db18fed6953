"""A weight in the answer to a health check: what is one, and what it makes of shares."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.config import ConfigError, MasterConfig, parse
from feedback.config.probe import Check
from feedback.master import Controller
from feedback.master.claims.health import Outcome
from feedback.master.servers.fleet import Source, Trust
from feedback.master.shell.weight import in_body, in_header
from tests.master.builders import Table, report, rip
from tests.master.test_probes import OK, outcome

HEADER = "X-Load-Balancing-Endpoint-Weight"
ANSWER = b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s"


def said(answer: bytes, **keys: str) -> Outcome:
    return outcome(Check(type="http", **keys), answer)


@pytest.mark.parametrize(
    "head, weight, warning",
    [
        (b"X-Load-Balancing-Endpoint-Weight: 3\r\n", 3.0, ""),
        (b"x-load-balancing-endpoint-weight:  1000 \r\n", 1000.0, ""),
        (b"X-Load-Balancing-Endpoint-Weight: 0\r\n", 0.0, ""),
        (b"X-Load-Balancing-Endpoint-Weight: 0.5\r\n", 0.5, ""),
        (b"X-Load-Balancing-Endpoint-Weight: 1e3\r\n", None, "'1e3' is no weight"),
        (b"X-Load-Balancing-Endpoint-Weight: -1\r\n", None, "'-1' is no weight"),
        (b"X-Load-Balancing-Endpoint-Weight: 1_0\r\n", None, "is no weight"),
        (b"X-Load-Balancing-Endpoint-Weight: 10000000\r\n", None, "'a larger number' is no weight"),
        (b"X-Load-Balancing-Endpoint-Weight: 1\r\nX-Load-Balancing-Endpoint-Weight: 2\r\n", None, "is no weight"),
        (b"X-Load-Balancing-Endpoint-Weight: \xff\x1b[31m\r\n", None, "is no weight"),
        (b"Weight: 3\r\n", None, "no header X-Load"),
    ],
)
def test_a_header_is_a_weight_or_a_warning(head: bytes, weight: float | None, warning: str) -> None:
    made = said(ANSWER % (head, 2, b"ok"), weight_header=HEADER)
    assert made.weight == weight
    assert warning in made.warning
    assert made.warning.isprintable()
    assert made.good


@pytest.mark.parametrize(
    "body, pointer, weight, warning",
    [
        (b'{"load":{"weight":7}}', "/load/weight", 7.0, ""),
        (b'{"a/b":[1,{"~":2.5}]}', "/a~1b/1/~0", 2.5, ""),
        (b'{"load":true}', "/load", None, "'True' is no weight"),
        (b'{"load":"7"}', "/load", None, "'7' is no weight"),
        (b'{"load":null}', "/load", None, "is no weight"),
        (b'{"load":-1}', "/load", None, "'a negative number' is no weight"),
        (b'{"load":1' + b"0" * 400 + b"}", "/load", None, ""),
        (b'{"load":1}', "/other", None, "no /other in the answer"),
        (b"[1]", "/5", None, "is no weight"),
        (b"hello", "/load", None, "is not JSON"),
        (b"[" * 5000, "/0", None, "is not JSON"),
    ],
)
def test_a_member_of_a_body_is_a_weight_or_a_warning(
    body: bytes, pointer: str, weight: float | None, warning: str
) -> None:
    made = said(ANSWER % (b"", len(body), body), weight_json=pointer)
    assert made.good and made.weight == weight
    assert warning in made.warning
    assert (made.weight is None) == bool(made.warning)


def test_a_failing_answer_says_no_weight() -> None:
    assert said(OK.replace(b"200", b"503"), weight_header=HEADER).weight is None
    made = said(ANSWER % (b"", 12, b'{"weight":7}'), weight_json="/weight", body="absent")
    assert (made.good, made.weight) == (False, None)


@given(st.binary(max_size=200))
def test_no_answer_breaks_it(data: bytes) -> None:
    for found in (
        in_body(Check(type="http", weight_json="/0"), b"[" + data + b"]"),
        in_header(Check(type="http", weight_header="w"), [(b"w", data)]),
    ):
        assert (found.weight is None) == bool(found.problem)
        assert found.problem.isprintable()


def test_only_an_http_check_has_a_weight_and_in_one_place() -> None:
    for keys, why in (
        ('type = "tcp"\nweight_header = "a"', "weight_header: is for type"),
        ('type = "http"\nweight_header = "a"\nweight_json = "/b"', "leave one out"),
        ('type = "http"\nweight_header = "a b"', "weight_header"),
        ('type = "http"\nweight_json = "b"', "weight_json"),
    ):
        with pytest.raises(ConfigError) as refused:
            parse(f'[[service]]\nvirtual = "tcp:10.0.0.1:80"\n[service.check]\n{keys}\n', MasterConfig)
        assert why in str(refused.value)


class Bench:
    """Servers that say weights in answer to their checks; those in `agents` are known by these, all equal."""

    def __init__(self, weights: list[float | None], law: str = "capacity", static: list[int] | None = None) -> None:
        self.weights = weights
        rows = "".join(
            f'[[service.destination]]\naddress = "{rip(i + 1).address}"\nweight = {(static or [100] * 9)[i]}\n'
            for i in range(len(weights))
        )
        check = f'[service.check]\ntype = "http"\nweight_header = "{HEADER}"\n'
        text = f'[[service]]\nvirtual = "tcp:10.0.0.100:80"\nlaw = "{law}"\n{rows}{check}'
        self.controller, self.table, self.now = Controller(parse(text, MasterConfig)), Table(), 1000.0
        self.agents: dict[int, float] = {}  # what each completes
        self.counts: dict[int, float] = {}

    def run(self, seconds: float) -> list[int]:
        for _ in range(round(seconds / 0.2)):
            self.now += 0.2
            for i, speed in self.agents.items():
                self.counts[i] = self.counts.get(i, 0.0) + 0.2
                done = self.counts[i]
                self.controller.receive_report(
                    report(i + 1, at=self.now, sequence=round(done * 5), busy=done / 2, opened=int(done * speed / 2)),
                    self.now,
                )
            for probe in self.controller.probes(self.now):
                index = next(
                    i for i in range(len(self.weights)) if ip_address(rip(i + 1).address) == probe.target.address
                )
                self.controller.receive_probe(probe, Outcome(True, "", weight=self.weights[index]), self.now)
            self.controller.receive_kernel(self.table.snapshot(), self.now)
            self.decision = self.controller.decide(self.now)
            self.table.apply(self.decision.edits)
        return self.table.weights()


@pytest.mark.parametrize("law", ["capacity", "static"])
def test_without_another_source_shares_are_as_the_weights(law: str) -> None:
    weights = Bench([1.0, 2.0, 3.0, 2.0], law).run(30)
    assert [w / sum(weights) for w in weights] == pytest.approx([1 / 8, 2 / 8, 3 / 8, 2 / 8], rel=0.06)


def test_a_weight_replaces_the_static_one() -> None:
    weights = Bench([1.0, 2.0], "static", static=[300, 100]).run(30)
    assert weights[0] / weights[1] == pytest.approx(0.5, rel=0.06)


def test_weight_0_takes_out_and_any_other_brings_back() -> None:
    bench = Bench([1.0, 1.0, 1.0])
    bench.run(10)
    bench.weights[1] = 0.0
    assert bench.run(5)[1] == 0
    status = bench.decision.services[0].destinations[1]
    assert str(status.zero.why) == "the answer to its check says weight 0"  # type: ignore[union-attr]
    bench.weights[1] = 1.0
    weights = bench.run(40)
    assert weights[1] == pytest.approx(weights[0], rel=0.06)


def test_a_measured_capacity_tells_more_and_the_others_fill_up_by_their_weights() -> None:
    bench = Bench([9.0, 9.0, 1.0, 2.0, 1.0])
    bench.agents = {0: 100.0, 1: 200.0}
    weights = bench.run(40)
    assert weights[0] / weights[1] == pytest.approx(0.5, rel=0.15)
    assert weights[2] / weights[3] == pytest.approx(0.5, rel=0.15)
    rows = bench.decision.services[0].destinations
    assert [row.source for row in rows] == [Source.AGENT] * 2 + [Source.HEADER] * 3
    assert any("which tells more" in reason.text for reason in rows[0].reasons)
    assert any("says weight 2 in answer" in reason.text for reason in rows[3].reasons)


def test_a_weight_that_is_not_said_any_more_grows_old_and_stays() -> None:
    bench = Bench([1.0, 3.0])
    before = bench.run(20)
    bench.weights = [None, None]
    assert bench.run(60) == before
    assert {row.trust for row in bench.decision.services[0].destinations} == {Trust.LOST}


def test_one_server_cannot_talk_itself_past_the_ceiling() -> None:
    weights = Bench([1.0] * 9 + [1e6], static=[100] * 10).run(60)
    assert weights[-1] / sum(weights) <= 0.41
