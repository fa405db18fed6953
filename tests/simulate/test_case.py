"""Cases: what is refused, in one line; the suite; what befalls servers in a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from feedback.config import ConfigError
from feedback.ipvs.fake_table import Overload
from feedback.simulate import figures, suite
from feedback.simulate.agents import Agent
from feedback.simulate.case import RATE_MAX, Bursts, Change, Load, check, enlarged, parse, read
from feedback.simulate.draws import generator
from feedback.simulate.policy import Policy
from feedback.simulate.run import run
from feedback.simulate.servers import Server
from feedback.simulate.traffic import make
from feedback.simulate.world import World
from tests.simulate.builders import case

GOOD = """
name = "mine"
seconds = 20
kernel = "since 6.1.192"
thresholds = "learned"
[[server]]
cores = 4
count = 3
[[load]]
part = 0.5
[[load]]
at_seconds = 10
part = 0.8
[[change]]
at_seconds = 5
servers = [2]
available = 0.5
"""


def test_a_case_of_ones_own_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(GOOD)
    made = read(tmp_path / "mine.toml")
    assert len(made.servers) == 3
    assert made.capacity == pytest.approx(1200)
    assert made.kernel is Overload.SINCE_6_1_192


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("cores = 4", "cores = -4", "server[0].cores: Expected"),
        ("part = 0.5", "parts = 0.5", "load[0]: unknown field"),
        ("servers = [2]", "servers = [3]", "change[0].servers: 3: there are 3, counted from 0"),
        ("at_seconds = 10", "at_seconds = 0", "load[1].at_seconds: 0 is not after 0"),
        ('name = "mine"', 'name = "mine"\nschedulers = ["mh"]', "schedulers[0]: 'mh': expected one of"),
        ("seconds = 20", "seconds = 20\nmeasure_from_seconds = 20", "measure_from_seconds: must be less than"),
        ('name = "mine"', "name = ", "not TOML"),
    ],
)
def test_what_does_not_fit_is_one_line_with_its_place(old: str, new: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(GOOD.replace(old, new, 1), "mine.toml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / "none.toml")


def test_the_suite_holds_together_and_covers_what_it_must() -> None:
    for each in suite.CASES:
        check(each, each.name)
    assert len(set(suite.NAMES)) == len(suite.NAMES)
    assert len(suite.named("many").servers) == 200
    with pytest.raises(KeyError, match="expected one of"):
        suite.named("nothing")


def test_the_guide_tells_of_every_case() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulate.md").read_text(encoding="utf-8")
    assert "\n".join(f"| `{each.name}` | {each.summary} |" for each in suite.CASES) in page


def test_a_dead_server_costs_requests_until_the_health_check_takes_it_out() -> None:
    down = (Change(at_seconds=5.0, servers=(0,), down=True), Change(at_seconds=10.0, servers=(0,), down=False))
    trace = run(case(cores=(2.0, 2.0), part=0.3, seconds=20.0, change=down), Policy("plain", "wrr"), seed=1)
    sent = [s.requests[0] for s in trace.seconds]
    assert sent[3] > 0
    assert sent[7] == 0
    assert sent[15] > 0
    failed = [at for at, outcome in zip(trace.at, trace.outcome, strict=True) if outcome]
    assert min(failed) > 3.0
    assert 5.9 < max(failed) <= 6.0  # health check: one second


def test_a_failing_server_attracts_what_sed_sends_to_the_idle() -> None:
    failing = (Change(at_seconds=5.0, servers=(0,), failing=True),)
    trace = run(case(cores=(1.0, 1.0), part=0.6, seconds=10.0, change=failing), Policy("plain", "sed"), seed=1)
    assert figures.error_shares(figures.over(trace, 0.0), trace.case.timeout_seconds)["server_errors"] > 0.25
    assert figures.error_shares(figures.over(trace, 5.0), trace.case.timeout_seconds)["server_errors"] > 0.5


def test_waiting_that_is_not_cpu_shows_in_latency_and_not_in_utilisation() -> None:
    slow = (Change(at_seconds=0.0, servers=(0,), io_seconds=0.2),)
    trace = run(case(part=0.3, seconds=60.0, change=slow), Policy("plain", "sed"), seed=1)
    found = figures.figures(trace, None)
    assert found["mean_ms"] == pytest.approx(200 + 10 / 0.7, rel=0.1)
    assert sum(s.utilisation[0] for s in trace.seconds) / 60 == pytest.approx(0.3, rel=0.1)


def test_held_connections_keep_their_server() -> None:
    made = case(cores=(1.0, 1.0), part=0.3, seconds=40.0, hold_seconds=10.0, requests_per_second=2.0)
    trace = run(made, Policy("oracle", "sed"), seed=1)
    sent = [sum(s.requests) for s in trace.seconds]
    assert sum(sent[30:]) / 10 == pytest.approx(0.3 * 200, rel=0.35)
    assert not any(trace.outcome)


def test_clients_keep_their_connections_after_the_answer() -> None:
    """Little's law, on what the director counts: rate x (10 ms of work, shared, and 2 s idle)."""
    made = case(cores=(1.0, 1.0), part=0.3, seconds=60.0, keep_seconds=2.0)
    world = World(made, Policy("plain", "sed"), make(made, generator(1, "traffic")), generator(1, "world"))
    assert not any(world.run().outcome)
    assert sum(slot.active for slot in world.director.slots) == pytest.approx(60 * 2.01, rel=0.25)
    assert sum(server.open for server in world.servers) == sum(slot.active for slot in world.director.slots)


