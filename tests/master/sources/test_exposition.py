"""What is taken of a page: the wanted samples, and nothing that a stranger makes of the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.master.sources import exposition
from feedback.master.sources.exposition import LINE_BYTES_MAX, Page, PageError, Selector


def values(page: bytes, name: str = "m") -> list[float]:
    return [sample.value for sample in Page(page, {name}).all(name)]


@pytest.mark.parametrize(
    "line, taken",
    [
        (b"m 1", [1.0]),
        (b"m\t1", []),  # a tab is allowed by the format and written by nobody
        (b"m 1.5e3 1700000000000", [1500.0]),
        (b'm{a="b"} 2', [2.0]),
        (b'm{a="b c } d",e="f\\"g"} 3 ', [3.0]),
        (b"m_total 1", []),
        (b"xm 1", []),
        (b"m NaN", []),
        (b"m +Inf", []),
        (b"m", []),
        (b"m 1 2 3", []),
        (b"m one", []),
        (b'm{a="b" 1', []),
        (b'm{a="b",a="c"} 1', []),
        (b"m{a=b} 1", []),
        (b'm{a="\xff"} 1', []),
        (b"m 1\rm 2", []),
        (b"m 1\nm 2", [1.0, 2.0]),
        (b"# m 1", []),
        (b'm x{a="b"} 1', []),
        (b'm 1 # {trace_id="x"} 1', []),
        (b'm{a="' + b"b" * LINE_BYTES_MAX + b'"} 1', []),
    ],
)
def test_a_line_is_a_sample_or_nothing(line: bytes, taken: list[float]) -> None:
    assert values(line + b"\n") == taken


def test_a_page_with_too_many_samples_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "SAMPLES_MAX", 10)
    assert values(b"m 1\n" * 10) == [1.0] * 10
    with pytest.raises(PageError, match="more series"):
        values(b"m 1\n" * 11)


def test_new_series_are_parsed_so_many_at_a_time_and_a_large_server_is_known_after_some_pages() -> None:
    page = b"".join(b'm{cpu="%d",nonce="7"} 1\n' % number for number in range(3000))
    with pytest.raises(PageError, match="more new series"):
        values(page)
    assert len(values(page)) == 3000


def test_what_fits_a_selector_is_added_up() -> None:
    page = Page(b'm{a="1",b="x"} 1\nm{a="1",b="y"} 2\nm{a="2",b="x"} 4\n', {"m"})
    assert page.selected(Selector.parse("m")) == 7
    assert page.selected(Selector.parse('m{b="x"}')) == 5
    assert page.selected(Selector.parse('m{b="y",a="1"}')) == 2
    with pytest.raises(PageError, match=r'no m\{a="3"\} in it'):
        page.selected(Selector.parse('m{a="3"}'))


@pytest.mark.parametrize("text", ["", "m{", 'm{a="b"', "1m", "m m", "m\nm", 'm{a="b"}\nm'])
def test_what_is_no_series_is_refused(text: str) -> None:
    with pytest.raises(PageError, match="is not a series"):
        Selector.parse(text)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_page(data: bytes) -> None:
    for value in values(b"m 1\n" + data + b"\nm{" + data):
        assert value == value and abs(value) != float("inf")
