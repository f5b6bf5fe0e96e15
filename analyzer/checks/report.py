"""The result of a check: rows of numbers, a verdict, and the ways to hand it on."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

from analyzer.errors import Disagreement

Row = dict[str, Any]


@dataclass(frozen=True)
class Report:
    """A check of one model on several backends.

    rows: one dict a comparison, with quantity, tensor, a, b, max_abs, relative_l2, cosine, tolerance, passed and
    explanation. A row passes within its tolerance, or where kink decisions that it names explain the excess.
    completeness: one dict a backend and method, with error (the worst sample's), tolerance and passed.
    skipped: backends that were not run, with the reason. seconds: the time of each backend.
    """

    rows: list[Row]
    completeness: list[Row]
    backends: tuple[str, ...]
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every row passed."""
        return all(row["passed"] for row in (*self.rows, *self.completeness))

    @property
    def failures(self) -> list[Row]:
        """The rows that did not pass."""
        return [row for row in (*self.rows, *self.completeness) if not row["passed"]]

    @property
    def headline(self) -> str:
        """The verdict in a line."""
        pairs = f"{len(self.rows)} comparisons of {', '.join(self.backends)}"
        if self.passed:
            explained = sum(bool(row["explanation"]) for row in self.rows)
            note = f", {explained} of them by a named kink decision" if explained else ""
            return f"{pairs}: all agree{note}"
        worst = max(
            self.failures, key=lambda row: float(row["relative_l2" if "relative_l2" in row else "error"])
        )
        return f"{pairs}: {len(self.failures)} disagree; {describe(worst)}"

    def to_json(self) -> str:
        """Everything as JSON; numbers that are not finite become null."""
        content = {
            "passed": self.passed,
            "backends": list(self.backends),
            "skipped": self.skipped,
            "seconds": self.seconds,
            "rows": self.rows,
            "completeness": self.completeness,
        }
        return json.dumps(_finite(content), indent=2)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the report as one self-contained page."""
        from analyzer.figures import write_check

        write_check(path, self)

    def raise_for_disagreement(self) -> None:
        """Raise Disagreement, naming the worst row, unless the check passed."""
        if not self.passed:
            raise Disagreement(self.headline)


def describe(row: Row) -> str:
    """One failing row as a phrase."""
    if "error" in row:
        return f"completeness of {row['method']} on {row['backend']}: error {row['error']:.1e} > {row['tolerance']:.0e}"
    size = f"relative L2 {row['relative_l2']:.1e} > {row['tolerance']:.0e}"
    return f"{row['quantity']} {row['tensor']!r}, {row['a']} against {row['b']}: {size}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
