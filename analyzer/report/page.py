"""The HTML report: one self-contained page from plain data, with no script and no outside resource.

Pictures are embedded; every text is escaped by the template engine. The page of a check alone is check_page.py's.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from analyzer.figures.charts import KIND_NAMES, KINDS, Bar, aligned, bar_labels, share_text, shown_bars
from analyzer.figures.picture import Picture
from analyzer.figures.tokens import ScoredTokens, legend
from analyzer.report.templates import template
from converters.system.atomic import write_text

# A page stays readable; all passing rows beyond these are in the machine-readable report.
MOST_ROWS = 400
MOST_ANSWERS = 6


@dataclass(frozen=True)
class Prediction:
    """One class of the output: `value` as the model gives it, `probability` where it is one."""

    index: int
    name: str
    value: float
    probability: float | None = None


@dataclass(frozen=True)
class Sample:
    """What the report shows of one input.

    answer: what the model said, and where it looked. bars: shares of `output`. texts: its tokens, a method each.
    one_scale: the maps of all methods in the same colours.
    """

    name: str
    answer: str = ""
    target: str = ""
    pictures: Sequence[Picture] = ()
    predictions: Sequence[Prediction] = ()
    bars: Sequence[Bar] = ()
    output: float = 0.0
    texts: Sequence[ScoredTokens] = ()
    one_scale: Sequence[Picture] = ()


@dataclass(frozen=True)
class CompletenessRow:
    """One sum held against the output. `error` is relative; `passed` is None where no claim is made."""

    sample: str
    method: str
    output: float
    total: float
    error: float
    passed: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class AttributionPage:
    """Everything on the page, in its order. `passed` None means that nothing was checked."""

    title: str
    passed: bool | None
    headline: str
    detail: str = ""
    samples: Sequence[Sample] = ()
    completeness: Sequence[CompletenessRow] = ()
    checks: Sequence[Mapping[str, Any]] = ()
    check_sums: Sequence[Mapping[str, Any]] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def render_report(report: AttributionPage) -> str:
    """The page as HTML text."""
    return template("report.html").render(
        report=report,
        samples=[(sample, chart_rows(sample.bars, sample.output)) for sample in report.samples],
        kinds=[(kind, KIND_NAMES[kind]) for kind in KINDS],
        token_legend=legend([text for sample in report.samples for text in sample.texts]),
        matrix=check_matrix(report.checks),
        failing=[row for row in report.checks if not row.get("passed")],
        passing=sorted(
            (row for row in report.checks if row.get("passed")), key=lambda row: not row.get("explanation")
        ),
        most=MOST_ROWS,
        answers=[sample for sample in report.samples[:MOST_ANSWERS] if sample.answer],
    )


def write_report(path: str | os.PathLike[str], report: AttributionPage) -> None:
    """Write the page, whole or not at all."""
    write_text(path, render_report(report))


@dataclass(frozen=True)
class ChartRow:
    """A bar with its geometry: start and width in percent of the track, which spans all values and zero."""

    bar: Bar
    label: str
    value: str
    share: str
    start: float
    width: float
    zero: float
    beyond: bool = False


def chart_rows(bars: Sequence[Bar], output: float = 0.0, most: int = 24) -> list[ChartRow]:
    """Place bars on one common track, with their shares of the output."""
    shown = shown_bars(bars, most)
    low = min([0.0, *(bar.value for bar in shown)])
    high = max([0.0, *(bar.value for bar in shown)])
    span = (high - low) or 1.0
    zero = 100 * (0 - low) / span
    return [
        ChartRow(
            bar,
            label,
            value,
            share_text(bar.value, output),
            100 * (min(bar.value, 0.0) - low) / span,
            100 * abs(bar.value) / span,
            zero,
            abs(bar.value) > abs(output) > 0,
        )
        for bar, label, value in zip(shown, bar_labels(shown), aligned(shown), strict=True)
    ]


@dataclass(frozen=True)
class CheckGroup:
    """All comparisons of one quantity between two backends, by the worst of them."""

    quantity: str
    a: str
    b: str
    count: int
    failed: int
    explained: int
    worst_l2: float
    worst_abs: float


def check_groups(rows: Sequence[Mapping[str, Any]]) -> list[CheckGroup]:
    """Summarise rows by quantity and pair, in their order; groups with failures first."""
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((str(row.get("quantity")), str(row.get("a")), str(row.get("b"))), []).append(row)
    groups = [
        CheckGroup(
            *key,
            count=len(members),
            failed=sum(not row.get("passed") for row in members),
            explained=sum(bool(row.get("passed") and row.get("explanation")) for row in members),
            worst_l2=_worst(row.get("relative_l2") for row in members),
            worst_abs=_worst(row.get("max_abs") for row in members),
        )
        for key, members in found.items()
    ]
    return sorted(groups, key=lambda group: group.failed == 0)


@dataclass(frozen=True)
class CheckMatrix:
    """Quantities across, pairs of backends down; None where a pair does not have a quantity."""

    quantities: tuple[str, ...]
    pairs: tuple[tuple[str, tuple[CheckGroup | None, ...]], ...]


def check_matrix(rows: Sequence[Mapping[str, Any]]) -> CheckMatrix:
    """Every group in one table, in the order of the rows."""
    groups = {(group.quantity, group.a, group.b): group for group in check_groups(rows)}
    quantities = tuple(dict.fromkeys(str(row.get("quantity")) for row in rows))
    pairs = dict.fromkeys((str(row.get("a")), str(row.get("b"))) for row in rows)
    return CheckMatrix(
        quantities,
        tuple(
            (f"{a} · {b}", tuple(groups.get((quantity, a, b)) for quantity in quantities)) for a, b in pairs
        ),
    )


def _worst(values: Any) -> float:
    numbers = [float(value) for value in values if value is not None]
    if any(math.isnan(number) for number in numbers):
        return math.nan
    return max(numbers, default=math.nan)
