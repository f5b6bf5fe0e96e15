"""The report is one page without outside resources, and shows text as text."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

import numpy as np
import pytest

from analyzer.figures import Bar, encode_png
from analyzer.figures.heat import Scale
from analyzer.figures.numbers import format_error, format_value
from analyzer.figures.picture import Picture
from analyzer.report.page import (
    AttributionPage,
    CompletenessRow,
    Prediction,
    Sample,
    chart_rows,
    check_groups,
    check_matrix,
    render_report,
    write_report,
)

HOSTILE = '<b onload="x()">cat</b> & {{ 7 * 7 }}'
PNG = encode_png(np.zeros((4, 4, 3)))


class Page(HTMLParser):
    """Every tag with its attributes, and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def row(passed=True, **changes):
    usual = {
        "quantity": "input gradient",
        "tensor": "x",
        "a": "onnxruntime",
        "b": "torch",
        "max_abs": 1e-7,
        "relative_l2": 2e-7,
        "cosine": 1.0,
        "tolerance": 1e-4,
        "passed": passed,
        "explanation": "",
    }
    return {**usual, **changes}


@pytest.fixture
def report():
    bars = [
        Bar("input × gradient", -2.0, "input"),
        Bar(HOSTILE, 1.0, "explicit"),
        Bar("clip", 3.0, "implicit"),
    ]
    sample = Sample(
        HOSTILE,
        target=HOSTILE,
        pictures=[Picture(HOSTILE, PNG, HOSTILE)],
        predictions=[Prediction(0, HOSTILE, 1.5, 0.75), Prediction(1, "dog", -1.5, None)],
        bars=bars,
    )
    return AttributionPage(
        title=HOSTILE,
        passed=True,
        headline=HOSTILE,
        samples=[sample],
        completeness=[CompletenessRow(HOSTILE, "FullGrad", 9.17, 9.17, 1e-7, True, HOSTILE)],
        checks=[row(tensor=HOSTILE)],
        check_sums=[
            {"backend": "torch", "method": "full_grad", "error": 1e-7, "tolerance": 1e-4, "passed": True}
        ],
        timings={HOSTILE: 1.5},
        environment={HOSTILE: HOSTILE},
    )


def test_no_resource_comes_from_outside(report):
    html = render_report(report)
    assert "http://" not in html and "https://" not in html
    page = Page(html)
    assert not any(tag in ("script", "link", "iframe", "object") for tag, _ in page.tags)
    sources = [attributes[key] for _, attributes in page.tags for key in ("src", "href") if key in attributes]
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert base64.b64decode(sources[0].split(",")[1]) == PNG
    assert "@import" not in html and "url(" not in html


def test_text_is_shown_as_text_wherever_it_comes_from(report):
    html = render_report(report)
    page = Page(html)
    assert "<b onload" not in html
    assert not any("onload" in attributes for _, attributes in page.tags)
    assert page.text.count('<b onload="x()">cat</b> & {{ 7 * 7 }}') >= 10


def test_a_picture_has_its_colours_in_a_bar_with_both_ends():
    scales = [Scale(-0.0016, 0.0016, True, "per pixel"), Scale(1.0, 5.0, False)]
    pictures = [Picture(str(index), PNG, scale=scale) for index, scale in enumerate(scales)]
    html = render_report(AttributionPage("maps", None, "", samples=[Sample("cat", pictures=pictures)]))
    text = " ".join(Page(html).text.split())
    assert "−0.0016+0.0016per pixel" in text and "lessmore" in text
    assert html.count("linear-gradient(90deg, rgb(") == 2


def test_bars_stand_in_the_card_of_their_sample_with_their_shares():
    bars = [Bar("conv", -1.0, "explicit"), Bar("clip", 3.0, "implicit")]
    samples = [Sample("cat", bars=bars, output=2.0), Sample("dog")]
    html = render_report(AttributionPage("maps", None, "", samples=samples))
    cat, dog = html.split("<article")[1:]
    assert "−50 %" in cat and "+150 %" in cat and "+3.00" in cat
    assert "Where the output comes from" in cat and "Where the output comes from" not in dog


def test_both_colour_schemes_are_there(report):
    assert "prefers-color-scheme: dark" in render_report(report)


def test_a_failed_write_leaves_the_old_page(tmp_path, report, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(path, report)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_numbers_that_are_missing_or_not_finite_do_not_break_the_page():
    rows = [row(False, relative_l2=float("nan"), cosine=None, max_abs=None), {"passed": True}]
    assert "–" in render_report(AttributionPage("checks", False, "", checks=rows))


def test_groups_give_the_worst_and_put_failures_first():
    rows = [row(relative_l2=1e-7), row(relative_l2=5e-6), row(False, quantity="layer", relative_l2=0.3)]
    rows.append(row(explanation="Relu_3 decides differently"))
    groups = check_groups(rows)
    assert [group.quantity for group in groups] == ["layer", "input gradient"]
    assert (groups[0].failed, groups[0].worst_l2) == (1, 0.3)
    assert (groups[1].count, groups[1].worst_l2, groups[1].explained) == (3, 5e-6, 1)


def test_the_matrix_has_every_group_in_its_place():
    rows = [row(), row(quantity="layer"), row(b="source"), row(quantity="map", a="torch", b="source")]
    matrix = check_matrix(rows)
    assert matrix.quantities == ("input gradient", "layer", "map")
    assert [(pair, [group and group.quantity for group in groups]) for pair, groups in matrix.pairs] == [
        ("onnxruntime · torch", ["input gradient", "layer", None]),
        ("onnxruntime · source", ["input gradient", None, None]),
        ("torch · source", [None, None, "map"]),
    ]


def test_bars_stand_in_proportion_on_one_track_with_a_common_zero():
    left, right = chart_rows([Bar("a", -1.0, "input"), Bar("b", 3.0, "explicit")])
    assert left.zero == right.zero == 25
    assert (left.start, left.width) == (0, 25) and (right.start, right.width) == (25, 75)


@pytest.mark.parametrize(
    ("number", "text"), [(0.0, "0"), (3.14e-7, "3.1e-07"), (0.785, "0.785"), (None, "–")]
)
def test_format_error(number, text):
    assert format_error(number) == text


def test_format_value_has_a_true_minus():
    assert format_value(-2.29) == "−2.29"


def test_values_have_three_digits():
    texts = [format_value(number) for number in (9.1672, -0.0043124, 1234.5, 999.6, 123456.0, 4.2e7, 0.0)]
    assert texts == ["9.17", "−0.00431", "1,230", "1,000", "123,000", "4.2e+07", "0"]


def test_the_answer_comes_before_the_proof():
    sample = Sample("cat", answer="The model says tiger cat, 38.6 %.")
    html = render_report(AttributionPage("maps", True, "complete", samples=[sample]))
    assert html.index("The model says tiger cat") < html.index('class="verdict')


def test_shares_above_a_hundred_percent_are_explained_where_they_stand():
    def page(value):
        sample = Sample("cat", bars=[Bar("conv", value, "explicit")], output=1.0)
        return render_report(AttributionPage("maps", None, "", samples=[sample]))

    assert "A share may be above 100 %" in page(3.75) and "A share may be above 100 %" not in page(0.75)
