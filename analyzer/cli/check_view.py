"""What `check` and `compare` show on the terminal: the verdict first, then the tables that it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analyzer.cli.terminal import Terminal, verdict

if TYPE_CHECKING:
    from analyzer.checks import Report
    from analyzer.checks.report import Pair

MOST_NAMED = 12
MOST_LAYERS = 8
MOST_SAMPLES = 5
# Columns of a terminal on which the whole table fits with two digits.
WIDE = 112


def show_verdict(terminal: Terminal, report: Report) -> None:
    """The verdict in its colour; what it failed for follows."""
    style, mark = ("bold green", "✓") if report.passed else ("bold red", "✗")
    terminal.out.print(f"{mark} {report.verdict}", style=style, soft_wrap=not terminal.out.is_terminal)


def show_comparison(terminal: Terminal, report: Report, names: Sequence[str]) -> None:
    """A comparison of two models. names: of the samples."""
    show_verdict(terminal, report)
    show_origins(terminal, report)
    show_layers(terminal, report)
    for pair in report.pairs:
        show_quantities(terminal, pair)
    show_drift(terminal, report.drift, names)
    show_completeness(terminal, report.completeness)


def show_agreement(
    terminal: Terminal, rows: Sequence[Mapping[str, Any]], completeness: Sequence[Mapping[str, Any]] = ()
) -> None:
    """The comparisons by quantity and pair, the failing ones named one by one."""
    from analyzer.report.page import check_matrix

    matrix = check_matrix(rows)
    if matrix.pairs:
        terminal.heading("Agreement, by the worst relative L2")
        wide = terminal.out.width >= WIDE
        cells = [
            (_pair(pair, wide), *(_cell(group, int(wide)) for group in groups))
            for pair, groups in matrix.pairs
        ]
        # Broken at their blanks the names of all quantities fit in 80 columns.
        quantities = [name if wide else name.replace(" ", "\n") for name in matrix.quantities]
        columns = ("between", *quantities)
        terminal.table(columns, cells, right=range(1, len(columns)), fixed=(0,))
        if any(row.get("explanation") for row in rows):
            terminal.remark(EXPLAINED)
    failing = [row for row in rows if not row["passed"]]
    for row in failing[:MOST_NAMED]:
        where = f"{row['quantity']} {row['tensor']}: {row['a']} · {row['b']}"
        terminal.paragraph(f"{where}, relative L2 {row['relative_l2']:.1e}", "red")
    if len(failing) > MOST_NAMED:
        terminal.paragraph(f"and {len(failing) - MOST_NAMED} more; --json has them all", "red")
    show_completeness(terminal, completeness)


EXPLAINED = "≈ larger than the tolerance for a reason, such as kink decisions, that --json and the page name"


def show_completeness(terminal: Terminal, rows: Sequence[Mapping[str, Any]]) -> None:
    """Whether FullGrad's terms sum to the output, on every side."""
    from analyzer.figures.numbers import format_error

    if rows:
        terminal.heading("Completeness on each side")
        cells = [
            (row["backend"], row["method"], format_error(row["error"]), verdict(row["passed"]))
            for row in rows
        ]
        terminal.table(("side", "method", "relative error", ""), cells, right=(2,))


def show_origins(terminal: Terminal, report: Report) -> None:
    """Where every failing pair first parts, and the node at fault."""
    from analyzer.checks.text import place

    for pair in report.pairs:
        first = pair.first_divergence
        if first is None:
            continue
        terminal.heading(f"{pair.a} and {pair.b} first part at")
        terminal.paragraph(f"{place(first)}, relative L2 {first['relative_l2']:.1e}")
        if first.get("tensor_b"):
            terminal.paragraph(f"in {pair.b}: {first['tensor_b']!r}")
        if pair.origin:
            terminal.paragraph(f"node at fault: {pair.origin}", "bold")
        for phrase in pair.differences:
            terminal.paragraph(f"differs: {phrase}", "bold")
        if first.get("nearer"):
            errors = ", ".join(f"{pair_side} {first[key]:.1e}" for pair_side, key in _sides(pair))
            if "float64" in first:
                told = (
                    f"the models differ in float64 by {first['float64']:.1e}; each from its own run: {errors}"
                )
            else:
                told = f"distance from float64: {errors}; {first['nearer']} is nearer"
            terminal.paragraph(told)


