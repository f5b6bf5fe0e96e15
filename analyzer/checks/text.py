"""A report as plain text: what a terminal without colours, a log or a failed test shows.

From a Report to aligned lines: the verdict, each pair by quantity, the worst rows, where the pair first parts and the
node at fault, completeness, and of two models which layers were found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from analyzer.types import Row

if TYPE_CHECKING:
    from analyzer.checks.report import Pair, Report

# Enough to see a pattern; the JSON has them all.
MOST_ROWS, MOST_NAMES = 10, 8


def as_text(report: Report) -> str:
    """The verdict first, then what it rests on; a pair that failed tells more than one that passed."""
    lines = [report.headline]
    for pair in sorted(report.pairs, key=lambda pair: pair.passed):
        lines += ["", *pair_lines(pair)]
    if report.completeness:
        lines += ["", "completeness", *aligned(_completeness_cells(report.completeness), right=(2, 3))]
    found = layer_lines(report)
    return "\n".join([*lines, *(["", *found] if found else [])])


def pair_lines(pair: Pair) -> Iterator[str]:
    """A pair by quantity; where it failed, its worst rows and where it parts."""
    yield f"{pair.a} against {pair.b}: {'agree' if pair.passed else 'disagree'}"
    yield from aligned(quantity_cells(pair), right=(1, 2, 3, 4))
    if not pair.passed:
        yield from failure_lines(pair)
        yield from origin_lines(pair)


def failure_lines(pair: Pair) -> Iterator[str]:
    """The failing rows, the worst first."""
    more = f" of {len(pair.failures)}" if len(pair.failures) > MOST_ROWS else ""
    yield f"the worst{more}, by relative L2"
    yield from aligned([_row_cells(row) for row in pair.failures[:MOST_ROWS]], right=(0,))


def origin_lines(pair: Pair) -> Iterator[str]:
    """Where a pair first parts, and the node at fault."""
    if pair.first_divergence is not None:
        yield f"first parts at {place(pair.first_divergence)}"
    if pair.origin:
        yield f"node at fault: {pair.origin}"
    for phrase in pair.differences:
        yield f"differs: {phrase}"


def quantity_cells(pair: Pair) -> list[tuple[str, ...]]:
    """A head, then one line a quantity: how many tensors, how many failed, the worst and where it stands."""
    head = ("quantity", "tensors", "failed", "relative L2", "allowed", "worst at")
    return [
        head,
        *(
            (
                name,
                str(len(part.rows)),
                str(len(part.failures)),
                f"{part.worst['relative_l2']:.1e}{'*' if part.worst['explanation'] else ''}",
                f"{part.worst['tolerance']:.0e}",
                part.worst["tensor"],
            )
            for name, part in pair.by_quantity.items()
        ),
        *([("* in excess for a named reason, such as kink decisions",)] if pair.explained else []),
    ]


def place(row: Row) -> str:
    """Which tensor of which layer a row speaks of, and the node that computes it."""
    node = f", {row['op_type']} {row['node']!r}" if row["node"] else ""
    layer = f" of layer {row['layer']!r}" if row["layer"] else ""
    return f"{row['quantity']} {row['tensor']!r}{node}{layer}"


def layer_lines(report: Report) -> list[str]:
    """Of two models: which layers were matched, which only come near, and which have no counterpart."""
    if not report.unmatched:
        return []
    lines = [f"{len(report.matched)} layers matched by value, {len(report.near)} more by the least distance"]
    lines += [
        f"unmatched in {name}: {_listed(tensors)}" for name, tensors in report.unmatched.items() if tensors
    ]
    return lines


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Iterator[str]:
    """Rows in columns, indented; a row of one cell stands as it is."""
    columns = [row for row in rows if len(row) > 1]
    widths = [max(len(cell) for cell in column) for column in zip(*columns, strict=True)]
    for row in rows:
        if len(row) == 1:
            yield f"  {row[0]}"
            continue
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"  {'  '.join(cells)}".rstrip()


def _row_cells(row: Row) -> tuple[str, ...]:
    nearer = f"{row['nearer']} is nearer to float64" if row.get("nearer") else ""
    if "float64" in row:
        nearer = f"in float64 {row['float64']:.1e}"
    return (f"{row['relative_l2']:.1e}", row["quantity"], row["tensor"], row["op_type"], row["layer"], nearer)


def _completeness_cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    head = ("backend", "method", "error", "allowed", "")
    return [
        head,
        *(
            (
                row["backend"],
                row["method"],
                f"{row['error']:.1e}",
                f"{row['tolerance']:.0e}",
                ("holds" if row["passed"] else "fails")
                + (f" with {row['explanation']}" if row.get("explanation") else ""),
            )
            for row in rows
        ),
    ]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
