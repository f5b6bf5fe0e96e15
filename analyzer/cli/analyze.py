"""`onnxplain analyze`: attributions of a model on inputs, their completeness, pictures and a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.analyze_files import document, write_results
from analyzer.cli.analyze_view import show_results
from analyzer.cli.destinations import refuse_unwritable
from analyzer.cli.detection import (
    BoxOption,
    Detected,
    DetectionOption,
    DetectionOptions,
    DetectionOutputOption,
    MinScoreOption,
    SegmentationOption,
    hint,
    said_of,
    segmentation_text,
    target_of,
)
from analyzer.cli.method_options import MethodOption, settings_of, with_method_options
from analyzer.cli.options import (
    BackendChoice,
    BatchSizeOption,
    DeviceOption,
    ExampleOption,
    JsonOption,
    LayoutOption,
    LogitOption,
    MaxMemoryOption,
    MeanOption,
    ModelArgument,
    NoVerifyOption,
    ProvidersOption,
    ResizeOption,
    SetOption,
    SizeOption,
    StdOption,
    StraightThroughOption,
    TargetOption,
    TrustOption,
    parse_constants,
    parse_providers,
)
from analyzer.cli.terminal import READING, Terminal, UserError
from analyzer.cli.texts import BaselineTokenOption, GenerateOption, InputsOrTexts, WordsOption
from analyzer.cli.tokens import TokensOption

if TYPE_CHECKING:
    from analyzer.backends import Differentiable
    from analyzer.cli.inputs import Batch
    from analyzer.cli.samples_first import SamplesFirst
    from analyzer.methods.result import Attribution
    from analyzer.methods.summary import Asked
    from analyzer.target.target import TargetLike
    from analyzer.targets import Candidate

ASSUMED = "No mean and std are stored in the model or given: images are fed as pixels in [0, 1]."


class PrecisionChoice(StrEnum):
    """The precision of the torch and tensorflow backends."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


