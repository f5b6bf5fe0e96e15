"""The Model that `convert` hands on: one canonical ONNX graph, how it was verified, and its source.

The proto is what is serialised. Preprocessing and class names live in the proto's own `metadata_props`,
so that they survive saving; the source (the original network) is attached in memory only.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import onnx

from converters.errors import ConversionError, InvalidModel
from converters.metadata import (
    CONSTANTS_KEY,
    foreign_class_names,
    foreign_preprocessing,
    parse_class_names,
    parse_constants,
    parse_preprocessing,
)
from converters.system.atomic import write_bytes
from converters.system.text import printable
from converters.types import NamedArrays
from converters.weights.data_file import with_data_file
from converters.weights.references import (
    LARGEST_MESSAGE,
    array_of,
    complete,
    copied,
    is_reference,
    key_of,
    size_of,
)

if TYPE_CHECKING:
    import torch

Stored = TypeVar("Stored")
PREPROCESSING_KEY = "onnxplain.preprocessing"
CLASS_NAMES_KEY = "onnxplain.class_names"
_WIDTH = 110
# Shapes, axes and indices.
_NO_WEIGHTS = (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL)
UNREAD_KEY = "onnxplain.preprocessing_unread"
"""Why the preprocessing that comes with a model is not followed."""


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes the model's input.

    The image is read as RGB in [0, 1], its short side resized to `resize` pixels, the centre `size`
    (height, width) cropped, then (image − mean) / std per channel.
    fit: "crop", as above; "stretch" resizes both sides to `resize`, or to `size`, and changes the aspect; "pad" shrinks
        or enlarges the whole image to fit into `size` and fills the rest with grey (114 of 255), as Ultralytics does.
    interpolation: "nearest", "box", "bilinear", "hamming", "bicubic" or "lanczos", as Pillow resizes; "linear",
        as OpenCV's INTER_LINEAR does, which Ultralytics uses.
    rounding: of the longer side after resizing. "nearest"; "down", as transformers does; "torchvision", which rounds
        down, and the start of an odd crop to an even pixel, as timm does.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    layout: str = "NCHW"
    resize: int | None = None
    fit: str = "crop"
    interpolation: str = "bicubic"
    rounding: str = "nearest"


@dataclass(frozen=True)
class Verification:
    """What the converted graph was measured against, and the error found.

    `batches` counts the test inputs compared besides the example. `max_abs_error` and `relative_l2` are the worst
    over all outputs and batches, in the outputs' units. `notes` say what the verification leaves open.
    """

    reference: str
    batches: int
    max_abs_error: float
    relative_l2: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PyTorchSource:
    """The PyTorch original: the decomposed program, whose FX node names are the ONNX tensor names.

    `inputs` are the ONNX input names in the order of the program's user inputs.
    `outputs` are the ONNX names of its outputs, `call` the call that was traced (converters/sources/torch_call.py).
    `constants` are the inputs that the conversion fixed, with their values.
    """

    program: torch.export.ExportedProgram
    inputs: tuple[str, ...]
    framework: str = "pytorch"
    outputs: tuple[str, ...] = ()
    constants: NamedArrays = field(default_factory=dict, compare=False)
    call: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class TensorFlowSource:
    """The TensorFlow original: a frozen concrete function, and where its inputs and outputs stand.

    `inputs` and `outputs` map ONNX names to tensor names of the function's graph ("x:0").
    `constants` are the inputs that the conversion fixed, with their values.
    """

    function: Any
    inputs: dict[str, str]
    outputs: dict[str, str]
    framework: str = "tensorflow"
    constants: NamedArrays = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class ModelFile:
    """The .onnx file that a model was loaded from. options: those of `load`. state: size and time of the file then."""

    path: str
    options: Mapping[str, bool]
    state: tuple[int, ...]

    @classmethod
    def of(cls, path: str | os.PathLike[str], options: Mapping[str, bool]) -> ModelFile:
        """Return the file as it is now."""
        absolute = os.path.abspath(os.fspath(path))
        return cls(absolute, options, _state_of(absolute))

    @property
    def unchanged(self) -> bool:
        """Whether the file is still the one that was loaded."""
        return _state_of(self.path) == self.state != ()


def _state_of(path: str) -> tuple[int, ...]:
    """The identity, size and time of a file; () where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class Model:
    """A canonical ONNX graph with its verification and, in memory only, the network or the file it came from.

    original: the ONNX model as it was given, None where it is the canonical graph itself or another framework's.
    file: where `load` read it; None of other models, and of those that were made from it. A Model pickles by this path,
    else with its weights (converters/pickling.py).
    folder: the folder of Hugging Face that the model was read from, with its tokenizer; None for any other source.
    `proto` and `original` hold copies of all weights, up to 2 GiB; `light` and `light_original` are the same without
    large weights, which they share with whatever runs the model.
    """

    proto: onnx.ModelProto
    source: PyTorchSource | TensorFlowSource | None = field(default=None, repr=False)
    verification: Verification | None = None
    original: onnx.ModelProto | None = field(default=None, repr=False, compare=False)
    folder: Path | None = field(default=None, repr=False, compare=False)
    # `replace` makes another model, which the file does not hold.
    file: ModelFile | None = field(default=None, init=False, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what pickles. The function that loads a Model again is in a layer above, and imported by its name."""
        found: tuple[Any, ...] = import_module("converters.pickling").reduced(self)
        return found

    def __post_init__(self) -> None:
        """Keep the arrays that the protos refer to."""
        object.__setattr__(self, "_weights", self._shared())

    @property
    def light(self) -> onnx.ModelProto:
        """The canonical graph, which refers to large weights."""
        proto: onnx.ModelProto = self.__dict__["proto"]
        return proto

    @property
    def light_original(self) -> onnx.ModelProto | None:
        """The original, which refers to large weights."""
        proto: onnx.ModelProto | None = self.__dict__["original"]
        return proto

    def with_graph(self, proto: onnx.ModelProto) -> Model:
        """Return the model with another canonical graph."""
        return Model(proto, self.source, self.verification, self.light_original, self.folder)

    def in_folder(self, folder: Path) -> Model:
        """Return the model as one of a folder of Hugging Face."""
        made = copy.copy(self)
        object.__setattr__(made, "folder", folder)
        return made

    def _shared(self) -> dict[str, np.ndarray]:
        """The arrays that the protos refer to, by key."""
        protos = [proto for proto in (self.light, self.light_original) if proto is not None]
        tensors = [t for proto in protos for t in proto.graph.initializer if is_reference(t)]
        return {key_of(tensor): array_of(tensor) for tensor in tensors}

    def __copy__(self) -> Model:
        """Return a shallow copy, which has the network of the original, as a pickle has not."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        """Return a deep copy, with the network of the original. Large weights are shared: nothing changes them."""
        made = object.__new__(type(self))
        memo[id(self)] = made
        own = {name: value for name, value in self.__dict__.items() if name != "_weights"}
        made.__dict__.update(copy.deepcopy(own, memo), _weights=self.__dict__["_weights"])
        return made

    def __repr__(self) -> str:
        """Return the inputs, the outputs and the size of the graph in at most four lines."""
        return described(self)

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How a photograph becomes an input, as stored at conversion or by Ultralytics. Raises InvalidModel."""
        fields = self._stored(PREPROCESSING_KEY, parse_preprocessing)
        if fields is None and "names" in self.metadata:
            fields = foreign_preprocessing(self.metadata, self._first_shape)
        return None if fields is None else Preprocessing(**fields)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The name of each class, in order, as stored at conversion or by Ultralytics. Raises InvalidModel."""
        return self._stored(CLASS_NAMES_KEY, parse_class_names) or foreign_class_names(self.metadata)

    @property
    def constants(self) -> dict[str, np.ndarray]:
        """The inputs that the conversion fixed, with their values, as stored at conversion. Raises InvalidModel."""
        return self._stored(CONSTANTS_KEY, parse_constants) or {}

    @property
    def _first_shape(self) -> tuple[int | None, ...] | None:
        """The shape of the only input; None for a free axis."""
        stored = {tensor.name for tensor in self.light.graph.initializer}
        inputs = [info for info in self.light.graph.input if info.name not in stored]
        if len(inputs) != 1:
            return None
        axes = inputs[0].type.tensor_type.shape.dim
        return tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in axes)

    def _stored(self, key: str, parse: Callable[[str], Stored]) -> Stored | None:
        """Return the value of a metadata entry, None where there is no such entry."""
        text = self.metadata.get(key)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            raise InvalidModel(
                f"the metadata {key!r} of the model is damaged: {error}. Fix: convert the model "
                "again, or remove this entry of its metadata_props"
            ) from error

    @property
    def metadata(self) -> dict[str, str]:
        """The proto's metadata as a dict."""
        return {entry.key: entry.value for entry in self.light.metadata_props}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the graph beside `path`, then rename it: a reader never sees half a file.

        Weights above 2 GiB go to a file beside it, named after it: "model.onnx.data".
        """
        if size_of(self.light) <= LARGEST_MESSAGE:
            return write_bytes(path, complete(copied(self.light)).SerializeToString())
        return write_bytes(path, with_data_file(self.light, Path(path)).SerializeToString())


class _Whole:
    """A field of a Model with a proto, whose large weights are copied into it when it is read."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, model: Model | None, owner: type) -> Any:
        if model is None:
            return self
        proto = model.__dict__[self.name]
        return None if proto is None else complete(proto)

    def __set__(self, model: Model, proto: onnx.ModelProto | None) -> None:
        model.__dict__[self.name] = proto


# The fields are those of a plain dataclass; these read them (weights/references.py).
Model.proto = _Whole("proto")  # type: ignore[assignment]
Model.original = _Whole("original")  # type: ignore[assignment]


def described(model: Model) -> str:
    """Return a model as text: its name, inputs, outputs, parameters, opset, source and verification."""
    graph = model.light.graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [info for info in graph.input if info.name not in stored]
    weights = (tensor for tensor in graph.initializer if tensor.data_type not in _NO_WEIGHTS)
    parameters = sum(math.prod(tensor.dims) for tensor in weights)
    opset = next((entry.version for entry in model.light.opset_import if not entry.domain), 0)
    kind = {"pytorch": "PyTorch", "tensorflow": "TensorFlow"}.get(
        getattr(model.source, "framework", ""), "ONNX"
    )
    found = model.verification
    verified = "" if found is None else f", relative L2 {found.relative_l2:.1e} from {found.reference}"
    lines = [
        f"Model: {graph.name or 'without a name'}, from {kind}{verified}",
        f"  inputs: {_tensors(inputs)}{_fixed(model)}",
        f"  outputs: {_tensors(graph.output)}",
        f"  {len(graph.node):,} nodes, {parameters:,} parameters, opset {opset}",
    ]
    shown = (printable(line.replace("\n", " ")) for line in lines)
    return "\n".join(line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…" for line in shown)


def _fixed(model: Model) -> str:
    """The inputs that were fixed, as a phrase; empty without any."""
    try:
        constants = model.constants
    except InvalidModel:
        return ""
    shown = [f"{name} = {value_text(array)}" for name, array in constants.items()]
    return f"; fixed: {', '.join(shown)}" if shown else ""


def value_text(array: np.ndarray, most: int = 8) -> str:
    """Return a fixed input as text: its values, or its shape and its only value where it has many."""
    if array.size <= most:
        return json.dumps(array.astype(np.float64 if array.dtype.kind == "V" else array.dtype).tolist())
    flat = array.reshape(-1)
    same = f", all {flat[0]}" if (flat == flat[0]).all() else ""
    return f"{array.dtype.name} of shape {array.shape}{same}"


def _tensors(infos: Iterable[onnx.ValueInfoProto], most: int = 4) -> str:
    """The names and shapes of inputs or outputs, without those beyond the first."""
    shown = []
    for info in infos:
        axes = info.type.tensor_type.shape.dim
        sizes = [
            str(axis.dim_value) if axis.HasField("dim_value") else axis.dim_param or "?" for axis in axes
        ]
        shown.append(f"{info.name} ({', '.join(sizes)})")
    rest = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + rest


def set_metadata(
    proto: onnx.ModelProto | Model,
    preprocessing: Preprocessing | None = None,
    class_names: Iterable[str] | None = None,
) -> None:
    """Store preprocessing and class names in a model, in place. Raises ConversionError for values out of range."""
    proto = proto.light if isinstance(proto, Model) else proto
    if not isinstance(proto, onnx.ModelProto):
        raise ConversionError(
            f"expected an onnx.ModelProto or a Model, got {type(proto).__name__}. Fix: give what load returned"
        )
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
        raise ConversionError(
            f"expected preprocessing as a Preprocessing, got {preprocessing!r}. Fix: give Preprocessing((224, 224))"
        )
    if preprocessing is not None:
        entries[PREPROCESSING_KEY] = json.dumps(asdict(preprocessing))
        try:
            parse_preprocessing(entries[PREPROCESSING_KEY])
        except ValueError as error:
            raise ConversionError(
                f"preprocessing: {error}. Fix: give Preprocessing(…) with this value"
            ) from error
    if class_names is not None:
        names = (
            [class_names]
            if isinstance(class_names, str) or not isinstance(class_names, Iterable)
            else [*class_names]
        )
        if isinstance(class_names, str) or not all(isinstance(name, str) for name in names):
            raise ConversionError(
                f"expected class_names as a list of texts, got {class_names!r}. Fix: give one for each class, in order"
            )
        entries[CLASS_NAMES_KEY] = json.dumps(names)
    onnx.helper.set_model_props(proto, entries)