def test_a_server_that_died_has_no_kept_connections() -> None:
    """What was kept before it died is gone, and does not end a second time when its client would have closed it."""
    change = (Change(at_seconds=5.0, servers=(0,), down=True), Change(at_seconds=6.0, servers=(0,), down=False))
    made = case(cores=(1.0, 1.0), part=0.3, seconds=14.0, keep_seconds=1.0, change=change, timeout_seconds=0.01)
    world = World(made, Policy("plain", "wrr"), make(made, generator(1, "traffic")), generator(1, "world"))
    world.run()
    assert [server.open for server in world.servers] == [slot.active for slot in world.director.slots]


def test_bursts_take_cores_for_a_second_and_give_them_back() -> None:
    made = case(cores=(1.0, 1.0), seconds=6.0, bursts=Bursts(from_seconds=2.0, chance=0.5, depth=0.5))
    truths = {s.at: s.values for s in run(made, Policy("plain", "sed"), seed=1).truth}
    assert min(truths) == 0.0
    assert {v for values in truths.values() for v in values} == {100.0, 50.0}


def test_a_change_of_load_changes_the_arrivals() -> None:
    made = case(seconds=20.0)
    stepped = type(made)(
        name="step", server=made.server, load=(Load(part=0.2), Load(at_seconds=10.0, part=0.8)), seconds=20.0
    )
    at = run(stepped, Policy("plain", "sed"), seed=1).at
    assert sum(t < 10 for t in at) / 200 == pytest.approx(1.0, rel=0.15)
    assert sum(t >= 10 for t in at) / 800 == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("kernel", list(Overload))
def test_learned_thresholds_shed_what_is_too_much_on_both_kernels(kernel: Overload) -> None:
    made = case(cores=(2.0, 2.0), part=1.3, seconds=20.0, thresholds="learned", fin_seconds=0.0, kernel=kernel)
    shed = figures.figures(run(made, Policy("capacity", "sed"), seed=1), None)
    plain = figures.figures(run(made, Policy("plain", "sed"), seed=1), None)
    assert 0.1 < shed["refused"] < 0.4
    assert shed["p99_ms"] < plain["p99_ms"] / 2


def test_a_starved_server_is_slower_and_only_its_waiting_shows_it() -> None:
    server = Server(cores=2.0, speed=1.0)
    agent = Agent(case(cores=(2.0,)), server, "10.0.0.1", 0)
    server.change(0.0, available=None, speed=None, starved=0.5)
    for number in range(4):
        server.add(0.0, 1.0, number)
    report = agent.sample(2.0, generator(1, "agent"))
    assert server.capacity_cores == 1.0
    assert server.due() == pytest.approx(4.0), "four jobs of a second each on what is one core"
    assert report.cpu.busy_seconds / (2.0 * report.cpu.cores) == pytest.approx(0.5), "half used, it seems"
    assert report.pressure is not None
    assert report.pressure.cpu_some == pytest.approx(2.0), "and somebody waits all the time"
    assert report.cpu.runnable == 4.0


def test_a_case_is_enlarged_with_all_that_befalls_its_servers() -> None:
    small = suite.named("antagonists")
    large = enlarged(small, 20)
    check(large, "large")
    assert [s.cores for s in large.servers] == [small.servers[i % 8].cores for i in range(20)]
    assert [c.servers for c in large.change] == [(5, 13), (6, 14)]
    assert large.cost_seconds == small.cost_seconds
    huge = enlarged(small, 800)
    assert huge.capacity * small.load[0].part == pytest.approx(RATE_MAX)
    assert [c.servers for c in enlarged(small, 6).change] == [(5,)]
