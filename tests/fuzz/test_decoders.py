"""Every decoder of what comes from outside: kept inputs first, then new ones."""

from __future__ import annotations

import pytest
from hypothesis import settings

from feedback.refusals import RefusalError
from tests.fuzz.target import CORPUS, Target, explore
from tests.fuzz.targets import TARGETS

# Of each; `python -m tests.fuzz SECONDS` does as many as there is time for.
EXAMPLES = 3 * settings.default.max_examples // 5


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_what_was_kept_is_taken_or_refused_as_declared(target: Target) -> None:
    with target.session() as check:
        for path in target.kept:
            taken = check(path.read_bytes())
            assert taken or not path.name.startswith("valid-"), f"{path.name} is refused"


@pytest.mark.hypothesis  # by hand: it makes its own
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
def test_whatever_comes_is_taken_or_refused_as_declared(target: Target) -> None:
    explore(target, EXAMPLES)


def test_every_decoder_has_valid_examples_and_every_corpus_a_decoder() -> None:
    assert {path.name for path in CORPUS.iterdir()} == {target.name for target in TARGETS}
    for target in TARGETS:
        assert any(path.name.startswith("valid-") for path in target.kept), target.name


def test_what_a_decoder_of_ours_refuses_is_said_in_one_bounded_line() -> None:
    ours = {kind for target in TARGETS for kind in target.refuses if kind.__module__.startswith("feedback.")}
    assert ours and all(issubclass(kind, RefusalError) for kind in ours), ours
