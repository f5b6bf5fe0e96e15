"""`onnxplain report`: the explanations of a whole data set on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analyzer.cli.destinations import refuse_unwritable
from analyzer.cli.options import JsonOption
from analyzer.cli.terminal import Terminal, UserError


def report(
    results: Annotated[Path, typer.Argument(metavar="FOLDER", help="The results of `onnxplain run`.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The page to write. Default: report.html in the folder."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks",
            metavar="FOLDER",
            help="Masks, images or .npy files named by the ids of the samples. Pixels other than 0 are inside. "
            "The page then states how much of each map lies inside.",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Where the samples are now. Default: where they were during the run."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Report on a data set: accuracy, completeness, mean maps of classes, unusual samples."""
    from analyzer.data.set_report import report_results

    terminal = Terminal(as_json)
    page = results / "report.html" if output is None else output
    if page.is_dir() or page.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{page}: expected the name of an .html file. Fix: give -o a path that ends in .html")
    refuse_unwritable(page)
    with terminal.progress("reading the results"):
        found = report_results(results, masks=masks, images=images)
    with terminal.progress("drawing the page"):
        found.to_html(page)
    summary = found.summary
    terminal.out.print(
        f"{page}  ({summary.samples:,} samples, {len(summary.classes):,} classes)", soft_wrap=True
    )
    if summary.accuracy is not None:
        terminal.out.print(
            f"classified right: {summary.accuracy:.1%} of {summary.labelled:,}", soft_wrap=True
        )
    if summary.completeness.size:
        terminal.out.print(f"largest completeness error: {summary.completeness.max():.1e}", soft_wrap=True)
    if failed := sum(summary.errors.values()):
        terminal.out.print(f"could not be explained: {failed:,}", soft_wrap=True)
    terminal.document({"command": "report", "results": str(results), "output": str(page), **found.to_json()})
