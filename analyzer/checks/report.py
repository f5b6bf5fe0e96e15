"""The result of a check: rows of numbers, a verdict for each pair, and the ways to hand it on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from analyzer import archive
from analyzer.checks.read.attributions import Attributions
from analyzer.errors import Disagreement
from analyzer.methods.views import fragment
from analyzer.types import Row
from converters.model import Preprocessing
from converters.system.environment import environment
from converters.system.plain_data import plain
from converters.system.text import printable

# A comparison within a larger tolerance says little; the verdict names it.
LOOSE = 0.1
# Of a line of the representation.
WIDTH = 110


@dataclass(frozen=True)
class Pair:
    """What two sides have in common and where they part.

    origin: the node at fault, where one was found, as a phrase; suspects: its name, or names where a side keeps no
    value between several nodes. See analyzer/checks/explain/localize.py. differences: the attributes and weights of two
    models that differ there, as phrases.
    """

    a: str
    b: str
    rows: tuple[Row, ...]
    origin: str = ""
    suspects: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every row passed."""
        return all(row["passed"] for row in self.rows)

    @property
    def explained(self) -> int:
        """How many rows are in excess of the tolerance and explained by kink decisions."""
        return sum(bool(row["explanation"]) for row in self.rows)

    @property
    def worst(self) -> Row:
        """The row with the largest relative L2, the failing ones before all others."""
        return max(self.rows, key=lambda row: (not row["passed"], _size(row["relative_l2"])))

    @cached_property
    def failures(self) -> tuple[Row, ...]:
        """The rows that did not pass, the worst first."""
        failing = [row for row in self.rows if not row["passed"]]
        return tuple(sorted(failing, key=lambda row: -_size(row["relative_l2"])))

    @cached_property
    def by_quantity(self) -> Mapping[str, Pair]:
        """The same two sides in one quantity each, in the order of the rows."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row["quantity"], []).append(row)
        return {name: Pair(self.a, self.b, tuple(rows)) for name, rows in found.items()}

    @cached_property
    def first_divergence(self) -> Row | None:
        """The first failing tensor in topological order; where values agree, the first in the backward pass."""
        failing = [row for row in self.rows if not row["passed"]]
        forward = [row for row in failing if row["quantity"] in ("layer", "output")]
        backward = [row for row in failing if row["quantity"].endswith("gradient")]
        if forward:
            return min(forward, key=lambda row: row["depth"])
        return max(backward, key=lambda row: row["depth"], default=failing[0] if failing else None)


@dataclass(frozen=True, repr=False, eq=False)
class Report:
    """A check of one model on several backends, or a comparison of two models.

    rows: one dict a comparison, with quantity, tensor, a, b, max_abs, max_relative, relative_l2, cosine, tolerance,
    passed and explanation; node, op_type, layer and depth (the position in the graph) of what computes the tensor; and,
    where a float64 run was asked, its distance from either side, a_error and b_error, and the `nearer` side; of two
    models, each from its own run, and how far the two runs are apart, `float64`. A row passes within its tolerance, or
    where a named reason explains the excess: decisions at kinks, rounding of zero, two roundings that add up, a layer
    in other nodes.
    completeness: one dict a backend and method, with error (the worst sample's), tolerance and passed; of `check`, with
    an explanation where a source's ties were decided as elsewhere.
    origins: {(a, b): the node at fault}; suspects: {(a, b): its name, or names}; differences: {(a, b): phrases, such as
    "pads 1,1,1,1 against 0,0,1,1"}, of two models, what differs at that node. skipped: backends that were not run,
    with the reason. seconds: the time of each backend. referee: what the float64 run was, or why there was none.
    environment: versions. attributions: of the samples that differ most, for the page; they are not in the JSON.
    Of two models besides: matched, near: {tensor of the first: of the second}, equal in value, or paired by the least
    distance; unmatched: {model: layers' outputs without a counterpart}; inner: {model: partial results within a layer
    that have none, such as a product before its bias is added}; drift: one dict a sample, the worst first.
    samples: "independent", or "joint" where samples depend on one another and all are compared as one. note: why.
    not_finite: {side: its NaN or infinite tensors, and the first node that computes one}.
    """

    rows: list[Row]
    completeness: list[Row]
    backends: tuple[str, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    origins: Mapping[tuple[str, str], str] = field(default_factory=dict)
    suspects: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    differences: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    referee: str = ""
    matched: Mapping[str, str] = field(default_factory=dict)
    near: Mapping[str, str] = field(default_factory=dict)
    unmatched: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    inner: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    drift: Sequence[Row] = ()
    environment: Mapping[str, str] = field(default_factory=environment)
    attributions: Attributions | None = field(default=None, repr=False)
    samples: str = "independent"
    note: str = ""
    not_finite: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every row passed. A report without rows has compared nothing, and does not pass."""
        return bool(self.rows) and all(row["passed"] for row in (*self.rows, *self.completeness))

    @property
    def failures(self) -> list[Row]:
        """The rows that did not pass."""
        return [row for row in (*self.rows, *self.completeness) if not row["passed"]]

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """The rows by pair of sides, in their order."""
        found: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            found.setdefault((row["a"], row["b"]), []).append(row)
        return tuple(
            Pair(
                *key,
                tuple(rows),
                self.origins.get(key, ""),
                self.suspects.get(key, ()),
                self.differences.get(key, ()),
            )
            for key, rows in found.items()
        )

    @property
    def headline(self) -> str:
        """The verdict in a line, with the reason where it failed."""
        return self.verdict if self.passed else f"{self.verdict}; {self.reason}"

    @property
    def verdict(self) -> str:
        """How much was compared, and how much of it disagrees."""
        if not self.rows:
            return "nothing was compared"
        pairs = f"{len(self.rows)} comparisons of {', '.join(self.backends)}"
        if self.unmatched:
            layers = len(self.matched) + len(self.near) + len(self.unmatched[self.backends[0]])
            pairs += f", {len(self.matched)} of {layers} layers matched by value"
        if self.passed:
            explained = sum(pair.explained for pair in self.pairs)
            note = f", {explained} of them for a reason that is named" if explained else ""
            return f"{pairs}: all agree{note}{self._weakness}"
        return f"{pairs}: {len(self.failures)} disagree{self._weakness}"

    @property
    def _weakness(self) -> str:
        """Why the verdict says little, where it does: a loose tolerance, or no layer compared."""
        loose: dict[str, float] = {}
        for row in self.rows:
            if row["tolerance"] > LOOSE:
                loose[row["quantity"]] = row["tolerance"]
        notes = [f"the tolerance of {quantity} is {size:g}" for quantity, size in loose.items()]
        if not any(row["quantity"] == "layer" for row in self.rows):
            notes.append("no layer was compared")
        return f"; note: {', '.join(notes)}" if notes else ""

    @property
    def reason(self) -> str:
        """Why it failed, in a phrase: where the worst pair first parts, else a sum that does not come out."""
        lost = self._lost
        if not self.rows:
            missing = "".join(f"; {side}: {why}" for side, why in self.skipped.items())
            sides = ", ".join(self.backends) or "none"
            lost = [
                f"expected two sides to compare, found {sides}{missing}. Fix: give two sides, or install one"
            ]
        return "; ".join(filter(None, [*lost[:1], self.first_apart, self.at_fault]))

    @property
    def _lost(self) -> list[str]:
        return [f"{side}: {found}" for side, found in self.not_finite.items()]

    @cached_property
    def worst_pair(self) -> Pair | None:
        """The failing pair that is furthest apart."""
        failing = [pair for pair in self.pairs if not pair.passed]
        return max(failing, key=lambda pair: _size(pair.worst["relative_l2"]), default=None)

    @property
    def first_apart(self) -> str:
        """Where the worst pair first parts, else which sum does not come out; empty where it passed."""
        if self.worst_pair is not None:
            return describe(self.worst_pair.first_divergence or self.worst_pair.worst, layer=True)
        return describe(max(self.failures, key=lambda row: _size(row["error"]))) if self.failures else ""

    @property
    def at_fault(self) -> str:
        """The node at which the worst pair parts, where one was found, and what differs there."""
        if self.worst_pair is None:
            return ""
        found = "; ".join(self.worst_pair.differences)
        return "; differs: ".join(filter(None, [self.worst_pair.origin, found]))

    def to_json(self) -> str:
        """Everything as JSON; numbers that are not finite become null."""
        content = {
            "passed": self.passed,
            "reason": self.reason,
            "samples_are": self.samples,
            "backends": list(self.backends),
            "skipped": dict(self.skipped),
            "seconds": dict(self.seconds),
            "not_finite": dict(self.not_finite),
            "referee": self.referee,
            "environment": dict(self.environment),
            "pairs": [_summary(pair) for pair in self.pairs],
            "rows": self.rows,
            "completeness": self.completeness,
        }
        if self.unmatched:
            content |= {
                "matched": self.matched,
                "near": self.near,
                "unmatched": self.unmatched,
                "inner": self.inner,
                "drift": self.drift,
            }
        return json.dumps(plain(content), indent=2)

    def to_html(self, path: str | os.PathLike[str], title: str = "") -> None:
        """Write the report as one self-contained page. title: what was checked; default the names of the sides."""
        from analyzer.report import write_check

        write_check(path, self, title)

    def to_text(self) -> str:
        """The report as aligned plain text: the verdict, a table of every pair, the worst rows, the node at fault."""
        from analyzer.checks.text import as_text

        return as_text(self)

    def to_junit(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JUnit XML, which CI servers read."""
        from analyzer.checks.junit import write_junit

        write_junit(path, self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report as one .npz file, whole or not at all. `Report.load` reads it."""
        archive.save(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Report:
        """Read a report that `save` wrote. Raises AnalysisError where the file is not a report."""
        found: Report = archive.load(
            path, {one.__name__: one for one in (Report, Attributions, Preprocessing)}, Report
        )
        return found

    def __repr__(self) -> str:
        lines = [f"Report: {self._title}", *(f"  {name}: {value}" for name, value in self._facts())]
        return "\n".join(line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in lines[:5])

    def _repr_html_(self) -> str:
        return fragment(f"Report: {self._title}", self._facts())

    @property
    def _title(self) -> str:
        """The verdict alone where the cause has lines, which are cut less early."""
        return self.verdict if self.worst_pair is not None else self.headline

    def _facts(self) -> list[tuple[str, str]]:
        """Return the lines of the short text, {name: value} in pairs, the cause and the failing pairs first."""
        found = [("not finite", lost) for lost in self._lost[:1]]
        if self.worst_pair is not None:
            cause = "; ".join(self.worst_pair.differences)
            found += [("first parts at", self.first_apart), ("node at fault", self.worst_pair.origin)]
            found = [line for line in [*found, ("differs", cause)] if line[1]]
        for pair in sorted(self.pairs, key=lambda one: one.passed):
            worst = pair.worst
            size = (
                f"relative L2 {worst['relative_l2']:.1e} at most, of {worst['quantity']} {worst['tensor']!r}"
            )
            found.append((f"{pair.a} against {pair.b}", f"{'agree' if pair.passed else 'disagree'}, {size}"))
        if self.completeness:
            worst_sum = max(self.completeness, key=lambda row: _size(row["error"]))
            found.append(
                ("completeness", f"error {worst_sum['error']:.1e} at most, of {worst_sum['method']}")
            )
        return [(printable(name), printable(value)) for name, value in found]

    def raise_for_disagreement(self) -> None:
        """Raise Disagreement, naming where it first parts, unless the check passed."""
        if not self.passed:
            raise Disagreement(self.headline)


def describe(row: Row, *, layer: bool = False) -> str:
    """One row as a phrase. layer: with the layer of the tensor, where its name does not tell."""
    if "error" in row:
        return f"completeness of {row['method']} on {row['backend']}: error {row['error']:.1e} > {row['tolerance']:.0e}"
    size = f"relative L2 {row['relative_l2']:.1e} > {row['tolerance']:.0e}"
    judged = f", {row['nearer']} is nearer to float64" if row.get("nearer") else ""
    if "float64" in row:
        judged = f", {row['float64']:.1e} in float64"
    home = row.get("layer", "")
    stated = home in ("", row.get("node", "")) or row["tensor"].startswith(f"{home}/")
    told = f" of layer {home!r}" if layer and not stated else ""
    return f"{row['quantity']} {row['tensor']!r}{told}, {row['a']} against {row['b']}: {size}{judged}"


def _summary(pair: Pair) -> Row:
    first = pair.first_divergence
    return {
        "a": pair.a,
        "b": pair.b,
        "passed": pair.passed,
        "explained": pair.explained,
        "worst": {key: pair.worst[key] for key in ("quantity", "tensor", "relative_l2")},
        "first_divergence": first
        and {key: first[key] for key in ("quantity", "tensor", "node", "op_type", "layer", "relative_l2")},
        "origin": pair.origin,
        "suspects": list(pair.suspects),
        "differences": list(pair.differences),
    }


def _size(number: float) -> float:
    """For ranking: what is no number is worse than any."""
    return float("inf") if number != number else float(number)