@with_method_options
def analyze(
    model: ModelArgument,
    inputs: InputsOrTexts,
    method: MethodOption = None,
    target: TargetOption = None,
    logit: LogitOption = False,
    detection: DetectionOption = None,
    box: BoxOption = None,
    min_score: MinScoreOption = None,
    detection_output: DetectionOutputOption = None,
    segmentation: SegmentationOption = None,
    backend: Annotated[
        BackendChoice, typer.Option("--backend", help="Backend to run on.")
    ] = BackendChoice.ONNXRUNTIME,
    precision: Annotated[
        PrecisionChoice | None,
        typer.Option("--precision", help="Precision of the torch and tensorflow backends."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Folder for overlays, charts, arrays, report.html and summary.json."
        ),
    ] = None,
    tokens: TokensOption = None,
    words: WordsOption = False,
    generate: GenerateOption = None,
    baseline_token: BaselineTokenOption = None,
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
    **given: Any,
) -> None:
    """Explain a model's outputs by any of the methods, with their completeness."""
    from analyzer.backends import differentiate, for_inputs
    from analyzer.cli.generation import DEFAULT_METHOD as GENERATION_METHOD
    from analyzer.cli.generation import explain_generation
    from analyzer.cli.inputs import ImageOptions, read_background, read_inputs
    from analyzer.cli.models import open_model
    from analyzer.cli.samples_first import SamplesFirst
    from analyzer.cli.targets import explained_target, refuse_several
    from analyzer.cli.texts import (
        asks_for_tokens,
        batch_of,
        ids_of_rows,
        language_target,
        read_texts_of,
        tokenizer_of,
        with_baseline_token,
    )
    from analyzer.cli.tokens import by_word, own_vocabulary, read_vocabulary, texts_of
    from analyzer.graph.graph import Graph
    from analyzer.methods import METHODS
    from analyzer.methods.summary import predictions

    terminal, constants = Terminal(as_json), parse_constants(constant)
    settings = settings_of(method or ([GENERATION_METHOD] if generate else None), given)
    detector = DetectionOptions(detection, box, min_score, detection_output)
    if segmentation is not None:
        target = segmentation_text(segmentation, target)
    detector.refuse_others(target, logit)
    if output is not None and output.exists() and not output.is_dir():
        raise UserError(
            f"{output}: a file, where -o takes a folder. Fix: give -o a folder that is new or exists"
        )
    if output is not None:
        refuse_unwritable(output)
    vocabulary = None if tokens is None else read_vocabulary(tokens)
    images = ImageOptions(size, mean, std, layout, resize, detector.fit)
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
    graph = Graph.from_proto(loaded.light)
    vocabulary = vocabulary or own_vocabulary(model, settings, graph)
    texts_read = read_texts_of(inputs, model, loaded, graph, tokens, terminal)
    if texts_read is None:
        batch = read_inputs([Path(one) for one in inputs], graph, loaded, images)
    else:
        batch = batch_of(texts_read)
    if generate is None:
        with_baseline_token(settings, METHODS, texts_read, baseline_token)
    if given["background"] is not None:
        for own in settings.values():
            if "background" in own:
                own["background"] = read_background(given["background"], graph, loaded, images)
    if given["baseline_inputs"] is not None:
        read = read_inputs([given["baseline_inputs"]], graph, loaded, images).arrays
        for own in settings.values():
            if "baseline_inputs" in own:
                own["baseline_inputs"] = read
    of_language = asks_for_tokens(target, texts_read)
    chosen: TargetLike = None
    if not of_language:
        chosen = explained_target(target, len(batch.names), loaded, graph, logit=logit, terminal=terminal)
        for one in settings:
            if not METHODS[one].ranked:
                refuse_several(chosen, one)
    if batch.assumed:
        terminal.note(ASSUMED)
    fn = differentiate(
        loaded,
        backend.value,
        precision=precision.value if precision else None,
        straight_through=straight_through,
        device=device,
        providers=parse_providers(providers),
        max_memory=max_memory,
        batch_size=batch_size,
        verify=not no_verify,
    )
    fn = for_inputs(fn, batch.inputs)
    reader = texts_read.tokenizer if texts_read is not None else None
    if generate is not None:
        explain_generation(
            terminal, model, fn, ids_of_rows(batch, fn.graph), batch.names, settings, tokens=generate,
            tokenizer=reader or tokenizer_of(model, loaded, tokens), baseline_token=baseline_token, words=words,
            output=output,
        )  # fmt: skip
        return
    of_tokens = None
    if of_language:
        names_tokens = reader or tokenizer_of(model, loaded, tokens)
        of_tokens = language_target(target, fn, batch, names_tokens, terminal)
        chosen = (
            of_tokens[0]
            if of_tokens is not None
            else explained_target(None, len(batch.names), loaded, graph, logit=logit, terminal=terminal)
        )
    graph = fn.graph
    picked: list[Candidate] = []
    asked: Asked = (target or "") if of_tokens is None else of_tokens[1]
    if detector.layout is None and target is None and (remark := hint(fn)) is not None:
        terminal.note(remark)
    if detector.layout is not None:
        found = Detected.of(fn, batch, detector)
        if detector.box is None:
            found.show(terminal)
            terminal.document({"command": "analyze", "model": model, **found.document()})
            return
        picked = found.chosen(detector.box)
        chosen, asked = target_of(picked), said_of(picked)
    call = SamplesFirst.of(fn, batch.inputs, chosen)
    if call.arrangement.note:
        terminal.note(f"Note: {call.arrangement.note}.")
    if call.moved:
        fn, chosen, batch = call.fn, call.target, in_samples(batch, call)
        settings = {one: call.options(own, METHODS[one].path) for one, own in settings.items()}
    results = _run(terminal, fn, batch, chosen, settings)
    if picked or of_tokens is not None:
        # The target is the position of an element, not a class. The words for the box or the token name it.
        results = [replace(result, target=None) for result in results]
    texts = texts_of(results, batch.arrays, graph, vocabulary if texts_read is None else texts_read)
    if words:
        texts = by_word(texts)
    predicted = predictions(fn.forward(batch.inputs)[graph.default_output], fn.class_names)
    files = (
        []
        if output is None
        else write_results(
            output, model, fn, batch, results, predicted, texts, asked, [one.box for one in picked]
        )
    )
    for text in batch.notes:
        terminal.note(text)
    show_results(terminal, batch, results, predicted, fn.class_names, files, texts, asked)
    if terminal.as_json:
        terminal.document(
            {
                **document(model, fn, batch, results, predicted, texts),
                **({"explained": [vars(one) for one in picked]} if picked else {}),
                "files": [str(path) for path in files],
            }
        )
    if any(passed is False for result in results for passed in result.passed):
        raise typer.Exit(1)


def in_samples(batch: Batch, call: SamplesFirst) -> Batch:
    """The batch with a row for each sample; where all files are one sample, a single name."""
    arrays = call.arrangement.all_first(call.raw)
    samples = len(next(iter(arrays.values())))
    names = batch.names if len(batch.names) == samples else (", ".join(batch.names[:3]),) * samples
    return replace(batch, arrays=arrays, names=names)


def _run(
    terminal: Terminal,
    fn: Differentiable,
    batch: Batch,
    target: TargetLike,
    methods: Mapping[str, Mapping[str, Any]],
) -> list[Attribution]:
    """The methods in their order, each with its settings."""
    from analyzer.methods import METHODS

    results: list[Attribution] = []
    for method, settings in methods.items():
        with terminal.progress(method) as progress:
            found = METHODS[method].run(fn, batch.inputs, target, progress=progress, **settings)
        results += found.of_each_class
    return results
