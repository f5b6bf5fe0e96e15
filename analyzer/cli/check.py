"""`onnxplain check`: hold backends, and the original network, against each other on given inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.options import (
    ExampleOption,
    InputsArgument,
    JsonOption,
    LayoutOption,
    MeanOption,
    ModelArgument,
    ResizeOption,
    SizeOption,
    StdOption,
    StraightThroughOption,
    TargetOption,
    split_list,
)
from analyzer.cli.terminal import Terminal, UserError, verdict

if TYPE_CHECKING:
    from converters.model import Model


def check(
    model: ModelArgument,
    inputs: InputsArgument,
    backends: Annotated[
        str | None,
        typer.Option(
            "--backends", help="Comma list of onnxruntime, torch, tensorflow, source. Default: all there are."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source", help="The original network: package.module:factory, .pt2, .keras or SavedModel."
        ),
    ] = None,
    target: TargetOption = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", help="Of relative L2, for every quantity.")
    ] = 1e-4,
    html: Annotated[Path | None, typer.Option("--html", help="Write the report as a page.")] = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    layout: LayoutOption = None,
    resize: ResizeOption = None,
    example: ExampleOption = None,
    straight_through: StraightThroughOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check that backends agree on a model: outputs, layers, gradients, FullGrad and Integrated Gradients."""
    from analyzer.checks import check as check_model
    from analyzer.cli.analyze import ASSUMED, class_count
    from analyzer.cli.inputs import ImageOptions, read_inputs
    from analyzer.cli.models import open_model
    from analyzer.cli.targets import parse_target
    from analyzer.graph import Graph

    terminal = Terminal(as_json)
    if html is not None and (html.is_dir() or not html.parent.is_dir()):
        raise UserError(f"{html}: {'a folder, not a file' if html.is_dir() else 'its folder does not exist'}")
    with terminal.progress("reading the model"):
        loaded = open_model(model, example, straight_through=straight_through)
        if source is not None and straight_through:
            raise UserError("--straight-through leaves --source out: it rounds by rules of its own")
        if source is not None:
            loaded = with_source(loaded, source, example)
    graph = Graph.from_proto(loaded.proto)
    batch = read_inputs(inputs, graph, loaded, ImageOptions(size, mean, std, layout, resize))
    chosen = parse_target(target, len(batch.names), class_count(graph), loaded.class_names)
    if batch.assumed:
        terminal.note(ASSUMED)
    names = split_list(backends) if backends is not None else None
    with terminal.steps("checking") as step:
        report = check_model(
            loaded,
            batch.inputs,
            chosen,
            backends=names,
            tolerance=tolerance,
            progress=lambda name: step(str(name)),
        )
    if html is not None:
        report.to_html(html)
    show_agreement(terminal, report.rows, report.completeness)
    for name, reason in report.skipped.items():
        terminal.out.print(f"not run: {name} ({reason})", style="dim", soft_wrap=True)
    terminal.out.print()
    terminal.out.print(report.headline, style="green" if report.passed else "bold red", soft_wrap=True)
    if html is not None:
        terminal.out.print(f"written: {html}", soft_wrap=True)
    terminal.document(_document(model, report))
    if not report.passed:
        raise typer.Exit(1)


def with_source(model: Model, source: str, example: Path | None) -> Model:
    """The model with the original network attached, converted anew for the names of its tensors."""
    from analyzer.cli.models import network_and_example
    from converters import convert

    original = convert(*network_and_example(source, example))
    if original.source is None:
        raise UserError(f"--source {source}: an ONNX file is no original network")
    mine, theirs = ([item.name for item in proto.graph.input] for proto in (model.proto, original.proto))
    if mine != theirs:
        raise UserError(
            f"--source {source}: its inputs are {', '.join(theirs)}, the model's {', '.join(mine)}"
        )
    return replace(model, source=original.source)


def show_agreement(
    terminal: Terminal, rows: Sequence[Mapping[str, Any]], completeness: Sequence[Mapping[str, Any]] = ()
) -> None:
    """The comparisons by quantity and pair, the failing ones named one by one."""
    from analyzer.figures.report import check_matrix, format_error

    matrix = check_matrix(rows)
    if matrix.pairs:
        terminal.heading("Agreement, by the worst relative L2")
        wide = terminal.out.width >= WIDE
        cells = [
            (_pair(pair, wide), *(_cell(group, int(wide)) for group in groups))
            for pair, groups in matrix.pairs
        ]
        columns = ("between", *matrix.quantities)
        terminal.table(columns, cells, right=range(1, len(columns)), fixed=(0,))
        if any(row.get("explanation") for row in rows):
            text = "≈ larger than the tolerance, explained by kink decisions, which --json and the page name"
            terminal.out.print(text, style="dim")
    failing = [row for row in rows if not row["passed"]]
    for row in failing[:MOST_NAMED]:
        where = f"{row['quantity']} {row['tensor']}: {row['a']} · {row['b']}"
        text = f"  {where}, relative L2 {row['relative_l2']:.1e}"
        terminal.out.print(text, style="red", soft_wrap=True)
    if len(failing) > MOST_NAMED:
        terminal.out.print(f"  and {len(failing) - MOST_NAMED} more; --json has them all", style="red")
    if completeness:
        terminal.heading("Completeness on each backend")
        terminal.table(
            ("backend", "method", "relative error", ""),
            [
                (r["backend"], r["method"], format_error(r["error"]), verdict(r["passed"]))
                for r in completeness
            ],
            right=(2,),
        )


MOST_NAMED = 12
# Columns of a terminal on which the whole table fits with two digits.
WIDE = 112


def _pair(names: str, wide: bool) -> Any:
    from rich.text import Text

    return Text(names if wide else names.replace(" · ", " ·\n"), no_wrap=True)


def _cell(group: Any, digits: int) -> Any:
    """The worst of a group, marked: ✓ within the tolerance, ≈ explained, ✗ failed."""
    from rich.text import Text

    if group is None:
        return "–"
    mark, style = (
        ("✗", "bold red") if group.failed else ("≈", "yellow") if group.explained else ("✓", "green")
    )
    return Text.assemble(
        f"{group.worst_l2:.{digits}e}" if group.worst_l2 else "0", " ", (mark, style), no_wrap=True
    )


def _document(model: str, report: Any) -> dict[str, Any]:
    import json

    return {"command": "check", "model": model, "headline": report.headline, **json.loads(report.to_json())}
