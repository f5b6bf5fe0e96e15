"""`onnxplain convert`: any framework's model to one canonical, verified ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.destinations import refuse_other_than_onnx
from analyzer.cli.options import (
    ExampleOption,
    JsonOption,
    LayoutOption,
    MeanOption,
    ResizeOption,
    SetOption,
    SizeOption,
    StdOption,
    TrustOption,
    parse_constants,
)
from analyzer.cli.terminal import Terminal, UserError

if TYPE_CHECKING:
    from analyzer.cli.inputs import ImageOptions
    from converters.model import Model, Preprocessing


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A .pt2, .keras or .onnx file, a SavedModel or Hugging Face folder, hf://ORG/NAME, or "
            "package.module:factory."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx file to write.")],
    class_names: Annotated[
        str | None,
        typer.Option(
            "--class-names",
            help="Class names to store: a file with one a line or a JSON list, or a list such as disc,square.",
        ),
    ] = None,
    no_fold: Annotated[
        bool,
        typer.Option(
            "--no-fold", "--no-fold-batch-norm", help="Keep BatchNorm apart from the layer before it."
        ),
    ] = False,
    batches: Annotated[
        int,
        typer.Option(
            "--batches",
            min=0,
            help="Test inputs to compare besides the example, made from its rows and values.",
        ),
    ] = 3,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance", min=0.0, help="Relative L2 error to allow in each output (default 1e-3)."
        ),
    ] = None,
    example: ExampleOption = None,
    constant: SetOption = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    layout: LayoutOption = None,
    resize: ResizeOption = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Convert a model to ONNX and verify it against the original."""
    from analyzer.cli.inputs import ImageOptions
    from analyzer.cli.models import network_and_example, read_class_names
    from converters import convert as convert_model
    from converters.conversion import TOLERANCE

    terminal, constants = Terminal(as_json), parse_constants(constant)
    refuse_other_than_onnx(output)
    names = read_class_names(class_names) if class_names is not None else None
    options = ImageOptions(size, mean, std, layout, resize)
    preprocessing = _given_preprocessing(options)
    network, sample = network_and_example(source, example)
    with terminal.progress("converting and verifying"):
        model = convert_model(
            network,
            sample,
            preprocessing=preprocessing,
            class_names=names,
            constants=constants,
            fold_batch_norm=not no_fold,
            batches=batches,
            tolerance=TOLERANCE if tolerance is None else tolerance,
            trust=trust,
        )
    _check_class_names(model, names)
    model.save(output)
    _show(terminal, model, output)
    terminal.document(_document(source, model, output))


def _given_preprocessing(options: ImageOptions) -> Preprocessing | None:
    """The preprocessing to store; it needs a size, which the flags must state."""
    from analyzer.cli.inputs import stored_flags

    if not options.any_given:
        return None
    if options.size is None:
        raise UserError(
            "expected the size of the images to store with --mean, --std, --layout or --resize. Fix: give --size too"
        )
    return stored_flags(options)


def _check_class_names(model: Model, names: list[str] | None) -> None:
    from analyzer.cli.targets import class_count
    from analyzer.graph.graph import Graph

    classes = class_count(Graph.from_proto(model.proto))
    if names is not None and classes is not None and len(names) != classes:
        raise UserError(
            f"--class-names has {len(names)} names, but the model has {classes} classes. Fix: give one name for each"
        )


def _show(terminal: Terminal, model: Model, output: Path) -> None:
    found = model.verification
    size = output.stat().st_size / 1e6
    terminal.out.print(f"{output}  ({len(model.proto.graph.node)} nodes, {size:.1f} MB)", soft_wrap=True)
    if found is not None:
        terminal.out.print(
            f"verified against {found.reference} on {found.batches} batches: "
            f"relative L2 {found.relative_l2:.1e}, largest difference {found.max_abs_error:.1e}",
            soft_wrap=True,
        )


def _document(source: str, model: Model, output: Path) -> dict[str, Any]:
    found = model.verification
    return {
        "command": "convert",
        "source": source,
        "output": str(output),
        "nodes": len(model.proto.graph.node),
        "verification": None if found is None else vars(found),
    }
