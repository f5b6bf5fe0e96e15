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
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.errors import ExportError
from analyzer.explainer.description import Description
from analyzer.explainer.emission import method_to_export, settings_to_export
from analyzer.explainer.example import example_at
from analyzer.explainer.files import write_model
from analyzer.explainer.forms import FileForm, in_form
from analyzer.explainer.runtimes import opset_of, runtime_of
from analyzer.explainer.verification import compare
from analyzer.methods.exporting import Draw
from analyzer.methods.registry import shown
from analyzer.target.target import TargetLike
from analyzer.types import Inputs
from converters.system.environment import version_of
from converters.system.hashes import file_sha256
from converters.weights.references import LARGEST_MESSAGE, complete, copied, size_of, with_weights_fed

if TYPE_CHECKING:
    from collections.abc import Callable

OPSET = 21


@dataclass(frozen=True)
class Explainer:
    """An explainer file that was written.

    path: of the file. description: its method, settings, inputs and outputs, as its metadata state them.
    size: bytes, with external data. nodes: their number.
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
    at_once: int | Literal["all"] | None = None,
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
    at_once: points of a path, or noisy copies, that are evaluated together. "all" of them are one batch, where the
        model's batch is free; 1 is a Loop that needs the memory of one gradient, and is faster on a CPU. Between them,
        the next lower number that divides theirs. Default: "all", which has Python's kernels, and so its numbers near
        the kinks of a ReLU; 1 for the runtimes "web", "webgpu" and "mobile", where memory matters.
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
    Returns an Explainer. Raises the errors of the method; ExportError for a method, a setting or an op that cannot
    be in a file, and for a file whose numbers differ from Python's.
    """
    tell = progress or (lambda words: None)
    destination = _destination(path)
    kind = method_to_export(method)
    options = settings_to_export(kind, settings)
    required = check_for is not None if required_inputs is None else required_inputs
    form = FileForm(opset, fp16, check_for, with_preprocessing, overlay, required, tokenizer)
    fn = _on_onnxruntime(model)
    tell("preparing the model")
    example = example_at(fn, inputs, target, kind, options)
    tell("explaining an example in Python")
    found = example.explained()
    tell("writing the gradients, and comparing")
    points = _points(at_once, check_for)
    compared = compare(example, found, form, at_once=points, draw=draw)
    description = Description(
        method=kind.name,
        caption=kind.caption,
        settings={
            **{key: shown(value) for key, value in example.options.items()},
            "at_once": "all" if points is None else points,
            "draw": draw,
        },
        signed=compared.emitted.exported.signed,
        onnxplain=version_of("onnxplain") or "unknown",
        model_sha256=_hash(fn, model),
        opset=opset_of(compared.proto),
        precision="float16 weights" if fp16 else "float32",
        sum_of=compared.emitted.sum_of,
        inputs=compared.inputs,
        outputs=compared.outputs,
    )
    tell("checking and writing the file")
    proto, description = in_form(compared.proto, description, fn.model, form)
    size = write_model(proto, destination)
    return Explainer(destination, description, size, len(proto.graph.node), compared.error, compared.lowered)


def _points(at_once: int | str | None, check_for: str | None) -> int | None:
    """Return the number of points to evaluate together, None for all. Raises ExportError for another value."""
    if at_once is None:
        return 1 if check_for is not None and runtime_of(check_for).little_memory else None
    if at_once == "all":
        return None
    if not isinstance(at_once, int) or isinstance(at_once, bool) or at_once < 1:
        raise ExportError(f'expected at_once to be "all" or a number above 0, got {at_once!r}. Fix: give 1')
    return at_once


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


def _hash(fn: Differentiable, model: Any) -> str:
    """Return the SHA-256 of the model's file, or of its graph where the model is not a file."""
    if isinstance(model, (str, os.PathLike)) and Path(model).is_file():
        return file_sha256(Path(model))
    light = fn.model.light_original or fn.model.light
    if size_of(light) <= LARGEST_MESSAGE:
        proto = complete(copied(light))
        return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()
    proto, weights = with_weights_fed(light)
    found = hashlib.sha256(proto.SerializeToString(deterministic=True))
    for array in weights.values():
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()
