"""`onnxplain compare`: hold two models that should be one function against each other on given inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analyzer.cli.options import (
    BackendChoice,
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

KINDS = ".onnx, .pt2, .keras, a SavedModel or Hugging Face folder, hf://ORG/NAME, or package.module:factory."


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help=f"A model: {KINDS}")],
    second: Annotated[str, typer.Argument(metavar="B", help="What should be the same function, likewise.")],
    inputs: InputsArgument,
    target: TargetOption = None,
    logit: LogitOption = False,
    backend: Annotated[
        BackendChoice, typer.Option("--backend", help="What computes both.")
    ] = BackendChoice.ONNXRUNTIME,
    wrt: WrtOption = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(
            "--pair",
            metavar="FIRST=SECOND",
            help="An input of A and that of B which takes the same array, where neither names nor shapes tell. "
            "Repeat for more.",
        ),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option("--names", help="What to call the two, by a comma. Default: their files' names."),
    ] = None,
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
    example_b: Annotated[
        Path | None, typer.Option("--example-b", help="The same for B, in its own layout.")
    ] = None,
    no_fold: Annotated[
        bool,
        typer.Option(
            "--no-fold",
            "--no-fold-batch-norm",
            help="Keep BatchNorm apart from the layer before it, so that it is compared as a layer.",
        ),
    ] = False,
    straight_through: StraightThroughOption = False,
    no_verify: NoVerifyOption = False,
    trust: TrustOption = False,
    device: DeviceOption = None,
    providers: ProvidersOption = None,
    max_memory: MaxMemoryOption = None,
    batch_size: BatchSizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two models that should be one function: outputs, layers matched by value, gradients, attributions.

    Inputs are those of A; B is fed the same numbers in its own layout.
    """
    from analyzer.checks import compare as compare_models
    from analyzer.checks.comparison import STEPS
    from analyzer.cli.analyze import ASSUMED
    from analyzer.cli.check_view import show_comparison
    from analyzer.cli.gate import Destinations, finish
    from analyzer.cli.inputs import ImageOptions, read_inputs
    from analyzer.cli.models import open_model
    from analyzer.cli.settings import allowed, read_settings, tolerances_from
    from analyzer.cli.targets import explained_target, refuse_several
    from analyzer.graph.graph import Graph

    terminal, constants = Terminal(as_json), parse_constants(constant)
    destinations, settings = Destinations(html, junit), read_settings(Path.cwd())
    tolerances, called, pairs = (
        allowed(tolerance or (), settings),
        two_names(names, first, second),
        read_pairs(pair),
    )
    images = ImageOptions(size, mean, std, layout, resize)
    with terminal.progress("reading the models", READING):
        a, b = (
            open_model(
                model,
                given,
                verify=not no_verify,
                trust=trust,
                fold_batch_norm=not no_fold,
                images=images,
                constants=constants,
            )
            for model, given in ((first, example), (second, example_b))
        )
    graph = Graph.from_proto(a.proto)
    batch = read_inputs(inputs, graph, a, images)
    chosen = explained_target(target, len(batch.names), a, graph, logit=logit, terminal=terminal)
    refuse_several(chosen, "compare")
    if batch.assumed:
        terminal.note(ASSUMED)
    points = steps or settings.steps or STEPS
    # Pairing, reading either model, and the points of the path.
    with terminal.steps("comparing", 3 + points) as step:
        report = compare_models(
            a,
            b,
            batch.inputs,
            chosen,
            wrt=wrt or None,
            inputs_of_b=pairs,
            backend=backend.value,
            tolerance=tolerances,
            steps=points,
            names=called,
            referee=settings.referee if referee is None else referee,
            straight_through=straight_through,
            device=device,
            providers=parse_providers(providers),
            max_memory=max_memory,
            batch_size=batch_size,
            verify=not no_verify,
            progress=step,
        )
    files = destinations.write(report, " against ".join(called))
    for text in batch.notes:
        terminal.note(text)
    show_comparison(terminal, report, batch.names)
    facts = {
        "command": "compare",
        "models": [first, second],
        "samples": list(batch.names),
        "tolerances_from": tolerances_from(tolerance or (), settings),
    }
    finish(terminal, report, files, facts)


def two_names(given: str | None, first: str, second: str) -> tuple[str, str]:
    """What a report calls two models: --names, else the names of their files or factories, told apart."""
    if given is not None:
        chosen = split_list(given)
        if len(chosen) != 2 or chosen[0] == chosen[1]:
            raise UserError(
                f"--names {given}: expected two different names. Fix: separate them by a comma, as in before,after"
            )
        return chosen[0], chosen[1]
    paths = [_path_of(model) for model in (first, second)]
    for a, b in zip(*(_longer(path) for path in paths), strict=False):
        if a != b:
            return a, b
    return f"{paths[0].stem} (a)", f"{paths[1].stem} (b)"


def _path_of(model: str) -> Path:
    """A file's path; of package.module:factory, package/module/factory."""
    from analyzer.cli.models import is_factory

    return Path(*model.replace(":", ".").split(".")) if is_factory(model) else Path(model)


def _longer(path: Path) -> list[str]:
    """The file's stem, then with one folder more at a time."""
    parts = [*path.absolute().parent.parts[1:], path.stem]
    return ["/".join(parts[start:]) for start in reversed(range(len(parts)))]


def read_pairs(given: list[str] | None) -> dict[str, str] | None:
    """{input of A: input of B} of --pair FIRST=SECOND."""
    pairs: dict[str, str] = {}
    for text in given or ():
        first, equals, second = (part.strip() for part in text.partition("="))
        if not (equals and first and second):
            raise UserError(
                f"--pair {text}: expected FIRST=SECOND. Fix: give an input of A and one of B, as in --pair x=image"
            )
        if first in pairs or second in pairs.values():
            raise UserError(f"--pair {text}: an input is paired twice. Fix: give one --pair for each input")
        pairs[first] = second
    return pairs or None
