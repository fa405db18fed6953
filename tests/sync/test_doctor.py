"""Would a takeover work now? Each fact that speaks against it becomes a finding that says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from feedback.sync.doctor import Facts, Level, examine, verdict

TRACKING = {"mode": "auto", "here": True, "peer": True, "problem": "", "untracked": 0, "adjusted": 0, "written": None}


def status(**changes: Any) -> dict[str, Any]:
    peer = {"name": "d2", "alive": True, "age_seconds": 0.01, "role": "standby", "replica": "complete",
            "version": 1, "version_differs": False} | changes.pop("peer", {})  # fmt: skip
    replica = {"state": "original", "text": "original", "lacking": 0, "ledger": None} | changes.pop("replica", {})
    links = [{"local": "1:1", "peer": "2:1", "up": True}, {"local": "1:2", "peer": "2:2", "up": True}]
    tracking = TRACKING | changes.pop("tracking", {})
    base = {"role": "active", "reason": "", "links": links, "replica": replica, "peer": peer, "tracking": tracking}
    return base | changes


def test_a_sound_pair_has_no_finding() -> None:
    assert examine(Facts(status=status())) == ()
    assert verdict(()) == "a takeover would work now"


LACKING = {"state": "complete", "text": "complete but for at most 7", "lacking": 7}
FULL = {"ledger": {"connections": 2_000_000, "limit": 2_000_000, "lacking": 1200}}
DOWN = {"local": "1:1", "peer": "2:1", "up": False}
UP = {"local": "1:2", "peer": "2:2", "up": True}


@pytest.mark.parametrize(
    ("facts", "level", "said"),
    [
        (Facts(status=status(peer={"age_seconds": None})), Level.ERROR, "d2 was never heard"),
        (Facts(status=status(peer={"alive": False, "age_seconds": 7.0})), Level.ERROR, "not been heard for 7.0 s"),
        (Facts(status=status(peer={"version_differs": True, "version": 2})), Level.ERROR, "protocol 2"),
        (Facts(status=status(role="standby")), Level.ERROR, "neither director is active"),
        (Facts(status=status(links=[DOWN, UP])), Level.WARNING, "link 1:1 to 2:1 is silent"),
        (Facts(status=status(links=[DOWN, DOWN])), Level.ERROR, "link 1:1 to 2:1 is silent"),
        (Facts(status=status(links=[UP])), Level.WARNING, "there is only one link"),
        (Facts(status=status(peer={"replica": "behind"})), Level.ERROR, "the replica on d2 is not complete: behind"),
        (
            Facts(
                status=status(
                    role="standby",
                    peer={"role": "active"},
                    replica={"state": "catching up", "text": "catching up 1 of 2"},
                )
            ),
            Level.ERROR,
            "the replica here is not complete: catching up 1 of 2",
        ),
        (
            Facts(status=status(role="standby", peer={"role": "active"}, replica=LACKING)),
            Level.ERROR,
            "the replica here is complete but for at most 7: a takeover would cut them",
        ),
        (Facts(status=status(replica=FULL)), Level.WARNING, "at most 1,200 connections do not fit in the ledger"),
        (Facts(status=status(tracking={"peer": False})), Level.ERROR, "shared by IPVS here, and is not on d2"),
        (Facts(status=status(tracking={"here": False})), Level.ERROR, "is not shared by IPVS here, and is on d2"),
        (Facts(status=status(tracking={"untracked": 1200})), Level.WARNING, "when 1,200 connections existed"),
        (Facts(status=status(tracking={"problem": "EINVAL"})), Level.ERROR, "cannot be written at a takeover: EINVAL"),
        (Facts(status=status(tracking={"written": {"refused": {"ENOMEM": 7}}})), Level.WARNING, "7 tracking entries"),
        (Facts(status=status(), replicates=False), Level.WARNING, "not replicated"),
        (Facts(status=status(), limitation="eth0 has no carrier"), Level.ERROR, "could not serve: eth0"),
        (Facts(status=status(), problems=["the backup thread does not run"]), Level.ERROR, "backup thread"),
        (Facts(status=status(), foreign=["10.0.0.100 is foreign: take it out"]), Level.ERROR, "10.0.0.100 is foreign"),
    ],
)
def test_each_reason_against_a_takeover_is_found(facts: Facts, level: Level, said: str) -> None:
    findings = examine(facts)
    assert [f for f in findings if f.level is level and said in f.what and f.mend], findings


def test_errors_come_first_and_make_the_verdict() -> None:
    findings = examine(Facts(status=status(links=[UP], peer={"replica": "behind"})))
    assert [f.level for f in findings] == [Level.ERROR, Level.WARNING]
    assert verdict(findings) == "a takeover now would fail or lose connections: 1 reason above"
    assert verdict(findings[1:]) == "a takeover would work now, with the remarks above"
