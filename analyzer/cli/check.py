"""`onnxplain check`: hold backends, and the original network, against each other on given inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.options import (
    BatchSizeOption,
    DeviceOption,
    ExampleOption,
    HtmlOption,
    InputsArgument,
    JsonOption,
    JunitOption,
    LayoutOption,
    LogitOption,
    MaxMemoryOption,
    MeanOption,
    ModelArgument,
    NoVerifyOption,
    ProvidersOption,
    RefereeOption,
    ResizeOption,
    SetOption,
    SizeOption,
    StdOption,
    StepsOption,
    StraightThroughOption,
    TargetOption,
    ToleranceOption,
    TrustOption,
    WrtOption,
    parse_constants,
    parse_providers,
    split_list,
)
from analyzer.cli.terminal import READING, Terminal, UserError

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
    logit: LogitOption = False,
    wrt: WrtOption = None,
    tolerance: ToleranceOption = None,
    steps: StepsOption = None,
    referee: RefereeOption = None,
    html: HtmlOption = None,
    junit: JunitOption = None,
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
    device: DeviceOption = None,
    providers: ProvidersOption = None,
    max_memory: MaxMemoryOption = None,
    batch_size: BatchSizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that backends agree on a model: outputs, layers, gradients, FullGrad and Integrated Gradients."""
    from analyzer.backends import BACKENDS
    from analyzer.checks import check as check_model
    from analyzer.checks.comparison import STEPS
    from analyzer.cli.analyze import ASSUMED
    from analyzer.cli.check_view import show_agreement, show_origins, show_verdict
    from analyzer.cli.gate import Destinations, finish
    from analyzer.cli.inputs import ImageOptions, read_inputs
    from analyzer.cli.models import open_model
    from analyzer.cli.settings import allowed, read_settings, tolerances_from
    from analyzer.cli.targets import explained_target, refuse_several
    from analyzer.graph.graph import Graph

    terminal, constants = Terminal(as_json), parse_constants(constant)
    destinations, settings = Destinations(html, junit), read_settings(Path.cwd())
    tolerances = allowed(tolerance or (), settings)
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
        if source is not None and straight_through:
            raise UserError(
                "the source rounds by its own rules. Fix: give --straight-through or --source, not both"
            )
        if source is not None:
            loaded = with_source(loaded, source, example, trust=trust, constants=constants)
    graph = Graph.from_proto(loaded.proto)
    batch = read_inputs(inputs, graph, loaded, images)
    chosen = explained_target(target, len(batch.names), loaded, graph, logit=logit, terminal=terminal)
    refuse_several(chosen, "check")
    if batch.assumed:
        terminal.note(ASSUMED)
    names = split_list(backends) if backends is not None else settings.backends
    points = steps or settings.steps or STEPS
    with terminal.steps("checking", len(names or BACKENDS) + points) as step:
        report = check_model(
            loaded,
            batch.inputs,
            chosen,
            wrt=wrt or None,
            backends=names,
            tolerance=tolerances,
            steps=points,
            referee=settings.referee if referee is None else referee,
            device=device,
            providers=parse_providers(providers),
            max_memory=max_memory,
            batch_size=batch_size,
            verify=not no_verify,
            progress=step,
        )
    files = destinations.write(report, Path(model).name)
    if report.note:
        terminal.note(f"Note: {report.note}.")
    for text in batch.notes:
        terminal.note(text)
    show_verdict(terminal, report)
    show_agreement(terminal, report.rows, report.completeness)
    show_origins(terminal, report)
    for name, reason in report.skipped.items():
        terminal.remark(f"not run: {name} ({reason})")
    facts = {
        "command": "check",
        "model": model,
        "tolerances_from": tolerances_from(tolerance or (), settings),
    }
    finish(terminal, report, files, facts)


def with_source(
    model: Model,
    source: str,
    example: Path | None,
    *,
    trust: bool = False,
    constants: Mapping[str, Any] | None = None,
) -> Model:
    """The model with the original network attached, converted anew for the names of its tensors."""
    from analyzer.cli.models import network_and_example
    from converters import convert

    fixed = {**model.constants, **(constants or {})}
    original = convert(*network_and_example(source, example), trust=trust, constants=fixed)
    if original.source is None:
        raise UserError(
            f"--source {source}: expected the network that the model was converted from, got an ONNX file. Fix: give "
            "package.module:factory, a .pt2 or .keras file, or a SavedModel folder; compare two ONNX files with "
            "onnxplain compare"
        )
    mine, theirs = ([item.name for item in proto.graph.input] for proto in (model.proto, original.proto))
    if mine != theirs:
        raise UserError(
            f"--source {source}: its inputs are {', '.join(theirs)}, the model's {', '.join(mine)}. Fix: give the "
            "network that the model was converted from, or use onnxplain compare with --pair FIRST=SECOND"
        )
    return replace(model, source=original.source)
