"""The past on the page: lines with words for who cannot see them, marks, what happened, and the pair."""

from __future__ import annotations

from array import array
from typing import Any

from feedback.web.history import DRAWN_MAX, History
from feedback.web.page import render
from feedback.web.past import FIGURES, Place, Step, Story
from tests.web.documents import NOW, destination, document, service
from tests.web.test_page import Read

WEB, ONE, TWO = "tcp:10.0.0.100:80", "10.0.0.11:80", "10.0.0.12:80"
CHECK = {"up": True, "text": "200 in 3 ms", "warning": ""}
MADE = document(service(WEB, destination(ONE, check=CHECK), destination(TWO)))
CLOCK = 5000.0  # monotonic
PAIR: dict[str, Any] = {
    "name": "d1",
    "state": "active",
    "reason": "the other one was silent",
    "peer": {"name": "d2", "role": "standby", "age_seconds": 0.04, "replica": "complete"},
    "replica": {"text": "the other one follows"},
    "links": [{"local": "192.0.2.1", "peer": "192.0.2.2", "up": True}, {"local": "a", "peer": "b", "up": False}],
    "transitions": [
        {"age_seconds": 60.0 * i, "old": "standby", "new": "active", "reason": f"{i}"} for i in range(1, 9)
    ],
}


def steps(*places: Place, count: int = 3) -> tuple[Step, ...]:
    rows = {place: row for row, place in enumerate(places)}
    values = [0.25, 0.5, 7.0, 40.0, 0.003] * len(places)
    return tuple(Step(CLOCK - 10 * back, rows, array("f", values)) for back in reversed(range(count)))


def page(events: tuple[dict[str, Any], ...] = (), made: dict[str, Any] = MADE, why: str = "", **given: Any) -> Read:
    found = [(s["virtual"], d) for s in made["services"] for d in ["", *(x["address"] for x in s["destinations"])]]
    return Read(render(made, NOW, why, Story(CLOCK, steps(*found), events, **given)))


def marks(read: Read) -> int:
    return sum("mark" in (attributes.get("class") or "") for tag, attributes in read.tags if tag == "path")


def test_every_figure_has_a_line_with_its_numbers_in_words() -> None:
    text = page().text
    for words in (
        "share, last 15 min: 25 to 25 %, now 25 %",
        "load, last 15 min: 50 to 50 %, now 50 %",
        "open, last 15 min: 7 to 7, now 7",
        "flow, last 15 min: 40 to 40/s, now 40/s",
        "latency, last 15 min: 3 to 3 ms, now 3 ms",
    ):
        assert words in text, words


def test_a_page_without_a_past_has_bars_and_no_lines() -> None:
    tags = [tag for tag, _ in Read(render(MADE, NOW)).tags]
    assert "svg" not in tags and "progress" in tags


def event(kind: str, ago: float, **where: Any) -> dict[str, Any]:
    return {"number": 1, "at": NOW - ago, "kind": kind} | where


def test_what_happened_to_a_server_is_marked_on_its_lines_and_said() -> None:
    lines = len(FIGURES)
    read = page((event("ejected", 60, service=WEB, destination=ONE, reason="answers with errors"),))
    assert marks(read) == lines
    assert "07:59:00 ejected: answers with errors" in read.text
    assert marks(page((event("agent-lost", 60, address="10.0.0.12"),))) == lines - 1  # it has no check


def test_what_happened_to_the_director_is_marked_everywhere_and_said_once() -> None:
    read = page((event("reloaded", 30, path="/etc/feedback/master.toml"),))
    assert marks(read) == sum(tag == "svg" for tag, _ in read.tags)
    assert read.text.count("reloaded") == 1


def test_neither_new_weights_nor_what_is_long_ago_is_marked() -> None:
    old = event("ejected", 901, service=WEB, destination=ONE)
    read = page((event("weight-changed", 5, service=WEB, destination=ONE), old))
    assert marks(read) == 0 and "ejected" not in read.text


def test_an_event_that_is_no_event_is_passed_over() -> None:
    strange: dict[str, Any] = {"at": "yesterday", "kind": "ejected"}
    assert not History(Story(CLOCK, steps((WEB, ONE)), (strange, {})), NOW, 1).happened((WEB, ONE))


def test_a_crowd_has_lines_where_the_reasons_are_open() -> None:
    many = document(service(WEB, *(destination(f"10.0.{i}.1:80") for i in range(DRAWN_MAX + 1))))
    of_service = 2
    assert sum(tag == "svg" for tag, _ in page(made=many).tags) == of_service
    assert sum(tag == "svg" for tag, _ in page(made=many, why=f"{WEB}/10.0.5.1:80").tags) == of_service + 4


def test_the_pair_is_on_the_page() -> None:
    text = page(pair=PAIR).text
    assert "d1 is active: the other one was silent" in text
    assert "d2: standby, heard 0.0 s ago; replica there: complete" in text
    assert "192.0.2.1 to 192.0.2.2: up" in text and "a to b: down" in text
    assert "07:59:00 standby to active: 1" in text and "standby to active: 6" not in text
    assert "Pair" not in page().text


def test_a_sync_daemon_that_does_not_answer_is_said() -> None:
    assert (
        "no daemon answers: is `feedback sync` running?"
        in page(pair_problem="/run/feedback/sync.sock: no daemon answers: is `feedback sync` running?").text
    )


def test_words_of_the_past_are_text_and_never_markup() -> None:
    evil = "<script>alert(1)</script>"
    read = page((event("ejected", 60, service=WEB, destination=ONE, reason=evil),), pair=PAIR | {"reason": evil})
    assert "script" not in [tag for tag, _ in read.tags] and read.text.count(evil) == 2
