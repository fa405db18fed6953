"""The page in a real browser, as on a phone: it renders, fits, fetches nothing, and says how it stands without script.

Runs where Debian's chromium or chromium-headless-shell is installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from feedback.web.past import Story
from feedback.web.view import View
from tests.web.documents import destination, document, service, troubled
from tests.web.test_history import CLOCK, MADE, ONE, PAIR, TWO, WEB, steps
from tests.web.test_page import WELL, Read
from tests.web.test_server import served, view

BROWSER = next((path for name in ("chromium-headless-shell", "chromium") if (path := shutil.which(name))), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="Debian's package chromium-headless-shell is absent")

PHONE = (390, 844)
WIDE = (1280, 800)


def browse(url: str, profile: Path, size: tuple[int, int], *flags: str) -> subprocess.CompletedProcess[str]:
    assert BROWSER is not None
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={profile}",
        "--hide-scrollbars",
    ]
    command += [f"--window-size={size[0]},{size[1]}", "--enable-logging=stderr", "--timeout=3000", *flags, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def seen(made: dict[str, Any], tmp_path: Path, size: tuple[int, int], path: str = "/status") -> tuple[str, Read]:
    """What the console says, and the page as the browser took it."""

    def look() -> View:
        return view(document=lambda: made)

    done = served(lambda port: browse(f"http://127.0.0.1:{port}{path}", tmp_path, size, "--dump-dom"), look)
    return done.stderr, Read(done.stdout)


@pytest.mark.parametrize(
    "made, headline",
    [(troubled(), "5 things to look at"), (WELL, "All well"), (document(role="standby"), "Standby")],
)
def test_a_browser_takes_the_page_and_complains_of_nothing(made: dict[str, Any], headline: str, tmp_path: Path) -> None:
    console, page = seen(made, tmp_path, PHONE)
    assert headline in page.text
    assert "CONSOLE" not in console  # a policy that is hurt, a missing resource, an error


def test_a_browser_takes_the_past_as_well(tmp_path: Path) -> None:
    events = ({"number": 1, "at": time.time() - 60, "kind": "reloaded"},)
    past = Story(CLOCK, steps((WEB, ""), (WEB, ONE), (WEB, TWO)), events, PAIR)

    def look() -> View:
        return view(document=lambda: MADE, story=lambda: past)

    done = served(lambda port: browse(f"http://127.0.0.1:{port}/status", tmp_path, PHONE, "--dump-dom"), look)
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count("<svg") == done.stdout.count('class="mark"') == 11


@pytest.mark.parametrize(
    "scheme, header, background", [(0, (227, 160, 8), (16, 20, 24)), (1, (154, 103, 0), (244, 245, 247))]
)
def test_the_style_is_in_force_under_the_policy(
    scheme: int, header: tuple[int, int, int], background: tuple[int, int, int], tmp_path: Path
) -> None:
    """Dark or light as the phone is: a page whose style is refused is black on white."""
    flag = f"--blink-settings=preferredColorScheme={scheme}"
    assert pixels(troubled(), tmp_path / "profile", PHONE, flag) == [header, background]


def pixels(made: dict[str, Any], profile: Path, size: tuple[int, int], *flags: str) -> list[tuple[int, int, int]]:
    from matplotlib.image import imread

    shot = profile.with_suffix(".png")
    served(
        lambda port: browse(f"http://127.0.0.1:{port}/status", profile, size, f"--screenshot={shot}", *flags),
        lambda: view(document=lambda: made),
    )
    image = imread(shot)
    assert image.shape[1] == size[0]
    return [tuple(round(255 * float(c)) for c in image[y, x][:3]) for x, y in ((2, 2), (2, size[1] - 2))]  # type: ignore[misc]


WIDTH = "<script>document.title = document.documentElement.scrollWidth</script></body>"


@pytest.mark.parametrize("size", [PHONE, WIDE, (320, 568)])
def test_nothing_is_wider_than_the_screen(size: tuple[int, int], tmp_path: Path) -> None:
    """The page itself runs no script: this copy of it does, from a file, to measure."""
    from feedback.web.page import render

    long = destination("[2001:db8:1234:5678:9abc:def0:1234:5678]:65535", state="quiesced", upper=2_000_000_000)
    virtual = "tcp:[2001:db8:1234:5678:9abc:def0:1234:5678]:65535"
    made = document(service(virtual, long, held="x" * 300))
    past = Story(CLOCK, steps((virtual, ""), (virtual, long["address"])), (), PAIR | {"reason": "y" * 300})
    copy = tmp_path / "copy.html"
    copy.write_text(render(made, 0.0, "", past).replace("</body>", WIDTH))
    done = browse(copy.as_uri(), tmp_path / "profile", size, "--dump-dom")
    found = re.search(r"<title>(\d+)</title>", done.stdout)
    assert found is not None
    assert int(found[1]) <= size[0]
