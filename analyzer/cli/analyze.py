"""`onnxplain analyze`: attributions of a model on inputs, their completeness, pictures and a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.analyze_files import document, write_results
from analyzer.cli.analyze_view import show_results
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
from analyzer.cli.terminal import Terminal, UserError

if TYPE_CHECKING:
    from analyzer.analysis import MethodResult
    from analyzer.backends import Differentiable
    from analyzer.cli.inputs import Batch
    from analyzer.target import TargetLike

ASSUMED = "No mean and std are stored in the model or given: images are fed as pixels in [0, 1]."


class Method(StrEnum):
    """The attribution methods."""

    FULL_GRAD = "full-grad"
    SIMPLE_FULL_GRAD = "simple-full-grad"
    SMOOTH_FULL_GRAD = "smooth-full-grad"
    INTEGRATED_GRADIENTS = "integrated-gradients"


class Terms(StrEnum):
    """Which of FullGrad's bias terms."""

    ALL = "all"
    EXPLICIT = "explicit"


class PostProcessing(StrEnum):
    """Whose saliency map of FullGrad's terms."""

    PAPER = "paper"
    PYTORCH_GRAD_CAM = "pytorch-grad-cam"


class Rule(StrEnum):
    """The quadrature rules of Integrated Gradients."""

    GAUSS_LEGENDRE = "gauss-legendre"
    TRAPEZOID = "trapezoid"


class Precision(StrEnum):
    """The precision of the torch and tensorflow backends."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


FULL_GRAD_PANEL, SMOOTH_PANEL, INTEGRATED_PANEL = "FullGrad", "Smooth FullGrad", "Integrated Gradients"


def analyze(
    model: ModelArgument,
    inputs: InputsArgument,
    method: Annotated[
        list[Method] | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help=f"{', '.join(Method)}. Repeat for several. Default: full-grad.",
        ),
    ] = None,
    target: TargetOption = None,
    backend: Annotated[Backend, typer.Option("--backend", help="What computes.")] = Backend.ONNXRUNTIME,
    precision: Annotated[
        Precision | None, typer.Option("--precision", help="Of the torch and tensorflow backends.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Folder for overlays, charts, arrays, report.html and summary.json."
        ),
    ] = None,
    terms: Annotated[
        Terms,
        typer.Option(
            "--terms",
            help="All bias terms, or the published ones: those of layers.",
            rich_help_panel=FULL_GRAD_PANEL,
        ),
    ] = Terms.ALL,
    post_processing: Annotated[
        PostProcessing,
        typer.Option(
            "--post-processing",
            help="Whose map: terms rescaled per sample, or per channel.",
            rich_help_panel=FULL_GRAD_PANEL,
        ),
    ] = PostProcessing.PAPER,
    align_corners: Annotated[
        bool | None,
        typer.Option(
            "--align-corners/--no-align-corners",
            help="Of the map's bilinear resizing. Default: as in --post-processing.",
            rich_help_panel=FULL_GRAD_PANEL,
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option("--samples", min=1, help="Noisy copies of each input.", rich_help_panel=SMOOTH_PANEL),
    ] = 25,
    noise: Annotated[
        float,
        typer.Option(
            "--noise",
            min=0,
            help="Standard deviation, as a share of the input's range.",
            rich_help_panel=SMOOTH_PANEL,
        ),
    ] = 0.15,
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
        int, typer.Option("--seed", min=0, help="Of Smooth FullGrad's noise and of the random baseline.")
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
    maps = {"post_processing": post_processing.value, "align_corners": align_corners}
    settings: dict[Method, dict[str, Any]] = {
        Method.FULL_GRAD: {"terms": terms.value, **maps},
        Method.SIMPLE_FULL_GRAD: maps,
        Method.SMOOTH_FULL_GRAD: {
            "samples": samples,
            "noise": noise,
            "seed": seed,
            "terms": terms.value,
            **maps,
        },
        Method.INTEGRATED_GRADIENTS: {
            "steps": steps,
            "rule": rule.value,
            "baseline": read_baseline(baseline),
            "tolerance": tolerance,
            "seed": seed,
        },
    }
    results = _run(
        terminal, fn, batch, chosen, {name: settings[name] for name in method or [Method.FULL_GRAD]}
    )
    predicted = predictions(fn.forward(batch.inputs)[graph.outputs[0]], loaded.class_names)
    files = [] if output is None else write_results(output, model, fn, batch, results, predicted)
    show_results(terminal, batch, results, predicted, loaded.class_names, files)
    terminal.document(
        {**document(model, fn, batch, results, predicted), "files": [str(path) for path in files]}
    )
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
    methods: Mapping[Method, Mapping[str, Any]],
) -> list[MethodResult]:
    """The methods in their order, each with its settings."""
    from analyzer import analysis

    runners: dict[Method, Callable[..., MethodResult]] = {
        Method.FULL_GRAD: analysis.run_full_grad,
        Method.SIMPLE_FULL_GRAD: analysis.run_simple_full_grad,
        Method.SMOOTH_FULL_GRAD: analysis.run_smooth_full_grad,
        Method.INTEGRATED_GRADIENTS: analysis.run_integrated_gradients,
    }
    results = []
    for method, settings in methods.items():
        with terminal.progress(method.value) as progress:
            results.append(runners[method](fn, batch.inputs, target, progress=progress, **settings))
    return results
