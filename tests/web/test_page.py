"""The status page and its verdict: trouble first, in words; nothing from outside is markup; nothing is fetched."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.web.page import render
from feedback.web.verdict import Level, problems
from tests.web.documents import NOW, UNKNOWN, destination, document, real, service, troubled

VOID = {"meta", "link", "br"}
WELL = document(service("tcp:10.0.0.100:80", destination("10.0.0.11:80")))


class Read(HTMLParser):
    """Elements, text and addresses of a page; raises where an element is closed that was not open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data + " "


@pytest.mark.parametrize(
    "made, headline",
    [
        (WELL, "All well: 1 real server"),
        (troubled(), "5 things to look at"),
        (document(decision_age_seconds=None), "no decision yet"),
        (document(decision_age_seconds=12.0), "no decision for 12 s"),
        (document(role="standby", role_reason="d2 is active", decision_age_seconds=None), "Standby"),
        (document(service("tcp:1.2.3.4:80", destination("1.2.3.5:80", weight=None))), "is not in the kernel's table"),
        (
            document(service("tcp:1.2.3.4:80", destination("1.2.3.5:80", target_weight=0))),
            "no real server is in service",
        ),
    ],
)
def test_the_headline_says_how_it_stands(made: dict[str, Any], headline: str) -> None:
    page = render(made, NOW)
    assert headline in Read(page.partition("</h1>")[0].partition("<h1>")[2]).text


def test_trouble_is_listed_worst_first_and_what_was_wanted_is_no_trouble() -> None:
    made = troubled()
    made["services"][1]["destinations"][0]["weight"] = None
    found = problems(made)
    assert found[0].level is Level.BAD
    texts = {p.where: p.text for p in found}
    assert texts["10.0.0.12:80 in tcp:10.0.0.100:80"] == "lost: the agent's last report is 42 s old"
    assert texts["10.0.0.13:80 in tcp:10.0.0.100:80"] == "out of service: answers with errors: out for 4 s more"
    assert "10.0.0.14:80 in tcp:10.0.0.100:80" not in texts  # quiesced by its operator
    assert "3 of 4 agents" in texts["fwmark:7"]
    assert "reload" in texts["configuration"]


def test_ranges_that_cannot_be_kept_and_connections_beyond_the_limit_are_trouble() -> None:
    steering = {"state": "kept", "settled": False, "problem": "nft: not found"}
    found = problems(document(connections_lacking=7, steering=steering))
    assert [(p.level, p.where) for p in found] == [(Level.BAD, "ranges"), (Level.LOOK, "replication")]
    assert "nft: not found" in found[0].text and "7 connections" in found[1].text
    assert not problems(document(connections_lacking=0, steering=steering | {"settled": True, "problem": ""}))


@pytest.mark.parametrize("made", [WELL, troubled(), real(), document()])
def test_a_page_fetches_nothing_runs_nothing_and_is_whole(made: dict[str, Any]) -> None:
    page = Read(render(made, NOW))
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "img", "iframe", "object", "form", "input"} & set(tags)
    sources = [value for _, attributes in page.tags for name, value in attributes.items() if name in {"src", "href"}]
    assert all(str(s).startswith("/") or s == "data:," for s in sources)
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on") or a == "style"]


def test_reasons_are_opened_by_the_address_and_so_stay_open_at_a_refresh() -> None:
    closed, opened = (Read(render(WELL, NOW, why)) for why in ("", "tcp:10.0.0.100:80/10.0.0.11:80"))
    assert "80/s" not in closed.text
    assert "80/s" in opened.text
    links = [a["href"] for tag, a in closed.tags if tag == "a" and str(a["href"]).startswith("/status?")]
    assert links == [
        "/status?why=tcp%3A10.0.0.100%3A80%2F10.0.0.11%3A80#tcp%253A10.0.0.100%253A80%252F10.0.0.11%253A80"
    ]


@given(st.text(max_size=20))
def test_words_from_outside_are_text_and_never_markup(words: str) -> None:
    hostile = f"<script>'\"&{words}</h1>"
    reason = [{"stage": hostile, "text": hostile, "value": 0.0}]
    made = document(
        service("tcp:1.2.3.4:80", destination("1.2.3.5:80", reasons=reason, state=hostile), held=hostile, law=hostile),
        director=hostile,
    )
    page = Read(render(made, NOW, hostile))
    assert "script" not in {tag for tag, _ in page.tags}


def test_a_server_of_which_nothing_is_known_is_shown_all_the_same() -> None:
    made = document(service("tcp:1.2.3.4:80", destination("1.2.3.5:80", age_seconds=None, **UNKNOWN)))
    assert "1.2.3.5:80" in Read(render(made, NOW)).text


def test_a_thousand_problems_are_not_all_listed() -> None:
    many = [destination(f"10.0.{i // 250}.{i % 250}:80", state="lost") for i in range(1000)]
    page = Read(render(document(service("tcp:1.2.3.4:80", *many)), NOW))
    assert "and 950 more" in page.text
