"""The page for its readers: words, order of requests, large pictures, keyboard and screen reader."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.analyzer.explainer.web.chrome import Chrome
from tests.analyzer.explainer.web.conftest import serving
from tests.analyzer.explainer.web.driving import (
    SETTLED,
    SLOW,
    after,
    assert_equal,
    opened,
    pixels,
    python,
)

AXE = gzip.decompress((Path(__file__).parent / "axe.min.js.gz").read_bytes()).decode()


def test_numbers_and_sums_are_told_in_plain_words(chrome: Chrome, photo_site: Path) -> None:
    """Of a sum that holds, one that does not, a path's, and a method that claims none."""
    texts = {
        "number(9.1734)": "9.17", "number(-0.00432)": "−0.00432", "number(1234.5)": "1,230", "number(0)": "0",
        "number(1e-7)": "1.0e−7", "number(NaN)": "–", "percent(2.34e-6)": "0.00023 %",
        "percent(0)": "0 %", "percent(0.0312)": "3.1 %", "percent(1.257)": "126 %", "percent(0.02)": "2 %",
        "probability(0.3861)": "38.6 %", "probability(1e-5)": "<0.1 %", "probability(0.99999)": ">99.9 %",
        "duration(369.6)": "370 ms", "duration(2440)": "2.4 s", "megabytes(33149999)": "33 MB",
        "className(['a', ' '], 0)": "a", "className(['a', ' '], 1)": "class 1", "className(null, 7)": "class 7",
    }  # fmt: skip
    base = {"explained": 9.17, "error": None, "delta": None, "total": None}
    sums = [
        ({"error": 1e-6}, True, "Yes: its parts sum to the score of “cat”, 9.17. They miss it by 0.0001 %."),
        ({"error": 0.23}, False, "Not fully: its parts miss the score of “cat”, 9.17, by 23 %."),
        ({"delta": 0.02, "total": 8.02}, True, "Yes: its parts sum to the change of the score of “cat” from the "
         "baseline, 8. They miss it by 0.25 %."),
        ({"delta": -4.0, "total": 4.0}, False, "Not fully: its parts miss the change of the score of “cat” from the "
         "baseline, 8, by 50 %."),
        ({}, None, "This method shows where to look. Its values do not add up to the score, so there is no sum to "
         "check."),
    ]  # fmt: skip
    with serving(photo_site) as address:
        page = opened(chrome, address)
        words = (
            "import('./words.js').then(({ number, percent, probability, duration, megabytes, className }) => "
        )
        assert page.run(f"{words}[{', '.join(texts)}])") == list(texts.values())
        given = json.dumps([base | change for change, _, _ in sums])
        found = page.run(
            f"import('./words.js').then(({{ completeness }}) => {given}.map(one => completeness(one, 'cat')))"
        )
        assert found == [{"good": good, "text": text} for _, good, text in sums]


def test_only_the_last_of_many_requests_is_shown(
    chrome: Chrome, photo_file: Path, photo_site: Path, photos: dict[str, Path]
) -> None:
    with serving(photo_site) as address:
        page = opened(chrome, address, more=SLOW)
        # While one picture is computed, another is given, and then a class for it.
        page.choose("#file", photos["clear"])
        page.until("document.querySelector('#photo').height === 20")
        page.choose("#file", photos["tall"])
        page.until("document.querySelector('#photo').height === 90")
        page.run("document.querySelectorAll('#top input')[3].click()")
        wanted = int(page.run("document.querySelectorAll('#top input')[3].value"))
        page.until(SETTLED + " && window.told === 2")
        assert (page.run("window.found.target"), page.run("window.found.height")) == (wanted, 90)
        feeds = {"image": pixels(photos["tall"])[None], "target": np.array([wanted])}
        assert_equal(page.run("window.found"), python(photo_file, feeds))


def test_a_large_picture_is_made_smaller_and_the_page_says_so(
    chrome: Chrome, photo_site: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (2500, 20), (200, 100, 50)).save(tmp_path / "banner.png")
    with serving(photo_site) as address:
        page = opened(chrome, address)
        found = after(page, page.choose, "#file", tmp_path / "banner.png")
        assert (found["width"], found["height"]) == (2048, 16)
        assert "made smaller first, to 2048 × 16 pixels" in page.text("#time")


@pytest.mark.parametrize("kind", ["photo", "text"])
def test_everyone_can_use_the_page(chrome: Chrome, kind: str, request: pytest.FixtureRequest) -> None:
    """No violation of axe-core, wide and narrow, in light and dark; nothing is wider than the window."""
    with serving(request.getfixturevalue(f"{kind}_site")) as address:
        page = opened(chrome, address)
        page.run(AXE + "\n; 0")
        views = ("importance", "signed")
        for view, width, dark in itertools.product(views, (1400, 360), (False, True)):
            page.size(width, 900)
            page.scheme(dark=dark)
            page.run(f"document.querySelector('#views input[value={view}]').click()")
            found = page.run(
                "axe.run(document, {resultTypes: ['violations']}).then(({violations}) => violations.map("
                "one => [one.id, one.nodes.slice(0, 3).map(node => node.html + node.failureSummary)]))"
            )
            assert found == [], (view, width, dark)
            assert page.run("document.documentElement.scrollWidth") <= width
        page.run("document.querySelector('#search')?.focus()")
        if kind == "photo":
            page.type("a")
            found = page.run("axe.run('main').then(({violations}) => violations.map(one => one.id))")
            assert found == [] and not page.run("document.querySelector('#found').hidden")
        # Every control is reached by the Tab key, and shows it.
        page.run("document.activeElement.blur()")
        reached = set()
        for _ in range(14):
            page.press("Tab")
            reached.add(page.run("document.activeElement.id || document.activeElement.name"))
        wanted = {
            "photo": {"file", "view", "opacity", "download", "class", "search"},
            "text": {"words", "view", "class"},
        }
        assert wanted[kind] <= reached
