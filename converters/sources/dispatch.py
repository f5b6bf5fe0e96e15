"""Choose the converter by what a source is: a framework's model, a file, a folder, or a factory of one.

From what users give to a Converted: the graph as its exporter writes it, and the original that it is compared with.
Refuses, with what is accepted, paths and objects of no known kind.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from converters.canonical import check
from converters.errors import ConversionError, ExampleNeeded, InvalidModel
from converters.graph.order import in_order
from converters.model import Model, Preprocessing
from converters.passes.caches import without_caches
from converters.passes.fixed_inputs import fix_inputs
from converters.passes.input_axes import normalise_axes
from converters.passes.outputs import keep_numbers, refuse_text
from converters.sources import foreign, pytorch
from converters.sources.examples import example_of, on_images, with_full_masks
from converters.sources.files import read_onnx, refuse_stream
from converters.sources.fixed import fixed_module, parameters_of, with_constants, with_missing
from converters.sources.pytorch import Converted
from converters.sources.trust import refuse_program
from converters.system.quiet import quiet
from converters.types import NamedArrays
from converters.verification.original import Original, first_size
from converters.verify import FreeAxes, Reference
from converters.weights.references import lifted

_OF_TENSORFLOW = (".keras", ".h5", ".hdf5", ".pb", ".pbtxt")
_KINDS = (
    ".onnx, .pt2, .keras, .h5, a frozen .pb, a SavedModel folder, or a Hugging Face folder with an .onnx file"
)
# It is told the number of tokens, which is the sum of a mask without holes.
_COUNTED = "GroupQueryAttention"
_FIXES = {
    ".tflite": "Fix: convert the Keras model or SavedModel that the TensorFlow Lite file was made from, or the file "
    "that python -m tf2onnx.convert --tflite MODEL.tflite --output MODEL.onnx writes",
}


def is_convertible(model: object) -> bool:
    """Return whether a path is that of another framework's model. An ONNX file may end in .pb.

    Raises InvalidModel for an empty path.
    """
    if not isinstance(model, (str, os.PathLike)):
        return False
    path = _path(model)
    known = (".pt2", ".keras", ".h5", ".hdf5", ".pbtxt", *_FIXES, *foreign.SUFFIXES)
    return os.path.isdir(path) or Path(path).suffix.lower() in known or _is_factory(path)


def _path(model: str | os.PathLike[str]) -> str:
    """The text of a path. Raises InvalidModel where it is empty."""
    # An empty Path is the current folder.
    if not os.fspath(model).strip():
        raise InvalidModel(
            "expected the path of a model, got an empty text. Fix: give the path of an existing file or folder"
        )
    return os.fspath(model)


def _is_factory(path: str) -> bool:
    """Return whether a text that is not a path may be "package.module:factory"."""
    return (
        ":" in path
        and Path(path).suffix.lower() not in (".onnx", ".pt2", ".keras")
        and not os.path.exists(path)
    )


@dataclass(frozen=True)
class SourceOptions:
    """How a source is converted: see `converters.convert`."""

    free_axes: FreeAxes | None = None
    trust: bool = False
    constants: Mapping[str, Any] = field(default_factory=dict)


def from_source(
    source: Any, example: Any, options: SourceOptions, preprocessing: Preprocessing | None
) -> Converted:
    """Convert a source from its example, or from an image of the stated size where it needs one and has none."""
    try:
        return _convert_source(source, example, options)
    except ExampleNeeded:
        if preprocessing is None:
            raise
    return on_images(lambda image: _convert_source(source, image, options), preprocessing)


def _convert_source(source: Any, example: Any, options: SourceOptions) -> Converted:
    """Choose the converter by what the source is."""
    if isinstance(source, Model):
        source = source.light
    if isinstance(source, onnx.ModelProto):
        return _convert_onnx(source, example, options)
    if isinstance(source, (str, os.PathLike)):
        return _convert_path(_path(source), example, options)
    if pytorch.is_pytorch(source):
        return _convert_pytorch(source, example, options)
    from converters.sources import tensorflow

    if tensorflow.is_tensorflow(source):
        call = getattr(source, "python_function", getattr(source, "call", source))
        names = parameters_of(call)
        return with_missing(
            example,
            options.constants,
            names,
            lambda given: tensorflow.convert_tensorflow(source, given, options.free_axes),
        )
    raise ConversionError(foreign.refusal_of_object(source))


def _convert_pytorch(source: Any, example: Any, options: SourceOptions) -> Converted:
    from torch.export import ExportedProgram
    from torch.jit import ScriptFunction, ScriptModule
    from torch.nn import Module

    if isinstance(source, ExportedProgram):
        return with_constants(pytorch.convert_program(source), options.constants)
    if isinstance(source, Module):
        return fixed_module(
            source,
            example,
            options.constants,
            lambda given: pytorch.convert_module(source, given, options.free_axes),
        )
    script = isinstance(source, (ScriptFunction, ScriptModule))
    why = "is TorchScript, which holds no Python code to trace" if script else "is no model"
    raise ConversionError(
        f"a torch.{type(source).__name__} {why}. Fix: give an nn.Module with an example, or an ExportedProgram"
    )


def _convert_path(path: str, example: Any, options: SourceOptions) -> Converted:
    """A file or folder by its kind; "package.module:factory" where no such file exists."""
    suffix = Path(path).suffix.lower()
    if _is_factory(path):
        return _convert_factory(path, example, options)
    if not os.path.exists(path):
        raise InvalidModel(f"{path} does not exist. Fix: give the path of an existing file or folder")
    refuse_stream(path)
    if refusal := foreign.refusal_of(path):
        raise InvalidModel(refusal)
    if suffix == ".pt2":
        if not options.trust:
            refuse_program(path)
        return with_constants(pytorch.convert_program(pytorch.load_program(path)), options.constants)
    if suffix in _OF_TENSORFLOW or os.path.isdir(path):
        from converters.sources import tensorflow

        return with_missing(
            example,
            options.constants,
            [],
            lambda given: tensorflow.convert_path(path, given, options.trust),
        )
    if suffix == ".onnx":
        return _convert_onnx(read_onnx(path), example, options)
    raise InvalidModel(
        f"{path} is of no known kind: {_KINDS}. "
        f"{_FIXES.get(suffix, 'Fix: load the model in your own code, and give it to onnxplain.convert')}"
    )


def _convert_factory(spec: str, example: Any, options: SourceOptions) -> Converted:
    module_name, _, attribute = spec.partition(":")
    # The user's module may greet, or import a framework that does: standard output is for results.
    with quiet("tensorflow", "absl", native=True):
        try:
            factory = getattr(importlib.import_module(module_name), attribute)
        except (ModuleNotFoundError, AttributeError, ValueError) as error:
            raise ConversionError(
                f"{spec!r} is neither a file nor a factory: {error}. Fix: give the path of a file, or "
                "package.module:factory, with the package in the current folder or on PYTHONPATH"
            ) from error
        made = factory()
    if isinstance(made, tuple) and len(made) == 2:
        made, own_example = made
        example = own_example if example is None else example
    return _convert_source(made, example, options)


def _convert_onnx(proto: onnx.ModelProto, example: Any, options: SourceOptions) -> Converted:
    """A plain ONNX model: its reference is itself as given, run without optimisations."""
    proto = lifted(in_order(proto))
    check(proto, shapes=False)
    proto, caches = without_caches(proto)
    proto, notes = keep_numbers(normalise_axes(proto))
    return of_file(proto, example, (*caches, *notes), options.constants)


def of_file(
    proto: onnx.ModelProto,
    example: Any,
    notes: Sequence[str] = (),
    constants: Mapping[str, Any] | None = None,
) -> Converted:
    """The same of a model that is checked and whose axes are normalised. constants: inputs that are fixed."""
    fixed, values = fix_inputs(proto, constants)
    original = Original(proto)
    infos = {info.name: info for info in fixed.graph.input if info.name in original.infos}
    refuse_text(fixed, infos)
    feeds = example_of(infos, _without(example, [*original.infos], values))
    if example is None and any(node.op_type == _COUNTED for node in fixed.graph.node):
        feeds = with_full_masks(feeds)

    def run(arrays: NamedArrays) -> Sequence[np.ndarray]:
        return list(original.run({**arrays, **values}).values())

    label = f"{original.runtime} on the model as given"
    batch = original.batch if not values else first_size(infos.values())
    reference = Reference(run, label, batch, fixed, hard=original.on_runtime)
    return Converted(fixed, None, reference, feeds, tuple(notes))


def _without(example: Any, names: Sequence[str], fixed: Collection[str]) -> Any:
    """Return an example without the inputs that are fixed, which it may hold or leave out."""
    if not fixed:
        return example
    if isinstance(example, dict):
        return {name: value for name, value in example.items() if name not in fixed}
    if isinstance(example, (tuple, list)) and len(example) == len(names):
        return tuple(value for name, value in zip(names, example, strict=True) if name not in fixed)
    return example
