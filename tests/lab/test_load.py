"""The load: the same seed, the same requests."""

import time
from dataclasses import replace

import pytest

from feedback.lab.workload import records
from feedback.lab.workload.burn import Meter, calibrate
from feedback.lab.workload.load import Load, requests


def load(**changes: float) -> Load:
    values = {"rate": 100.0, "seconds": 50.0, "seed": 1, "cost_ms": 2.0, **changes}
    return Load("10.77.0.100", 80, **values)  # type: ignore[arg-type]


def test_one_seed_gives_one_sequence() -> None:
    assert list(requests(load())) == list(requests(load()))
    assert list(requests(load())) != list(requests(load(seed=2)))


def test_another_cost_leaves_the_arrivals_alone() -> None:
    plain, varied = list(requests(load())), list(requests(load(cost_variation=1.0, hold_seconds=2.0)))
    assert [r.offset_seconds for r in plain] == [r.offset_seconds for r in varied]


def test_the_means_are_what_was_asked_for() -> None:
    made = list(requests(load(cost_variation=1.0, hold_seconds=2.0)))
    assert len(made) == pytest.approx(5000, rel=0.05)
    assert sum(r.cost_ms for r in made) / len(made) == pytest.approx(2.0, rel=0.1)
    assert sum(r.hold_seconds for r in made) / len(made) == pytest.approx(2.0, rel=0.1)


def test_all_arrivals_lie_in_the_time_of_the_load() -> None:
    offsets = [r.offset_seconds for r in requests(load())]
    assert offsets == sorted(offsets)
    assert offsets[-1] < 50.0


def test_a_load_survives_its_journey() -> None:
    stepped = replace(load(), steps=((10.0, 20.0), (20.0, 5.0)))
    assert Load.decode(stepped.encode()) == stepped


def test_a_step_changes_the_rate_from_its_moment_on_and_nothing_before() -> None:
    plain, stepped = list(requests(load())), list(requests(replace(load(), steps=((20.0, 300.0), (30.0, 0.0001)))))
    before = [r for r in stepped if r.offset_seconds < 20]
    assert [r.offset_seconds for r in before] == [r.offset_seconds for r in plain if r.offset_seconds < 20]
    assert sum(20 <= r.offset_seconds < 30 for r in stepped) == pytest.approx(3000, rel=0.06)
    assert not [r for r in stepped if r.offset_seconds > 30]


def test_records_are_read_as_they_were_written_and_a_half_one_is_left(tmp_path) -> None:
    path = tmp_path / "records"
    first, second = records.pack(1.5, 0.25, 200, 3), records.pack(2.5, 10.0, -110, 0)
    path.write_bytes(first + second[:-1])
    assert records.read(path) == [records.Record(1.5, 0.25, 200, 3)]
    path.write_bytes(first + second)
    assert records.read(path, len(first)) == [records.Record(2.5, 10.0, -110, 0)]
    assert records.read(tmp_path / "none") == []


def test_the_cost_of_a_metered_request_includes_the_servers_own_work() -> None:
    meter, begin = Meter(calibrate()), time.process_time()
    for _ in range(20):
        own = time.process_time() + 0.001
        while time.process_time() < own:
            pass
        meter.burn(3.0)
    assert time.process_time() - begin == pytest.approx(0.060, abs=0.003)


def test_a_meter_charges_nobody_for_what_was_used_while_nothing_was_asked() -> None:
    clock = iter([0.0, 5.0, 5.0, 5.0, 5.001, 5.003, 5.0041])
    meter = Meter(1.0, clock=lambda: next(clock))
    meter.burn(3.0)  # at 5.0: long overdue
    meter.burn(4.0)  # until 5.004
    assert next(clock, None) is None
