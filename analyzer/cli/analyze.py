"""`onnxplain analyze`: attributions of a model on inputs, their completeness, pictures and a report."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.options import (
    Backend,
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
)
from analyzer.cli.terminal import Terminal, UserError, verdict

if TYPE_CHECKING:
    import numpy as np

    from analyzer.analysis import MethodResult
    from analyzer.backends import Differentiable
    from analyzer.cli.inputs import Batch
    from analyzer.figures.report import Prediction
    from analyzer.target import TargetLike

ASSUMED = "No mean and std are stored in the model or given: images are fed as pixels in [0, 1]."


class Method(StrEnum):
    """The attribution methods."""

    FULL_GRAD = "full-grad"
    INTEGRATED_GRADIENTS = "integrated-gradients"


class Terms(StrEnum):
    """Which of FullGrad's bias terms."""

    ALL = "all"
    EXPLICIT = "explicit"


class Rule(StrEnum):
    """The quadrature rules of Integrated Gradients."""

    GAUSS_LEGENDRE = "gauss-legendre"
    TRAPEZOID = "trapezoid"


class Precision(StrEnum):
    """The precision of the torch and tensorflow backends."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


FULL_GRAD_PANEL, INTEGRATED_PANEL = "FullGrad", "Integrated Gradients"


def analyze(
    model: ModelArgument,
    inputs: InputsArgument,
    method: Annotated[
        list[Method] | None, typer.Option("--method", help="Repeat for several. Default: full-grad.")
    ] = None,
    target: TargetOption = None,
    backend: Annotated[Backend, typer.Option("--backend", help="What computes.")] = Backend.ONNXRUNTIME,
    precision: Annotated[
        Precision | None, typer.Option("--precision", help="Of the torch and tensorflow backends.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for overlays, arrays, report.html and summary.json."),
    ] = None,
    terms: Annotated[
        Terms,
        typer.Option(
            "--terms", help="All bias terms, or the published ones.", rich_help_panel=FULL_GRAD_PANEL
        ),
    ] = Terms.ALL,
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Points of the path.", rich_help_panel=INTEGRATED_PANEL)
    ] = 50,
    rule: Annotated[
        Rule, typer.Option("--rule", help="Quadrature.", rich_help_panel=INTEGRATED_PANEL)
    ] = Rule.GAUSS_LEGENDRE,
    baseline: Annotated[
        str,
        typer.Option(
            "--baseline",
            help="black, white, random, blurred, a number in the model's units, or a .npy.",
            rich_help_panel=INTEGRATED_PANEL,
        ),
    ] = "0",
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance", help="Refine until the sum is within this share.", rich_help_panel=INTEGRATED_PANEL
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of the random baseline.", rich_help_panel=INTEGRATED_PANEL)
    ] = 0,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    layout: LayoutOption = None,
    resize: ResizeOption = None,
    example: ExampleOption = None,
    straight_through: StraightThroughOption = False,
    as_json: JsonOption = False,
) -> None:
    """Explain a model's outputs: FullGrad and Integrated Gradients, with their completeness."""
    from analyzer.backends import differentiate
    from analyzer.cli.inputs import ImageOptions, read_inputs
    from analyzer.cli.models import open_model
    from analyzer.cli.targets import parse_target
    from analyzer.graph import Graph
    from analyzer.summary import predictions

    terminal = Terminal(as_json)
    if output is not None and output.exists() and not output.is_dir():
        raise UserError(f"{output}: a file, where -o takes a folder")
    with terminal.progress("reading the model"):
        loaded = open_model(model, example, straight_through=straight_through)
    graph = Graph.from_proto(loaded.proto)
    batch = read_inputs(inputs, graph, loaded, ImageOptions(size, mean, std, layout, resize))
    chosen = parse_target(target, len(batch.names), class_count(graph), loaded.class_names)
    if batch.assumed:
        terminal.note(ASSUMED)
    fn = differentiate(
        loaded,
        backend.value,
        precision=precision.value if precision else None,
        straight_through=straight_through,
    )
    settings = {
        "terms": terms.value,
        "steps": steps,
        "rule": rule.value,
        "baseline": read_baseline(baseline),
        "tolerance": tolerance,
        "seed": seed,
    }
    results = _run(terminal, fn, batch, chosen, method or [Method.FULL_GRAD], settings)
    predicted = predictions(fn.forward(batch.inputs)[graph.outputs[0]], loaded.class_names)
    files = [] if output is None else _write(output, model, fn, batch, results, predicted)
    _show(terminal, batch, results, predicted, loaded.class_names, files)
    document = _document(model, fn, batch, results, predicted)
    terminal.document({**document, "files": [str(path) for path in files]})
    if any(passed is False for result in results for passed in result.passed):
        raise typer.Exit(1)


