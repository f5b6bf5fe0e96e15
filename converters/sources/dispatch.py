"""Choose the converter by what a source is: a framework's model, a file, a folder, or a factory of one.

From what users give to a Converted: the graph as its exporter writes it, and the original that it is compared with.
Refuses, with what is accepted, paths and objects of no known kind.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from converters.canonical import check
from converters.errors import ConversionError, ExampleNeeded, InvalidModel
from converters.graph.order import in_order
from converters.model import Model, Preprocessing
from converters.passes.input_axes import normalise_axes
from converters.passes.outputs import keep_numbers, refuse_text
from converters.sources import foreign, pytorch
from converters.sources.examples import example_of, on_images
from converters.sources.files import read_onnx, refuse_stream
from converters.sources.pytorch import Converted
from converters.sources.trust import refuse_program
from converters.system.quiet import quiet
from converters.types import NamedArrays
from converters.verification.original import Original
from converters.verify import FreeAxes, Reference
from converters.weights.references import lifted

_OF_TENSORFLOW = (".keras", ".h5", ".hdf5", ".pb", ".pbtxt")
_KINDS = (
    ".onnx, .pt2, .keras, .h5, a frozen .pb, a SavedModel folder, or a Hugging Face folder with an .onnx file"
)
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


def from_source(
    source: Any, example: Any, free_axes: FreeAxes | None, trust: bool, preprocessing: Preprocessing | None
) -> Converted:
    """Convert a source from its example, or from an image of the stated size where it needs one and has none."""
    try:
        return _convert_source(source, example, free_axes, trust)
    except ExampleNeeded:
        if preprocessing is None:
            raise
    return on_images(lambda image: _convert_source(source, image, free_axes, trust), preprocessing)


def _convert_source(source: Any, example: Any, free_axes: FreeAxes | None, trust: bool) -> Converted:
    """Choose the converter by what the source is."""
    if isinstance(source, Model):
        source = source.light
    if isinstance(source, onnx.ModelProto):
        return _convert_onnx(source, example)
    if isinstance(source, (str, os.PathLike)):
        return _convert_path(_path(source), example, free_axes, trust)
    if pytorch.is_pytorch(source):
        return _convert_pytorch(source, example, free_axes)
    from converters.sources import tensorflow

    if tensorflow.is_tensorflow(source):
        return tensorflow.convert_tensorflow(source, example, free_axes)
    raise ConversionError(foreign.refusal_of_object(source))


def _convert_pytorch(source: Any, example: Any, free_axes: FreeAxes | None) -> Converted:
    from torch.export import ExportedProgram
    from torch.jit import ScriptFunction, ScriptModule
    from torch.nn import Module

    if isinstance(source, ExportedProgram):
        return pytorch.convert_program(source)
    if isinstance(source, Module):
        return pytorch.convert_module(source, example, free_axes)
    script = isinstance(source, (ScriptFunction, ScriptModule))
    why = "is TorchScript, which holds no Python code to trace" if script else "is no model"
    raise ConversionError(
        f"a torch.{type(source).__name__} {why}. Fix: give an nn.Module with an example, or an ExportedProgram"
    )


def _convert_path(path: str, example: Any, free_axes: FreeAxes | None, trust: bool) -> Converted:
    """A file or folder by its kind; "package.module:factory" where no such file exists."""
    suffix = Path(path).suffix.lower()
    if _is_factory(path):
        return _convert_factory(path, example, free_axes, trust)
    if not os.path.exists(path):
        raise InvalidModel(f"{path} does not exist. Fix: give the path of an existing file or folder")
    refuse_stream(path)
    if refusal := foreign.refusal_of(path):
        raise InvalidModel(refusal)
    if suffix == ".pt2":
        if not trust:
            refuse_program(path)
        return pytorch.convert_program(pytorch.load_program(path))
    if suffix in _OF_TENSORFLOW or os.path.isdir(path):
        from converters.sources import tensorflow

        return tensorflow.convert_path(path, example, trust)
    if suffix == ".onnx":
        return _convert_onnx(read_onnx(path), example)
    raise InvalidModel(
        f"{path} is of no known kind: {_KINDS}. "
        f"{_FIXES.get(suffix, 'Fix: load the model in your own code, and give it to onnxplain.convert')}"
    )


def _convert_factory(spec: str, example: Any, free_axes: FreeAxes | None, trust: bool) -> Converted:
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
    return _convert_source(made, example, free_axes, trust)


def _convert_onnx(proto: onnx.ModelProto, example: Any) -> Converted:
    """A plain ONNX model: its reference is itself as given, run without optimisations."""
    proto = lifted(in_order(proto))
    check(proto, shapes=False)
    proto, notes = keep_numbers(normalise_axes(proto))
    return of_file(proto, example, notes)


def of_file(proto: onnx.ModelProto, example: Any, notes: Sequence[str] = ()) -> Converted:
    """The same of a model that is checked and whose axes are normalised."""
    original = Original(proto)
    refuse_text(proto, original.infos)
    feeds = example_of(original.infos, example)

    def run(arrays: NamedArrays) -> Sequence[np.ndarray]:
        return list(original.run(arrays).values())

    label = f"{original.runtime} on the model as given"
    reference = Reference(run, label, original.batch, proto, hard=original.on_runtime)
    return Converted(proto, None, reference, feeds, tuple(notes))
