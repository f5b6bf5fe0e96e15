"""`onnxplain run`: explain a data set, in parts that a later run continues."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.destinations import refuse_unwritable
from analyzer.cli.method_options import MethodOption, settings_of, with_method_options
from analyzer.cli.options import (
    BackendChoice,
    DeviceOption,
    ExampleOption,
    LayoutOption,
    LogitOption,
    MaxMemoryOption,
    MeanOption,
    ModelArgument,
    NoVerifyOption,
    ProvidersOption,
    ResizeOption,
    SizeOption,
    StdOption,
    StraightThroughOption,
    TargetOption,
    TrustOption,
    parse_providers,
)
from analyzer.cli.run_view import show, watcher
from analyzer.cli.terminal import READING, Terminal, UserError
from converters.system.progress_lines import Pace

if TYPE_CHECKING:
    import numpy as np

    from analyzer.cli.inputs import ImageOptions
    from analyzer.graph.graph import Graph
    from analyzer.target.target import Target, TargetLike
    from converters import Model

WORK = "How the work is divided"


class DtypeChoice(StrEnum):
    """The type of stored maps and attributions."""

    FLOAT16 = "float16"
    FLOAT32 = "float32"


class EngineChoice(StrEnum):
    """Where samples are explained."""

    LOCAL = "local"
    RAY = "ray"


@with_method_options
def run(
    model: ModelArgument,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Samples: a folder of images, whose sub-folders are labels; a pattern such as 'photos/*.jpg'; a .txt "
            "file with a path a line; a .npy, .npz, .parquet or .arrow file, or a folder of Parquet or Arrow files.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="Folder for the results. A folder with results of this job is continued."
        ),
    ],
    method: MethodOption = None,
    target: TargetOption = None,
    logit: LogitOption = False,
    attributions: Annotated[
        bool, typer.Option("--attributions", help="Store the attributions, besides the maps.")
    ] = False,
    dtype: Annotated[
        DtypeChoice, typer.Option("--dtype", help="Type of the stored maps and attributions.")
    ] = DtypeChoice.FLOAT32,
    label: Annotated[
        str | None,
        typer.Option(
            "--label",
            metavar="COLUMN",
            help="Column of labels in a table or an .npz file. Default: 'label', if any.",
        ),
    ] = None,
    column: Annotated[
        str | None,
        typer.Option("--column", metavar="COLUMN", help="Column of the samples, for models with one input."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            min=1,
            help="Explain this many samples at once. Default: up to 16, as many as half of the free memory holds.",
            rich_help_panel=WORK,
        ),
    ] = None,
    part_size: Annotated[
        int | None,
        typer.Option(
            "--part-size", min=1, help="Samples in a result file. Default: 8 batches.", rich_help_panel=WORK
        ),
    ] = None,
    shard: Annotated[
        str,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Explain the part I of N of the source: 0/4 to 3/4 on four machines, into one folder.",
            rich_help_panel=WORK,
        ),
    ] = "0/1",
    workers: Annotated[
        int,
        typer.Option(
            "--workers", min=0, help="Processes that explain. 0: this process alone.", rich_help_panel=WORK
        ),
    ] = 0,
    engine: Annotated[
        EngineChoice,
        typer.Option("--engine", help="Explain on this machine, or on a Ray cluster.", rich_help_panel=WORK),
    ] = EngineChoice.LOCAL,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="HOST:PORT",
            help="Address of the Ray cluster. Default: start Ray on this machine.",
            rich_help_panel=WORK,
        ),
    ] = None,
    no_resume: Annotated[
        bool,
        typer.Option(
            "--no-resume",
            help="Remove the results of this shard first, and begin anew.",
            rich_help_panel=WORK,
        ),
    ] = False,
    fail_fast: Annotated[
        bool,
        typer.Option(
            "--fail-fast",
            help="End at the first sample that fails. By default it is listed in errors-0000.jsonl, and the run goes "
            "on.",
            rich_help_panel=WORK,
        ),
    ] = False,
    backend: Annotated[
        BackendChoice, typer.Option("--backend", help="Backend to run on.")
    ] = BackendChoice.ONNXRUNTIME,
    size: SizeOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    layout: LayoutOption = None,
    resize: ResizeOption = None,
    example: ExampleOption = None,
    straight_through: StraightThroughOption = False,
    no_verify: NoVerifyOption = False,
    trust: TrustOption = False,
    device: DeviceOption = None,
    providers: ProvidersOption = None,
    max_memory: MaxMemoryOption = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Write a JSON object a line to stdout: for each part, error, and the end."
        ),
    ] = False,
    **given: Any,
) -> None:
    """Explain a data set into a folder of Parquet files. Run the command again to continue it."""
    from analyzer.cli.inputs import ImageOptions
    from analyzer.data.arrow import arrow
    from analyzer.data.batch_explainer import BatchExplainer
    from analyzer.data.dataset import JobOptions, explain
    from analyzer.data.engines import engine_of
    from analyzer.data.interruption import Interrupted
    from analyzer.data.job import SampleFailed
    from analyzer.graph.graph import Graph

    terminal = Terminal(as_json)
    arrow()
    ((name, settings),) = _one_method(settings_of(method, given)).items()
    _refuse_output(output)
    shards = _shard(shard)
    known = Path(model).name
    asked = JobOptions(batch_size, part_size, shards, not no_resume, fail_fast, label, column, workers, known)
    images = ImageOptions(size, mean, std, layout, resize)
    with terminal.progress("reading the model", READING):
        opened, loaded = _model(
            model,
            example,
            images,
            straight_through=straight_through,
            verify=not no_verify,
            trust=trust,
            terminal=terminal,
            of_files=not source.lower().endswith((".npy", ".npz")),
        )
    graph = Graph.from_proto(loaded.light)
    options: dict[str, Any] = {
        "straight_through": straight_through or None,
        "device": device,
        "providers": parse_providers(providers),
        "verify": None if not no_verify else False,
        "trust": trust or None,
    }
    explainer = BatchExplainer(
        opened,
        name,
        target=_target(target, loaded, graph, terminal, logit=logit),
        attributions=attributions,
        dtype=dtype.value,
        backend=backend.value,
        max_memory=max_memory,
        **_read(settings, given, graph, loaded, images),
        **{key: value for key, value in options.items() if value is not None},
    )
    pace = Pace()
    chosen = engine_of(workers, engine.value, address)
    try:
        with terminal.samples(f"explaining {source}", pace) as report:
            results = explain(
                explainer, opened, source, output, asked, chosen, watcher(terminal, pace, report)
            )
    except SampleFailed as error:
        terminal.failure(str(error))
        raise typer.Exit(1) from error
    except Interrupted as error:
        terminal.line({"event": "interrupted", "done": error.done, "total": error.total or None})
        terminal.note(str(error).replace("make the same call", "run the same command"))
        raise typer.Exit(130) from error
    show(terminal, results, asked.shard, pace)
    if results.errors_of(asked.shard[0]):
        raise typer.Exit(1)


def _one_method(settings: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    if len(settings) != 1:
        raise UserError(
            f"--method {','.join(settings)}: expected one method, as a folder holds the results of one. Fix: run the "
            "command once for each, with another -o"
        )
    return settings


def _refuse_output(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise UserError(
            f"{output}: a file, where -o takes a folder. Fix: give -o a folder that is new or exists"
        )
    refuse_unwritable(output)


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if found is None or not int(found[1]) < int(found[2]):
        raise UserError(f"--shard {text}: expected I/N with I below N. Fix: count from 0, as in 0/4 to 3/4")
    return int(found[1]), int(found[2])


def _model(
    source: str,
    example: Path | None,
    images: ImageOptions,
    *,
    straight_through: bool,
    verify: bool,
    trust: bool,
    terminal: Terminal,
    of_files: bool,
) -> tuple[Any, Model]:
    """The model as workers open it, by its path where nothing changes it, and as it is. of_files: not of arrays."""
    from analyzer.cli.analyze import ASSUMED
    from analyzer.cli.models import open_model

    loaded = open_model(
        source, example, straight_through=straight_through, verify=verify, trust=trust, images=images
    )
    changed = _with_preprocessing(loaded, images)
    if (
        changed is not loaded
        and loaded.preprocessing is None
        and images.mean is images.std is None
        and of_files
    ):
        terminal.note(ASSUMED)
    by_path = changed is loaded and not straight_through and source.lower().endswith(".onnx")
    return (source if by_path else changed), changed


def _with_preprocessing(loaded: Model, images: ImageOptions) -> Model:
    """The model with the preprocessing of the flags; images of a model without one are pixels in [0, 1]."""
    from onnx import ModelProto

    from analyzer.cli.inputs import resolve_preprocessing
    from analyzer.graph.channel_axis import shape_with_channels
    from analyzer.graph.graph import Graph
    from converters import set_metadata
    from converters.model import UNREAD_KEY

    stored = loaded.preprocessing
    unread = loaded.metadata.get(UNREAD_KEY) and images.mean is images.std is None
    if not images.any_given and (stored is not None or unread):
        return loaded
    graph = Graph.from_proto(loaded.light)
    name = graph.inputs[0]
    tensor = replace(graph.tensors[name], shape=shape_with_channels(graph, name))
    try:
        found = resolve_preprocessing(tensor, stored, images)
    except UserError:
        if images.any_given:
            raise
        return loaded
    if found == stored:
        return loaded
    proto = ModelProto()
    proto.CopyFrom(loaded.light)
    set_metadata(proto, found)
    return loaded.with_graph(proto)


def _target(text: str | None, loaded: Model, graph: Graph, terminal: Terminal, *, logit: bool) -> TargetLike:
    """The target of --target, for all samples."""
    from analyzer.cli.targets import explained_target, refuse_several
    from analyzer.data.labels import has_class
    from analyzer.target.target import Target

    if text == "label" and not logit and not has_class(loaded.class_names, text):
        return text
    found = explained_target(text, 1, loaded, graph, logit=logit, terminal=terminal)
    refuse_several(found, "run")
    return _without_rows(found) if isinstance(found, Target) else found


def _without_rows(target: Target) -> Target:
    """A target whose arrays have no axis of samples, in the place of one row."""
    if target.parts is not None:
        return replace(target, parts=tuple((factor, _without_rows(part)) for factor, part in target.parts))
    found: dict[str, Any] = {}
    for name in ("position", "weights", "mask", "index"):
        value = getattr(target, name)
        if isinstance(value, Mapping):
            found[name] = {key: _row(array) for key, array in value.items()}
        elif hasattr(value, "shape"):
            found[name] = _row(value)
    return replace(target, **found)


def _row(array: np.ndarray) -> np.ndarray:
    return array[0] if array.ndim and len(array) == 1 else array


def _read(
    settings: Mapping[str, Any], given: Mapping[str, Any], graph: Graph, loaded: Model, images: ImageOptions
) -> dict[str, Any]:
    """The settings of the method, with the files among them read."""
    from analyzer.cli.inputs import read_background, read_inputs

    found = dict(settings)
    if "background" in found:
        found["background"] = read_background(given["background"], graph, loaded, images)
    if "baseline_inputs" in found:
        found["baseline_inputs"] = read_inputs([given["baseline_inputs"]], graph, loaded, images).arrays
    return found