def show_quantities(terminal: Terminal, pair: Pair) -> None:
    """One line a quantity: how many tensors, how many of them fail, the worst and where it stands."""
    terminal.heading("Agreement, by the worst relative L2")
    cells = [
        (
            name,
            str(len(part.rows)),
            str(len(part.failures)),
            _worst(part),
            f"{part.worst['tolerance']:.0e}",
            part.worst["tensor"],
        )
        for name, part in pair.by_quantity.items()
    ]
    columns = ("quantity", "tensors", "fail", "relative L2", "allowed", "worst at")
    terminal.table(columns, cells, right=(1, 2, 3, 4), fixed=range(5))
    if pair.explained:
        terminal.remark(EXPLAINED)


def show_layers(terminal: Terminal, report: Report) -> None:
    """How many layers found their counterpart, and which did not."""
    terminal.heading("Layers")
    near = f", {len(report.near)} paired with the nearest" if report.near else ""
    terminal.paragraph(f"{len(report.matched)} matched by value{near}")
    for name, tensors in report.unmatched.items():
        if tensors:
            terminal.paragraph(
                f"{len(tensors)} of {name} without a counterpart: {_listed(tensors)}", "yellow"
            )
    if report.near:
        sizes = {row["tensor"]: row["relative_l2"] for row in report.rows if row["quantity"] == "layer"}
        cells = [
            (mine, theirs, f"{sizes[mine]:.1e}" if mine in sizes else "–")
            for mine, theirs in list(report.near.items())[:MOST_LAYERS]
        ]
        terminal.table((*report.backends, "relative L2"), cells, right=(2,), fixed=(2,))
        if len(report.near) > MOST_LAYERS:
            terminal.remark(f"and {len(report.near) - MOST_LAYERS} more; --json has them all")


def show_drift(terminal: Terminal, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """How far each sample's output and attributions moved, the worst first."""
    if not rows:
        return
    kinds = [key.removesuffix(" cosine") for key in rows[0] if key.endswith(" cosine")]
    similarities = {"rank_correlation": "ρ"}
    if terminal.out.width >= WIDE:
        similarities |= {"top_overlap": "top", "ssim": "SSIM"}
    terminal.heading(
        "Drift, the samples that moved most (relative L2; ρ of ranks; top: shared of the largest tenth)"
    )
    cells = [
        (
            names[row["sample"]],
            f"{row['output']:.1e}",
            "changed" if row["changed"] else "same",
            *(
                text
                for kind in kinds
                for text in (
                    f"{row[f'{kind} relative_l2']:.1e}",
                    *(_similarity(row, f"{kind} {name}") for name in similarities),
                )
            ),
        )
        for row in rows[:MOST_SAMPLES]
    ]
    columns = (
        "sample",
        "output",
        "class",
        *(text for kind in kinds for text in (kind, *similarities.values())),
    )
    terminal.table(columns, cells, right=(1, *range(3, len(columns))))
    if len(rows) > MOST_SAMPLES:
        terminal.remark(f"and {len(rows) - MOST_SAMPLES} more samples; --json has them all")


def _similarity(row: Mapping[str, Any], key: str) -> str:
    """A similarity of a drift row; a dash where there is none, as of a table's structure."""
    return f"{row[key]:.3f}" if key in row else "–"


def _sides(pair: Pair) -> tuple[tuple[str, str], tuple[str, str]]:
    return (pair.a, "a_error"), (pair.b, "b_error")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_LAYERS} more" if len(names) > MOST_LAYERS else ""
    return ", ".join(names[:MOST_LAYERS]) + more


def _pair(names: str, wide: bool) -> Any:
    from rich.text import Text

    return Text(names if wide else names.replace(" · ", " ·\n"), no_wrap=True)


def _worst(part: Pair) -> Any:
    """The worst of a quantity, marked."""
    return _marked(part.worst["relative_l2"], 1, not part.passed, bool(part.worst["explanation"]))


def _cell(group: Any, digits: int) -> Any:
    """The worst of a group, marked."""
    return (
        "–" if group is None else _marked(group.worst_l2, digits, bool(group.failed), bool(group.explained))
    )


def _marked(size: float, digits: int, failed: bool, explained: bool) -> Any:
    """A number with ✓ within the tolerance, ≈ explained, ✗ failed."""
    from rich.text import Text

    mark, style = ("✗", "bold red") if failed else ("≈", "yellow") if explained else ("✓", "green")
    return Text.assemble(f"{size:.{digits}e}" if size else "0", " ", (mark, style), no_wrap=True)