def class_count(graph: Any) -> int | None:
    """How many classes the first output has, where its shape says so."""
    shape = graph.tensors[graph.outputs[0]].shape
    return shape[1] if shape and len(shape) > 1 and isinstance(shape[1], int) else None


def read_baseline(text: str) -> Any:
    """A baseline as the API takes it: a name, a number or an array."""
    from analyzer.cli.models import read_array
    from analyzer.methods.baselines import NAMES

    if text in NAMES:
        return text
    if text.lower().endswith(".npy"):
        return read_array(Path(text))
    try:
        return float(text)
    except ValueError as error:
        raise UserError(
            f"--baseline {text}: {', '.join(NAMES)}, a number or a .npy file is expected"
        ) from error


def _run(
    terminal: Terminal,
    fn: Differentiable,
    batch: Batch,
    target: TargetLike,
    methods: Sequence[Method],
    settings: Mapping[str, Any],
) -> list[MethodResult]:
    from analyzer.analysis import run_full_grad, run_integrated_gradients

    results = []
    for method in dict.fromkeys(methods):
        with terminal.progress(method.value) as progress:
            if method is Method.FULL_GRAD:
                terms = settings["terms"]
                results.append(run_full_grad(fn, batch.inputs, target, terms=terms, progress=progress))
            else:
                path = {name: value for name, value in settings.items() if name != "terms"}
                results.append(run_integrated_gradients(fn, batch.inputs, target, progress=progress, **path))
    return results


def _write(
    folder: Path,
    model: str,
    fn: Differentiable,
    batch: Batch,
    results: Sequence[MethodResult],
    predicted: Sequence[tuple[Prediction, ...]],
) -> list[Path]:
    """Write every file; nothing is written before everything is computed."""
    from analyzer.figures.report import Report, render_report
    from analyzer.summary import (
        arrays_of,
        completeness_rows,
        environment,
        judgement,
        sample_pictures,
        samples,
    )
    from converters.atomic import write_bytes, write_text

    class_names = fn.model.class_names
    pictures = sample_pictures(results, batch.arrays, batch.preprocessing)
    rows = completeness_rows(results, batch.names)
    passed, headline = judgement(results)
    report = Report(
        title=Path(model).name,
        passed=passed,
        headline=headline,
        detail=f"{len(batch.names)} input{'s' * (len(batch.names) != 1)}, computed by {fn.backend}.",
        samples=samples(results, batch.names, predicted, pictures, class_names),
        completeness=rows,
        timings={result.label: result.seconds for result in results},
        environment=environment(fn.backend),
    )
    contents: dict[str, bytes] = {
        f"{stem}-{key}.png": picture.png
        for stem, drawn in zip(file_stems(batch.names), pictures, strict=True)
        for key, picture in drawn.items()
        if key != "photograph"
    }
    contents["arrays.npz"] = npz_bytes(arrays_of(results))
    contents["report.html"] = render_report(report).encode()
    folder.mkdir(parents=True, exist_ok=True)
    written = [write_bytes(folder / name, data) for name, data in contents.items()]
    document = {**_document(model, fn, batch, results, predicted), "files": [str(path) for path in written]}
    written.append(write_text(folder / "summary.json", json_text(document)))
    return written


