"""`onnxplain export`: a model with the explanation of its output, as one ONNX file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from analyzer.cli.destinations import refuse_other_than_onnx
from analyzer.cli.method_options import MethodOption, enum_of, settings_of, with_method_options
from analyzer.cli.options import (
    ExampleOption,
    JsonOption,
    LayoutOption,
    LogitOption,
    MeanOption,
    ModelArgument,
    NoVerifyOption,
    ResizeOption,
    SetOption,
    SizeOption,
    StdOption,
    StraightThroughOption,
    TargetOption,
    TrustOption,
    parse_constants,
)
from analyzer.cli.terminal import READING, Terminal, UserError

_Draw: Any = enum_of("Draw", {"STORED": "stored", "INSIDE": "inside"})
_Runtime: Any = enum_of("Runtime", {"WEB": "web", "WEBGPU": "webgpu", "NODE": "node", "MOBILE": "mobile"})
FILE = "The file"
STEPS = 4
"""The number of steps that `export_explainer` reports to its `progress`."""


@with_method_options
def export(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx file to write.")],
    method: MethodOption = None,
    target: TargetOption = None,
    logit: LogitOption = False,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--inputs",
            metavar="FILE",
            help="Images, or .npy or .npz arrays, on which the file is compared with Python, and whose sizes count "
            "where the model leaves them free. Default: random numbers.",
        ),
    ] = None,
    at_once: Annotated[
        str | None,
        typer.Option(
            "--at-once",
            metavar="all|NUMBER",
            help="Points of a path, or noisy copies, to evaluate together; 1 needs the memory of one gradient. "
            "Default: all; 1 for web, webgpu and mobile.",
            rich_help_panel=FILE,
        ),
    ] = None,
    draw: Annotated[
        _Draw,
        typer.Option(
            "--draw",
            help="Noise: stored as the default of an input, or drawn inside in each run.",
            rich_help_panel=FILE,
        ),
    ] = _Draw.STORED,
    opset: Annotated[
        int, typer.Option("--opset", help="ONNX opset of the file, 17 or later.", rich_help_panel=FILE)
    ] = 21,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="Store weights in half precision.", rich_help_panel=FILE)
    ] = False,
    check_for: Annotated[
        _Runtime | None,
        typer.Option(
            "--check-for",
            help="Runtime whose missing ops are refused, or lowered where they have a plain form.",
            rich_help_panel=FILE,
        ),
    ] = None,
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="Take photographs, uint8 RGB of any size, and return maps of their size.",
            rich_help_panel=FILE,
        ),
    ] = False,
    overlay: Annotated[
        bool,
        typer.Option(
            "--overlay",
            help="With --with-preprocessing, also return the map as an RGBA picture.",
            rich_help_panel=FILE,
        ),
    ] = False,
    required_inputs: Annotated[
        bool | None,
        typer.Option(
            "--required-inputs/--optional-inputs",
            help="Whether target, baseline and noise must be fed. Default: optional, but required with --check-for.",
            rich_help_panel=FILE,
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            "--tokenizer",
            metavar="FILE",
            help="A tokenizer.json to store in the file of a text model.",
            rich_help_panel=FILE,
        ),
    ] = None,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    layout: LayoutOption = None,
    resize: ResizeOption = None,
    example: ExampleOption = None,
    constant: SetOption = None,
    straight_through: StraightThroughOption = False,
    no_verify: NoVerifyOption = False,
    trust: TrustOption = False,
    as_json: JsonOption = False,
    **given: Any,
) -> None:
    """Write a model with the explanation of its output as one ONNX file."""
    from analyzer.backends import differentiate
    from analyzer.cli.inputs import ImageOptions, read_background, read_inputs, stored_flags
    from analyzer.cli.models import open_model
    from analyzer.cli.targets import explained_target
    from analyzer.explainer import export_explainer
    from analyzer.graph.graph import Graph
    from converters.model import set_metadata

    terminal, constants = Terminal(as_json), parse_constants(constant)
    chosen = settings_of(method, given)
    if len(chosen) > 1:
        raise UserError(
            f"--method {','.join(chosen)}: a file has one method. Fix: give --method {next(iter(chosen))}"
        )
    ((name, settings),) = chosen.items()
    refuse_other_than_onnx(output)
    points = _points(at_once)
    images = ImageOptions(size, mean, std, layout, resize)
    with terminal.progress("reading the model", READING):
        loaded = open_model(
            model,
            example,
            straight_through=straight_through,
            verify=not no_verify,
            trust=trust,
            images=images,
            constants=constants,
        )
    if images.any_given and images.size is not None:
        set_metadata(loaded, preprocessing=stored_flags(images))
    graph = Graph.from_proto(loaded.proto)
    batch = None if not inputs else read_inputs(inputs, graph, loaded, images)
    if settings.get("background") is not None:
        settings["background"] = read_background(settings["background"], graph, loaded, images)
    if settings.get("baseline_inputs") is not None:
        settings["baseline_inputs"] = read_inputs([settings["baseline_inputs"]], graph, loaded, images).arrays
    wanted = explained_target(
        target, 1 if batch is None else len(batch.names), loaded, graph, logit=logit, terminal=terminal
    )
    vocabulary = None if tokenizer is None else _read_tokenizer(tokenizer)
    with terminal.steps(f"exporting {name}", STEPS) as step:
        written = export_explainer(
            differentiate(loaded, straight_through=straight_through, verify=not no_verify),
            output,
            name,
            target=wanted,
            inputs=None if batch is None else batch.inputs,
            at_once=points,
            draw=draw.value,
            opset=opset,
            fp16=fp16,
            check_for=None if check_for is None else check_for.value,
            with_preprocessing=with_preprocessing,
            overlay=overlay,
            required_inputs=required_inputs,
            tokenizer=vocabulary,
            progress=step,
            **settings,
        )
    _show(terminal, written)
    terminal.document(
        {
            "command": "export",
            "model": model,
            "output": str(output),
            "bytes": written.size,
            "nodes": written.nodes,
            "relative_l2": written.error,
            "lowered": dict(written.lowered),
            **asdict(written.description),
        }
    )


def _points(text: str | None) -> Any:
    """A number, or the word."""
    return int(text) if text is not None and text.isdigit() else text


def _read_tokenizer(path: Path) -> str:
    """The text of a tokenizer.json. Raises UserError where it is none."""
    try:
        text = path.read_text(encoding="utf-8")
        stored = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON"
        raise UserError(f"{path}: {reason}. Fix: give the tokenizer.json of the model") from error
    if not isinstance(stored, dict) or "model" not in stored:
        raise UserError(f"{path}: holds no tokenizer. Fix: give the tokenizer.json of the model")
    return text


def _show(terminal: Terminal, written: Any) -> None:
    kind = written.description
    terminal.out.print(
        f"{written.path}  ({kind.caption}, {written.nodes:,} nodes, {written.size / 1e6:.1f} MB, opset {kind.opset})",
        soft_wrap=True,
    )
    terminal.out.print(f"relative L2 from Python: {written.error:.1e}", soft_wrap=True)
    for title, ports in (("inputs", kind.inputs), ("outputs", kind.outputs)):
        for place, port in enumerate(ports):
            head = f"{title}:" if place == 0 else ""
            shape = ", ".join(map(str, port.shape))
            rest = (
                f" (optional, default {port.default})" if port.optional and port.default is not None else ""
            )
            terminal.out.print(
                f"  {head:<9}{port.name} {port.type} ({shape}){rest}: {port.meaning}",
                soft_wrap=True,
                markup=False,
            )
    if written.lowered:
        ops = ", ".join(f"{count} {op}" for op, count in written.lowered.items())
        terminal.out.print(f"lowered for the runtime: {ops}", soft_wrap=True)
