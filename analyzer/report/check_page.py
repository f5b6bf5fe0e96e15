"""The page of a check or of a comparison: the verdict first, then what it rests on.

From a report (as `analyzer.checks` makes it) to one self-contained HTML page with no script and no outside resource:
verdict, matrix of the sides, error over depth, attributions side by side, rows, what is explained, layers and drift of
two models, completeness, and how it was made. Every text is escaped by the template engine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from analyzer.figures.depth import NARROW, PairRows, depth_plot
from analyzer.figures.side_by_side import Kept, side_by_side
from analyzer.report.page import check_matrix
from analyzer.report.templates import template
from analyzer.types import Row
from converters.system.atomic import write_text

# Rows that stand open, those that can be opened, and entries of long lists: a report as JSON has all.
OPEN_ROWS, MOST_ROWS, MOST_LISTED = 24, 400, 40


class CheckedPair(PairRows, Protocol):
    """Two sides, their rows and their verdict."""

    @property
    def passed(self) -> bool:
        """Whether every row passed."""

    @property
    def explained(self) -> int:
        """How many rows are in excess and explained."""

    @property
    def worst(self) -> Row:
        """The row that is furthest apart."""

    @property
    def origin(self) -> str:
        """The node at fault, as a phrase."""


class CheckReport(Protocol):
    """What a check found; the fields are explained in `analyzer.checks.report`."""

    @property
    def rows(self) -> Sequence[Row]:
        """The comparisons."""

    @property
    def completeness(self) -> Sequence[Row]:
        """The sums on each backend."""

    @property
    def backends(self) -> Sequence[str]:
        """The sides."""

    @property
    def pairs(self) -> Sequence[CheckedPair]:
        """The rows by pair of sides."""

    @property
    def passed(self) -> bool:
        """The verdict."""

    @property
    def verdict(self) -> str:
        """The verdict in a line."""

    @property
    def first_apart(self) -> str:
        """Where the worst pair first parts."""

    @property
    def at_fault(self) -> str:
        """The node at fault."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """The time of each backend."""

    @property
    def skipped(self) -> Mapping[str, str]:
        """Backends that were not run, and why."""

    @property
    def referee(self) -> str:
        """What the float64 run was."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Versions."""

    @property
    def attributions(self) -> Kept | None:
        """Those of the samples that differ most."""

    @property
    def matched(self) -> Mapping[str, str]:
        """Layers of two models that are equal in value."""

    @property
    def near(self) -> Mapping[str, str]:
        """Layers of two models that were paired by the least distance."""

    @property
    def unmatched(self) -> Mapping[str, Sequence[str]]:
        """Layers without a counterpart, by model."""

    @property
    def inner(self) -> Mapping[str, Sequence[str]]:
        """Partial results within layers that have no counterpart, by model."""

    @property
    def drift(self) -> Sequence[Row]:
        """How far each sample moved between two models."""


def write_check(path: str | os.PathLike[str], report: CheckReport, title: str = "") -> None:
    """Write the page of a check, whole or not at all."""
    write_text(path, render_check(report, title))


def render_check(report: CheckReport, title: str = "") -> str:
    """The page as HTML text. title: what was checked; default the names of the sides."""
    ranked = ranked_rows(report)
    failing = sum(not row["passed"] for row in ranked)
    shown = min(max(OPEN_ROWS, failing), 2 * OPEN_ROWS)
    tolerances = {str(row["quantity"]): float(row["tolerance"]) for row in report.rows}
    return template("check.html").render(
        report=report,
        title=title or _title(report),
        matrix=pair_matrix(report),
        quantities=check_matrix(report.rows),
        plot=depth_plot(report.pairs),
        narrow_plot=depth_plot(report.pairs, NARROW),
        samples=side_by_side(report.attributions, tolerances) if report.attributions is not None else [],
        open_rows=ranked[:shown],
        more_rows=ranked[shown:MOST_ROWS],
        left_out=max(len(ranked) - MOST_ROWS, 0),
        first=[pair.first_divergence for pair in report.pairs],
        refereed=any(row.get("nearer") for row in report.rows),
        explained=explanations(report.rows),
        layers=layer_rows(report),
        kinds=[key.removesuffix(" relative_l2") for key in _moved(report.drift)],
        most=MOST_LISTED,
    )


