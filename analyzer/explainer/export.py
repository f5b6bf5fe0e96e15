"""Write the explanation of a model as one ONNX file that any ONNX Runtime runs.

`export_explainer` takes a model and a method, emits the model, its gradients and the method as plain ai.onnx nodes,
compares the file with the method in Python, and writes it whole or not at all. Refuses what cannot be one file, and a
file whose numbers differ.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import helper

from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.backends.batching.arranging import moved_target
from analyzer.backends.batching.settling import arranged_to_move
from analyzer.backends.bound import Bound
from analyzer.backends.inputs import Feeds
from analyzer.errors import ExportError, UndefinedResult
from analyzer.explainer.axes import with_stated_axes
from analyzer.explainer.description import Description
from analyzer.explainer.emission import emit, method_to_export, settings_to_export, state_outputs
from analyzer.explainer.files import write_model
from analyzer.explainer.forms import FileForm, in_form
from analyzer.explainer.runtimes import at_opset, fit, missing, opset_of, to_float16
from analyzer.explainer.verification import NEAR_IN_HALVES, distance, with_shapes
from analyzer.graph.samples.arrangement import JOINT
from analyzer.methods.arranged import moved_options
from analyzer.methods.exporting import Draw, ExplainerGraph
from analyzer.methods.registry import Method, shown
from analyzer.target.target import TargetLike
from analyzer.types import Inputs
from converters.sources.examples import example_of

if TYPE_CHECKING:
    from collections.abc import Callable

OPSET = 21


@dataclass(frozen=True)
class Explainer:
    """An explainer file that was written.

    path: of the file. description: what the file says of itself. size: bytes, with external data. nodes: their number.
    error: the largest relative L2 distance of a result from the method in Python, on the inputs that were compared.
    lowered: {op: number of nodes} that were replaced for a runtime.
    """

    path: Path
    description: Description
    size: int
    nodes: int
    error: float
    lowered: Mapping[str, int]

    def __repr__(self) -> str:
        kind = self.description
        return (
            f"Explainer: {kind.caption}, {self.path}\n  inputs: {', '.join(one.name for one in kind.inputs)}\n"
            f"  outputs: {', '.join(one.name for one in kind.outputs)}\n  {self.nodes:,} nodes, "
            f"{self.size / 1e6:.1f} MB, opset {kind.opset}, relative L2 {self.error:.1e} from Python"
        )


def export_explainer(
    model: Differentiable | ModelLike,
    path: str | os.PathLike[str],
    method: str = "full-grad",
    *,
    target: TargetLike = None,
    inputs: Inputs | None = None,
    at_once: int | None = None,
    draw: Draw = "stored",
    opset: int = OPSET,
    fp16: bool = False,
    check_for: str | None = None,
    with_preprocessing: bool = False,
    overlay: bool = False,
    required_inputs: bool | None = None,
    tokenizer: str | None = None,
    progress: Callable[[str], None] | None = None,
    **settings: Any,
) -> Explainer:
    """Write a model with the explanation of its output as one ONNX file of plain ai.onnx ops.

    model: a model, or `differentiate(model)`.
    path: of the file to write. Weights beyond 2 GB go to `path` + ".data".
    method: "gradient", "input-x-gradient", "full-grad", "simple-full-grad", "smooth-full-grad", "smooth-grad",
        "smooth-grad-squared", "var-grad", "integrated-gradients", "expected-gradients", "grad-cam",
        "grad-cam-plus-plus" or "layer-cam". settings: those of the method, such as steps=20, rule="trapezoid",
        baseline="black", wrt="embedding".
    target: the default of the file's input `target`; None is -1, the highest score of each sample. A Target chooses the
        output. Weights, positions and sums of targets are fixed in the file, which then has no such input.
    inputs: an example, on which the file is compared with Python, and whose sizes decide where free ones must be known.
        Default: random numbers of the stated sizes.
    at_once: points of a path, or noisy copies, that are evaluated together. Default: all of them as one batch, where
        the model's batch is free. 1 is a Loop that needs the memory of one gradient. Between them, the next lower
        number that divides theirs.
    draw: "stored" noise is an input of the file, whose default are the numbers that row 0 of a batch gets in Python;
        "inside" draws it in each run, of the seed `rng`.
    opset: of the file, 17 at least. fp16: store weights in half precision.
    check_for: "web", "webgpu", "node" or "mobile": refuse ops that this runtime lacks; those with a plain form are
        lowered.
    with_preprocessing: take photographs, uint8 (N, height, width, 3) RGB of any size, and return maps of their size.
    overlay: with preprocessing, also return the map as a picture, uint8 (N, height, width, 4) RGBA.
    required_inputs: whether `target`, `baseline` and `noise` must be fed. Default: for `check_for`, whose JavaScript
        runtimes do not feed optional inputs.
    tokenizer: the text of a tokenizer.json to store, for consumers of a text model.
    progress: called with a few words for each step.
    Returns an Explainer. Raises ExportError for a method, setting or op that cannot be in the file, and where the file
    differs from Python; what the method raises.
    """
    tell = progress or (lambda words: None)
    destination = _destination(path)
    kind = method_to_export(method)
    options = settings_to_export(kind, settings)
    fn = _on_onnxruntime(model)
    tell("preparing the model")
    feeds = _example(fn, inputs)
    view, bound = _bound(fn, feeds, target, kind, options)
    tell("explaining an example in Python")
    assert view.arrangement is not None
    moved = view.arrangement.spans
    wanted = target if not moved else moved_target(fn.graph, view.arrangement, fn.indexed(target))
    found = kind.run(view, bound.feeds, wanted, **options)
    tell("writing the gradients, and comparing")
    error, lowered = None, {}
    for safe in (False, True):
        # Where a cotangent of 0 meets an infinite derivative, the results are NaN: again with these kept apart.
        emitted = emit(ExplainerGraph(bound, at_once, draw, safe), kind, options, sized=bound.fn is not view)
        outputs = with_shapes(emitted, found, bound.outputs())
        state_outputs(emitted.proto, outputs)
        proto = at_opset(emitted.proto, opset)
        if check_for is not None:
            lowered = {one.op: one.count for one in missing(proto, check_for) if one.lowered}
            proto = fit(proto, check_for)
        error = distance(proto, emitted, bound.feeds, found, drawn=draw == "inside")
        if error is not None:
            break
    if error is None:
        raise UndefinedResult(
            "the explanation of the example is not finite. Fix: give other inputs= (--inputs)"
        )
    if fp16:
        proto = to_float16(proto)
        error = distance(proto, emitted, bound.feeds, found, drawn=draw == "inside", most=NEAR_IN_HALVES)
        assert error is not None
    inputs_of_file = emitted.inputs
    if moved:
        inputs_of_file, outputs = with_stated_axes(proto, inputs_of_file, outputs, moved)
    description = Description(
        method=kind.name,
        caption=kind.caption,
        settings={**{key: shown(value) for key, value in options.items()}, "at_once": at_once, "draw": draw},
        signed=emitted.exported.signed,
        onnxplain=_version(),
        model_sha256=_hash(fn, model),
        opset=opset_of(proto),
        precision="float16 weights" if fp16 else "float32",
        sum_of=emitted.sum_of,
        inputs=inputs_of_file,
        outputs=outputs,
    )
    tell("checking and writing the file")
    required = check_for is not None if required_inputs is None else required_inputs
    form = FileForm(check_for, with_preprocessing, overlay, required, tokenizer)
    proto, description = in_form(proto, description, fn.model, form)
    size = write_model(proto, destination)
    return Explainer(destination, description, size, len(proto.graph.node), error, lowered)


def _destination(path: str | os.PathLike[str]) -> Path:
    found = Path(path)
    if found.is_dir():
        raise ExportError(f"{found} is a folder. Fix: give the path of an .onnx file to write")
    if not found.parent.is_dir():
        raise ExportError(
            f"{found.parent}: no such folder. Fix: make it first, or give a path in another one"
        )
    return found


def _on_onnxruntime(model: Differentiable | ModelLike) -> Differentiable:
    """The model on the backend whose graph is written."""
    fn = differentiate(model)
    return fn if fn.backend == "onnxruntime" else differentiate(fn.model)


def _example(fn: Differentiable, inputs: Inputs | None) -> Feeds:
    """Checked inputs: those given, or random numbers of two samples."""
    if inputs is not None:
        return fn.feeds_of(inputs)
    graph, preprocessing = fn.graph, fn.model.preprocessing
    sizes = {}
    for name in graph.inputs:
        shape = graph.tensors[name].shape
        free = shape is None or any(not isinstance(size, int) for size in shape[1:])
        if free and preprocessing is not None and shape is not None and len(shape) == 4:
            height, width = preprocessing.size
            first = preprocessing.layout == "NCHW"
            known = (None, height, width) if first else (height, width, None)
            shape = (
                shape[0],
                *(s if isinstance(s, int) else k for s, k in zip(shape[1:], known, strict=True)),
            )
            free = any(not isinstance(size, int) for size in shape[1:])
        if free:
            raise ExportError(
                f"expected an example of the input {name!r}, whose sizes are free, {shape}. Fix: give inputs= "
                "(--inputs FILE) of the sizes that are explained"
            )
        sizes[name] = tuple(size if isinstance(size, int) else 2 for size in shape or ())
    infos = {
        name: helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(graph.tensors[name].dtype), sizes[name]
        )
        for name in graph.inputs
    }
    return fn.feeds_of(example_of(infos, None))


def _bound(
    fn: Differentiable, feeds: Feeds, target: TargetLike, kind: Method, options: dict[str, Any]
) -> tuple[Differentiable, Bound]:
    """The model with its samples along axis 0, bound to the example. Arrays in the options are moved along."""
    wrt = options.get("wrt")
    names = () if kind.path is not None and wrt is not None else fn.roots(wrt)
    view = arranged_to_move(fn, feeds, fn.indexed(target), names)
    arrangement = view.arrangement
    spans = () if arrangement is None else arrangement.spans.values()
    if (
        arrangement is None
        or arrangement.samples == JOINT
        or arrangement.wrapped
        or arrangement.alone
        or not all(span.whole for span in spans)
    ):
        why = "" if arrangement is None or not arrangement.note else f" ({arrangement.note})"
        raise ExportError(
            f"expected independent samples along one axis of each input and output, found others{why}. Fix: export "
            "the model with the batch first, or explain it in Python"
        )
    if arrangement.plain:
        return view, view.bind(feeds, target)
    moved = moved_options(fn, arrangement, feeds, options, kind.path)
    options.update(moved)
    first = Feeds(view.graph, arrangement.all_first(feeds), single=feeds.single)
    return view, view.bind(first, moved_target(fn.graph, arrangement, fn.indexed(target)))


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("onnxplain")
    except PackageNotFoundError:
        return "unknown"


def _hash(fn: Differentiable, model: Any) -> str:
    """The SHA-256 of the model's file, or of its canonical graph where it is no file."""
    if isinstance(model, (str, os.PathLike)) and Path(model).is_file():
        found = hashlib.sha256()
        with Path(model).open("rb") as file:
            while block := file.read(2**20):
                found.update(block)
        return found.hexdigest()
    proto = fn.model.original or fn.model.proto
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
