"""The state on the disk: whole or as it was, tried again, and one that is full is said by the master once."""

from __future__ import annotations

import contextlib
import resource
import shutil
from pathlib import Path

import pytest

from feedback.master.claims.orders import Kind, Order
from feedback.master.servers.capacity import Learned
from feedback.master.shell.daemon import NOT_SAVED
from feedback.master.shell.statefile import LEARNED_SECONDS, RETRY_SECONDS, StateFile
from feedback.master.state import ServiceState, State, StateError
from feedback.model import SetDestination
from feedback.ops.control import ControlError, ask
from tests.master import test_daemon
from tests.master.builders import VIRTUAL, rip
from tests.master.test_daemon import Site, run, until

site = test_daemon.site  # a fixture

DRAINED = State(orders=(Order(kind=Kind.DRAIN, service=str(VIRTUAL), destination=str(rip(1))),))
NONE = State()


def learned(level: float) -> State:
    what = Learned(level)
    return State(services={str(VIRTUAL): ServiceState(learned={str(rip(1)): what})})


@pytest.fixture
def file(tmp_path: Path) -> StateFile:
    return StateFile(tmp_path / "state.json")


@pytest.fixture
def full(file: StateFile) -> Path:
    """The next writing finds no room: a real ENOSPC."""
    new = file.path.with_suffix(".new")
    new.symlink_to("/dev/full")
    return new


def test_an_order_is_written_at_once_and_what_is_learned_now_and_then(file: StateFile) -> None:
    file.save(learned(1.0), 10.0)
    file.save(learned(2.0), 10.1)
    assert file.read() == learned(1.0)
    file.save(learned(2.0), 10.0 + LEARNED_SECONDS)
    assert file.read() == learned(2.0)
    file.save(DRAINED, 10.2 + LEARNED_SECONDS)
    assert file.read() == DRAINED


def test_what_was_learned_is_due_now_and_then_and_a_failed_writing_sooner(file: StateFile, full: Path) -> None:
    assert file.due(0.0)
    file.save(DRAINED, 10.0)
    assert file.problem
    assert [file.due(10.0 + t) for t in (RETRY_SECONDS / 2, RETRY_SECONDS)] == [False, True]
    file.save(DRAINED, 12.0)
    assert [file.due(12.0 + t) for t in (RETRY_SECONDS, LEARNED_SECONDS)] == [False, True]


def test_a_full_disk_leaves_the_old_file_whole_and_is_tried_again_once_a_second(file: StateFile, full: Path) -> None:
    full.unlink()
    file.save(NONE, 10.0)
    full.symlink_to("/dev/full")
    file.save(DRAINED, 10.1)
    assert "No space left" in file.problem
    assert file.read() == NONE
    assert not full.is_symlink()  # what was begun takes no room
    file.save(DRAINED, 10.1 + RETRY_SECONDS / 2)
    assert file.read() == NONE
    file.save(DRAINED, 10.1 + RETRY_SECONDS)
    assert file.read() == DRAINED
    assert file.problem == ""


def test_a_file_cut_short_never_takes_the_place_of_a_whole_one(file: StateFile) -> None:
    file.save(NONE, 10.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))  # some of it can be written, and then no more
    try:
        file.save(DRAINED, 11.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "too large" in file.problem
    assert file.read() == NONE


def test_an_order_is_tried_whatever_was_tried_before_and_the_answer_is_true(file: StateFile, full: Path) -> None:
    assert not file.insist(DRAINED, 10.0)
    assert file.insist(DRAINED, 10.0)
    assert file.read() == DRAINED


def test_what_another_master_wrote_meanwhile_is_written_over_once_it_is_forgotten(file: StateFile) -> None:
    file.save(DRAINED, 10.0)
    StateFile(file.path).save(NONE, 11.0)
    file.forget()
    file.save(DRAINED, 12.0)
    assert file.read() == DRAINED


def test_nonsense_is_refused_and_put_aside(file: StateFile) -> None:
    file.path.write_text("{nonsense")
    with pytest.raises(StateError):
        file.read()
    assert file.put_aside().read_text() == "{nonsense"
    assert file.read() is None


def test_a_master_with_a_full_disk_goes_on_says_so_once_and_saves_when_there_is_room(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    new = site.directory / "state.new"
    state = StateFile(site.directory / "state.json")

    def work() -> None:
        until(lambda: state.path.exists())
        (new / "in-the-way").mkdir(parents=True)
        answer = ask(site.control, {"command": "drain", "destination": str(rip(1).address)})
        assert NOT_SAVED in answer["notes"]
        until(lambda: site.weights() == [0, 100])
        until(lambda: "state-failed" in told())
        assert state.read() is not None
        assert state.read().orders == ()  # type: ignore[union-attr]
        shutil.rmtree(new)
        until(lambda: len(state.read().orders) == 1)  # type: ignore[union-attr]
        assert NOT_SAVED not in ask(site.control, {"command": "undrain", "destination": str(rip(1).address)})["notes"]

    heard: list[str] = []

    def told() -> str:
        heard.append(capfd.readouterr().err)
        return "".join(heard)

    run(site, work)
    assert told().count("state-failed") == 1
    assert told().count("state-saved") == 1


def test_a_server_drained_unsaved_stays_out_after_a_restart_until_somebody_gives_it_a_weight(site: Site) -> None:
    new = site.directory / "state.new"

    def first() -> None:
        until(lambda: (site.directory / "state.json").exists())
        (new / "in-the-way").mkdir(parents=True)
        ask(site.control, {"command": "drain", "destination": str(rip(1).address)})
        until(lambda: site.weights() == [0, 100])

    def second() -> None:
        until(lambda: _states(site) == ["quiesced", "never"])
        assert site.weights() == [0, 100]
        found = site.kernel.snapshot().entry(VIRTUAL).entry(rip(1)).destination  # type: ignore[union-attr]
        site.kernel.apply([SetDestination(VIRTUAL, type(found)(found.key, 1, found.forward))])
        until(lambda: _states(site) == ["never", "never"])

    run(site, first)
    shutil.rmtree(new)
    run(site, second)


def _states(site: Site) -> list[str]:
    """Empty while it does not answer yet."""
    with contextlib.suppress(ControlError):
        return [d["state"] for d in site.status()["services"][0]["destinations"]]
    return []


def test_an_order_goes_through_to_the_disk_and_what_is_learned_does_not_wait_for_it(
    file: StateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    through: list[int] = []
    monkeypatch.setattr("os.fsync", through.append)
    file.save(learned(1.0), 0.0)
    assert through == []
    assert file.insist(DRAINED, 1.0)
    assert len(through) == 1
