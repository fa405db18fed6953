"""Following keepalived: the role is that of its last word, and heartbeats tell the peer."""

from __future__ import annotations

from feedback.sync.election.election import Settings
from feedback.sync.election.engine import Following
from feedback.sync.election.heartbeat import Role
from feedback.sync.election.keepalived import Notice, Vrrp
from feedback.sync.election.transitions import Decision, SendHeartbeat, StepDown, TakeOver


def settings(peer: str) -> Settings:
    return Settings(peer=peer, addresses=())


def decided(engine: Following, now: float) -> list[Decision]:
    return [d for d in engine.handle_timer(now) if not isinstance(d, SendHeartbeat)]


def test_a_word_is_obeyed_at_once_and_once() -> None:
    engine = Following(settings("d2"), "d1", 1, 0.0)
    assert engine.role is Role.STANDBY and decided(engine, 0.0) == []
    engine.receive_notice(Notice("VI_1", Vrrp.MASTER, 150), 1.0)
    assert engine.next_timer() <= 1.0
    (took,) = decided(engine, 1.0)
    assert isinstance(took, TakeOver) and "VI_1 is MASTER with priority 150" in took.reason and took.term == 1
    engine.receive_notice(Notice("VI_1", Vrrp.MASTER, 150), 2.0)
    assert decided(engine, 2.0) == []
    for state in (Vrrp.FAULT, Vrrp.STOP):
        engine.receive_notice(Notice("VI_1", state), 3.0)
    (left,) = decided(engine, 3.0)
    assert isinstance(left, StepDown) and engine.role is Role.STANDBY
    assert [str(t.new) for t in engine.status(3.0).transitions] == ["active", "standby"]


def test_heartbeats_tell_the_peer_and_the_term_grows_over_both() -> None:
    one, other = Following(settings("d2"), "d1", 11, 0.0), Following(settings("d1"), "d2", 22, 0.0)
    one.receive_notice(Notice("VI_1", Vrrp.MASTER), 0.0)
    for step in range(5):
        now = 0.03 * step
        other.receive_heartbeat(one.heartbeat(now), "link", now)
        one.receive_heartbeat(other.heartbeat(now), "link", now)
    peer = other.status(0.15).peer
    assert peer is not None and peer.alive and peer.role is Role.ACTIVE and peer.installed
    assert other.status(0.15).links[0].age_seconds is not None
    other.receive_notice(Notice("VI_1", Vrrp.MASTER), 0.2)
    (took,) = decided(other, 0.2)
    assert isinstance(took, TakeOver) and took.term == 2


def test_a_restarted_daemon_goes_on_as_it_was() -> None:
    engine = Following(settings("d2"), "d1", 1, 0.0, active=True)
    assert engine.role is Role.ACTIVE
    assert [type(d) for d in decided(engine, 0.0)] == [TakeOver]


def test_a_handover_is_keepaliveds() -> None:
    assert "keepalived decides" in str(Following(settings("d2"), "d1", 1, 0.0).request_handover(0.0))