def json_text(document: Mapping[str, Any]) -> str:
    """A document as the text of a JSON file."""
    from analyzer.cli.terminal import plain

    return json.dumps(plain(document), indent=2, allow_nan=False) + "\n"


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a compressed .npz."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()


def file_stems(names: Sequence[str]) -> list[str]:
    """A file stem per sample: letters, digits, dots and dashes of its name, told apart by number."""
    stems: list[str] = []
    for name in names:
        base = (
            re.sub(r"[^\w.-]+", "-", re.sub(r"\.(?=\w{3,4}\b)\w+", "", name, count=1)).strip("-.") or "input"
        )
        stem, number = base, 2
        while stem in stems:
            stem, number = f"{base}-{number}", number + 1
        stems.append(stem)
    return stems


def _document(
    model: str,
    fn: Differentiable,
    batch: Batch,
    results: Sequence[MethodResult],
    predicted: Sequence[tuple[Prediction, ...]],
) -> dict[str, Any]:
    from analyzer.summary import as_json, environment

    class_names = fn.model.class_names
    return {
        "command": "analyze",
        "model": model,
        "backend": fn.backend,
        "passed": all(passed is not False for result in results for passed in result.passed),
        "samples": [
            {
                "name": name,
                "predictions": [vars(prediction) for prediction in predicted[index]],
                "methods": as_json(results, index, class_names),
            }
            for index, name in enumerate(batch.names)
        ],
        "seconds": {result.method: result.seconds for result in results},
        "environment": environment(),
    }


def _show(
    terminal: Terminal,
    batch: Batch,
    results: Sequence[MethodResult],
    predicted: Sequence[tuple[Prediction, ...]],
    class_names: Sequence[str] | None,
    files: Sequence[Path],
) -> None:
    from analyzer.summary import completeness_rows, target_text

    show_predictions(terminal, batch.names, predicted)
    terminal.heading("Explained")
    terminal.table(
        ("input", "target"),
        [(name, target_text(results[0], index, class_names)) for index, name in enumerate(batch.names)],
    )
    show_completeness(terminal, completeness_rows(results, batch.names))
    show_files(terminal, files)


def show_predictions(
    terminal: Terminal, names: Sequence[str], predicted: Sequence[tuple[Prediction, ...]], most: int = 3
) -> None:
    """A table of the highest classes of each sample."""
    if not any(predicted):
        return
    terminal.heading("Predictions")
    rows = [
        (
            name if place == 0 else "",
            p.name,
            str(p.index),
            f"{p.value:.3f}",
            f"{100 * (p.probability or 0):.1f} %",
        )
        for name, classes in zip(names, predicted, strict=True)
        for place, p in enumerate(classes[:most])
    ]
    terminal.table(("input", "class", "index", "output", "probability"), rows, right=(2, 3, 4))


def show_completeness(terminal: Terminal, rows: Sequence[Any]) -> None:
    """A table of what the attributions add up to."""
    from analyzer.figures.report import format_error, format_value

    terminal.heading("Completeness")
    cells: list[tuple[Any, ...]] = []
    previous = None
    for row in rows:
        name = "" if row.sample == previous else row.sample
        previous = row.sample
        numbers = (format_value(row.output), format_value(row.total), format_error(row.error))
        cells.append((name, row.method, *numbers, verdict(row.passed)))
    columns = ("input", "method", "to explain", "sum of the parts", "relative error", "")
    terminal.table(columns, cells, right=(2, 3, 4))


def show_files(terminal: Terminal, files: Sequence[Path]) -> None:
    """The files written, one a line."""
    if files:
        terminal.heading("Written")
        for path in files:
            terminal.out.print(f"  {path}", soft_wrap=True)
