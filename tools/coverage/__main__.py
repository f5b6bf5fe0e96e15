"""`python -m tools.coverage`: the ONNX standard's node tests through the public path, counted per op.

Exits 1 where a backend fails a case that stock ONNX Runtime passes, or a derivative is wrong or missing,
unless the table of exclusions says why.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from converters.system.quiet import quiet
from tools.coverage.forward import BACKENDS, STOCK
from tools.coverage.node_tests import NodeTest, node_tests
from tools.coverage.page import page
from tools.coverage.report import Report, measure


def main() -> int:
    """Run, print, write; the exit status."""
    options = _parser().parse_args()
    tests = [test for test in node_tests() if not options.op or test.op in options.op]
    if not tests:
        print(f"no node test of {', '.join(options.op)}", file=sys.stderr)
        return 2
    whole = len(tests) == len(node_tests())
    report = _run(tests)
    if options.json:
        print(json.dumps(report.document(), indent=2))
    else:
        _show(report, Console(soft_wrap=True, markup=False, highlight=False), whole=whole)
    if options.write:
        options.write.write_text(page(report), encoding="utf-8")
    return 1 if report.problems or (whole and report.unused) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.coverage", description=__doc__)
    parser.add_argument(
        "--op", action="append", default=[], help="run the cases of this op alone; repeatable"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="write the coverage page, docs/coverage.md"
    )
    return parser


def _run(tests: list[NodeTest]) -> Report:
    # ONNX Runtime reports each kernel it lacks on the native stderr; the bar needs a copy of its own.
    with os.fdopen(os.dup(2), "w") as screen:
        bar = Console(file=screen)
        turn = track(tests, "node tests", console=bar, transient=True, disable=not bar.is_terminal)
        results = []
        for test in turn:
            with quiet("tensorflow", "absl", native=True):
                results.append(measure(test))
    return Report(tuple(results))


def _show(report: Report, console: Console, *, whole: bool) -> None:
    table = Table(box=SIMPLE_HEAD, header_style="dim", pad_edge=False)
    for name in ("op", "cases", "stock", "ORT", "torch", "TF", "VJPs", "left out", "failed"):
        table.add_column(name, justify="left" if name == "op" else "right", no_wrap=True)
    for row in report.rows:
        table.add_row(*_cells(row), style=_style(row))
    console.print(table)
    _list(console, "Excluded, in the backends' forward passes", report.totals(float32=True)["excluded"])
    grouped = {f"{text}: {places[0]}": len(places) for text, places in report.grouped_problems().items()}
    _list(console, "Failures that fail the run, with the first place of each", grouped)
    _list(console, "Exclusions that exclude nothing", report.unused if whole else [])
    for line in summary(report):
        console.print(line, style="bold")


def _cells(row: dict[str, Any]) -> list[str]:
    slopes = row["derivatives"]
    counted = [row["cases"], row[STOCK], *(row[backend] for backend in BACKENDS), slopes["checked"]]
    left_out = sum(row["excluded"].values()) + slopes["excluded"]
    return [row["op"], *map(str, counted), str(left_out or ""), str(slopes["failed"] or "")]


def _style(row: dict[str, Any]) -> str:
    behind = any(row[backend] < row[STOCK] for backend in BACKENDS)
    return "yellow" if row["derivatives"]["failed"] or (behind and not row["excluded"]) else ""


def _list(console: Console, title: str, entries: list[str] | dict[str, int]) -> None:
    if not entries:
        return
    console.print(title, style="bold")
    lines = entries if isinstance(entries, list) else [f"{count:4} {why}" for why, count in entries.items()]
    for line in lines:
        console.print(f"  {line}")
    console.print()


def summary(report: Report) -> list[str]:
    """The totals in two lines, and those of the derivatives."""
    lines = []
    for kind, float32 in (("of float32", True), ("of other types", False)):
        total = report.totals(float32=float32)
        if total["cases"]:
            passed = ", ".join(f"{backend} {total[backend]}" for backend in BACKENDS)
            out = sum(total["excluded"].values())
            lines.append(
                f"{total['cases']} cases {kind}; stock ONNX Runtime passes {total[STOCK]}; {passed}; excluded {out}"
            )
    slopes = report.totals(float32=True)["derivatives"]
    ran = ", ".join(f"{label} {count}" for label, count in slopes["by"].items())
    lines.append(
        f"{slopes['checked']} derivatives agree ({ran}); excluded {slopes['excluded']}, failed {slopes['failed']}"
    )
    return lines


if __name__ == "__main__":
    sys.exit(main())