def _title(report: CheckReport) -> str:
    if report.unmatched:
        return " against ".join(report.backends)
    return f"Agreement of {', '.join(report.backends)}"


@dataclass(frozen=True)
class TableCell:
    """What a pair of sides comes to. state: "good", "explained" where it agrees but for what is explained, "bad"."""

    state: str
    mark: str
    worst: float
    count: int
    failed: int
    explained: int
    where: str


def pair_matrix(report: CheckReport) -> list[tuple[str, list[TableCell | None], float | None]]:
    """A staircase: for every side its name, its cells with the sides before it, and its worst completeness."""
    cells = {(pair.a, pair.b): _cell(pair) for pair in report.pairs}
    rows = []
    for index, name in enumerate(report.backends):
        before = [cells.get((other, name)) for other in report.backends[:index]]
        errors = [row["error"] for row in report.completeness if row["backend"] == name]
        rows.append((name, before, max(errors, default=None)))
    return rows


def _cell(pair: CheckedPair) -> TableCell:
    state, mark = ("bad", "✗") if not pair.passed else ("explained", "≈") if pair.explained else ("good", "✓")
    failed = sum(not row["passed"] for row in pair.rows)
    where = f"worst: {pair.worst['quantity']} {pair.worst['tensor']}"
    worst = float(pair.worst["relative_l2"])
    return TableCell(state, mark, worst, len(pair.rows), failed, pair.explained, where)


def ranked_rows(report: CheckReport) -> list[Row]:
    """All rows: failing ones first, and of these where a pair first diverges; then explained ones; then the rest, by
    how much of their tolerance they take.
    """
    first = [id(pair.first_divergence) for pair in report.pairs]

    def rank(row: Row) -> tuple[bool, bool, bool, float]:
        share = float(row["relative_l2"]) / float(row["tolerance"])
        taken = -share if share == share else float("-inf")
        return bool(row["passed"]), id(row) not in first, not row["explanation"], taken

    return sorted(report.rows, key=rank)


@dataclass(frozen=True)
class ExplanationRow:
    """One explanation, and the rows of a pair that it explains."""

    pair: str
    explanation: str
    count: int
    quantities: str
    worst: float


def explanations(rows: Sequence[Row]) -> list[ExplanationRow]:
    """What explains rows, such as decisions at kinks, once a pair."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["explanation"]:
            found.setdefault((f"{row['a']} · {row['b']}", str(row["explanation"])), []).append(row)
    return [
        ExplanationRow(
            pair,
            explanation,
            len(members),
            ", ".join(dict.fromkeys(str(row["quantity"]) for row in members)),
            max(float(row["relative_l2"]) for row in members),
        )
        for (pair, explanation), members in found.items()
    ]


@dataclass(frozen=True)
class LayerPair:
    """A layer of one model and its counterpart; error None where it is not on the way to what is explained."""

    name: str
    other: str
    error: float | None
    passed: bool


def layer_rows(report: CheckReport) -> Mapping[str, list[LayerPair]]:
    """The layers of two models, "matched" and "near", with the relative L2 of their values."""
    values: dict[str, Row] = {row["tensor"]: row for row in report.rows if row["quantity"] == "layer"}
    paired = {"matched": report.matched, "near": report.near}
    return {kind: [_layer(*names, values) for names in layers.items()] for kind, layers in paired.items()}


def _layer(name: str, other: str, values: Mapping[str, Row]) -> LayerPair:
    row: Mapping[str, Any] | None = values.get(name)
    if row is None:
        return LayerPair(name, other, None, True)
    return LayerPair(name, other, float(row["relative_l2"]), bool(row["passed"]))


def _moved(drift: Sequence[Row]) -> list[str]:
    """The keys of a drift row that say how far a kind of attribution moved."""
    return [key for key in (drift[0] if drift else {}) if key.endswith(" relative_l2")]
