"""Put preprocessing before an explainer, and drawing after it: a photograph of any size in, its maps out.

From a finished explainer, a ModelProto, and the Preprocessing of its image input to another ModelProto. Refuses inputs
that the preprocessing does not fit, with an ExportError.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from analyzer.errors import ExportError
from analyzer.explainer.photograph.colours import overlay as drawn
from analyzer.explainer.photograph.geometry import Axis, axes_of
from analyzer.explainer.photograph.maps import Restoring
from analyzer.explainer.photograph.pixels import input_values
from analyzer.figures.heat import PIXELS, REGIONS
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.images.preprocess import per_channel
from converters.graph.nodes import rename_in, subgraphs
from converters.metadata import parse_preprocessing
from converters.model import Preprocessing

IMAGE, OVERLAY = "image", "overlay"
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_IMAGE_DOC = (
    "Photographs of one size, RGB, uint8 (N, height, width, 3). Convert grey ones and remove alpha first."
)
_OVERLAY_DOC = (
    "The heat map of {name!r} to draw over the photograph, RGBA with straight alpha, uint8 (N, height, width, 4). It "
    "is transparent where the map is 0 and where the network does not see the photograph."
)
_MAP_DOC = "At the size of the photograph, interpolated; 0 where the network does not see the photograph."


def with_preprocessing(
    proto: onnx.ModelProto,
    preprocessing: Preprocessing,
    *,
    input_name: str,
    maps: Mapping[str, bool],
    overlay: str | None = None,
    smoothing: float | None = None,
) -> onnx.ModelProto:
    """Return an explainer that reads photographs and gives maps of their size.

    proto: a finished explainer, opset 17 or later. input_name: its image input, (N, C, H, W) or (N, H, W, C).
    maps: {name of a map output (N, h, w): whether it is signed}.
    overlay: the map that is drawn; default none. smoothing: of the drawn map, as a share of its short side; default as
        the figures have it.
    The input becomes `image`, uint8 (N, height, width, 3); the maps become (N, height, width), and are 0 beyond the
    region that the network sees; `overlay` is uint8 (N, height, width, 4). A name that another input or output has
    gets a leading "_". Raises ExportError where the preprocessing does not fit the input.
    """
    file = onnx.ModelProto()
    file.CopyFrom(proto)
    graph = file.graph
    given = _image_input(graph, input_name, preprocessing)
    channels = _channels(given.shape, preprocessing)
    _check_maps(graph, maps, overlay)
    names = _Names.of(graph, input_name, maps)
    _rename(graph, names.inner)
    before, after = (Builder(_opset(file), prefix=f"{names.prefix}{part}/") for part in ("in", "out"))
    image = Tensor(names.image, np.dtype(np.uint8))
    axes = _axes(before, image, preprocessing)
    values = input_values(before, image, axes, preprocessing, channels, given.dtype)
    before.write("Identity", [values.name], [names.inner[input_name]])
    restored = _restore(after, graph, axes, names, maps)
    if overlay is not None:
        if smoothing is None:
            smoothing = _smoothing(overlay, maps[overlay])
        source = restored[overlay]
        picture = drawn(
            after, source.plane, source.size, source.restore, signed=maps[overlay], smoothing=smoothing
        )
        after.write("Identity", [picture.name], [names.overlay])
    _assemble(graph, before, after, names)
    _state(graph, names, input_name, maps, overlay)
    return file


@dataclass(frozen=True)
class _Given:
    """The type and the shape of an input: an ONNX number, and for each axis a number or None."""

    dtype: int
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class _Names:
    """Names that are free in the graph. inner: {name that a new input or output takes: new name of its tensor}."""

    prefix: str
    image: str
    overlay: str
    height: str
    width: str
    inner: Mapping[str, str]

    @classmethod
    def of(cls, graph: onnx.GraphProto, input_name: str, maps: Collection[str]) -> _Names:
        """Return free names."""
        taken = set(_tensor_names(graph))
        prefix = "photograph/"
        while any(name.startswith(prefix) for name in taken):
            prefix = f"_{prefix}"
        outside = {info.name for info in (*graph.input, *graph.output)} - {input_name}
        image, overlay = (_free(name, outside) for name in (IMAGE, OVERLAY))
        symbols = {axis.dim_param for info in _infos(graph) for axis in info.type.tensor_type.shape.dim}
        height, width = (_free(name, symbols) for name in ("height", "width"))
        renamed = ({input_name, *maps, image, overlay} & taken) - (outside - set(maps))
        return cls(prefix, image, overlay, height, width, {name: f"{prefix}{name}" for name in renamed})


@dataclass(frozen=True)
class _Plane:
    """A map of the input, float32, its size, and how it is resized to the photograph."""

    plane: Tensor
    size: tuple[Tensor, Tensor]
    restore: Restoring


def _free(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name = f"_{name}"
    return name


def _opset(file: onnx.ModelProto) -> int:
    return next((entry.version for entry in file.opset_import if entry.domain in ("", "ai.onnx")), 1)


def _axes(op: Builder, image: Tensor, preprocessing: Preprocessing) -> tuple[Axis, ...]:
    shape = op.Shape(image)
    return axes_of(op, [op.Gather(shape, np.asarray(axis)) for axis in (1, 2)], preprocessing)


def _restore(
    op: Builder,
    graph: onnx.GraphProto,
    axes: tuple[Axis, ...],
    names: _Names,
    maps: Collection[str],
) -> dict[str, _Plane]:
    """Emit the maps at the size of the photograph. Maps of one size share their weights."""
    known: dict[tuple[int | None, ...], Restoring] = {}
    found = {}
    outputs = {info.name: _given(info) for info in graph.output}
    for name in maps:
        inner, given = names.inner[name], outputs[name]
        plane = Tensor(inner, np.dtype(helper.tensor_dtype_to_np_dtype(given.dtype)))
        if given.dtype != TensorProto.FLOAT:
            plane = op.Cast(plane, to=TensorProto.FLOAT)
        sizes = given.shape[1:]
        shape = None if None not in sizes else op.Shape(plane)
        high, wide = (
            op.tensor(np.asarray(size)) if shape is None else op.Gather(shape, np.asarray(axis))
            for axis, size in enumerate(sizes, 1)
        )
        restore = known.get(sizes) or Restoring(op, axes, (high, wide))
        if shape is None:
            known[sizes] = restore
        large = restore(plane)
        if given.dtype != TensorProto.FLOAT:
            large = op.Cast(large, to=given.dtype)
        op.write("Identity", [large.name], [name])
        found[name] = _Plane(plane, (high, wide), restore)
    return found


def _smoothing(name: str, signed: bool) -> float:
    """The smoothing of the figures: a sum over layers is read at the scale of regions."""
    if name.lstrip("_").partition("/")[0] == "complete_map":
        return REGIONS
    return PIXELS if signed else 0.0


def _image_input(graph: onnx.GraphProto, name: str, preprocessing: Preprocessing) -> _Given:
    """The input of the images. Raises ExportError where the preprocessing does not fit it."""
    info = next((info for info in graph.input if info.name == name), None)
    if info is None:
        raise ExportError(
            f"the explainer has no input {name!r}. Fix: choose from {', '.join(one.name for one in graph.input)}"
        )
    given, size, layout = _given(info), preprocessing.size, preprocessing.layout
    channels = _channels(given.shape, preprocessing)
    wanted = (channels, *size) if layout == "NCHW" else (*size, channels)
    fits = channels in (1, 3) and all(
        own in (None, one) for own, one in zip(given.shape[1:], wanted, strict=True)
    )
    if not fits:
        raise ExportError(
            f"the preprocessing makes images of {size[0]} x {size[1]} with 1 or 3 channels, {layout}; the input "
            f"{name!r} has the shape {given.shape}. Fix: store the preprocessing of this input in the model"
        )
    if given.dtype not in _FLOATS:
        raise ExportError(
            f"expected an input of floats, {name!r} is of {TensorProto.DataType.Name(given.dtype)}. Fix: export "
            "without preprocessing"
        )
    try:
        parse_preprocessing(json.dumps(asdict(preprocessing)))
        for values in (preprocessing.mean, preprocessing.std):
            per_channel(values, channels)
    except ValueError as error:
        raise ExportError(f"the preprocessing is not valid: {error}. Fix: correct it in the model") from error
    return given


def _channels(shape: tuple[int | None, ...], preprocessing: Preprocessing) -> int:
    """Return the number of channels of an image input, 3 if it is not stated; 0 for an input of another rank."""
    if len(shape) != 4:
        return 0
    stated = shape[1 if preprocessing.layout == "NCHW" else 3]
    return 3 if stated is None else stated


def _check_maps(graph: onnx.GraphProto, maps: Collection[str], overlay: str | None) -> None:
    """Raise ExportError for a map that is not (N, h, w), and for an overlay of another output."""
    outputs = {info.name: _given(info) for info in graph.output}
    for name in maps:
        if name not in outputs or len(outputs[name].shape) != 3:
            raise ExportError(
                f"expected an output {name!r} of shape (N, h, w), found "
                f"{outputs[name].shape if name in outputs else 'none'}. Fix: export without preprocessing"
            )
    if overlay is not None and overlay not in maps:
        raise ExportError(
            f"expected one of the maps {', '.join(maps)}, got {overlay!r}. Fix: draw one of them"
        )


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors in nodes, constants and stated types; the graph's inputs and outputs keep theirs."""
    for node in graph.node:
        rename_in(node, names)
    for one in (*graph.initializer, *graph.value_info):
        one.name = names.get(one.name, one.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = names.get(sparse.values.name, sparse.values.name)


def _assemble(graph: onnx.GraphProto, before: Builder, after: Builder, names: _Names) -> None:
    """Put the nodes and the constants of both parts into the graph."""
    whole = onnx.GraphProto(node=[*before.nodes, *graph.node, *after.nodes])
    graph.ClearField("node")
    graph.node.MergeFrom(whole.node)
    for op in (before, after):
        graph.initializer.extend(
            numpy_helper.from_array(array, name) for name, array in op.initializers.items()
        )


def _state(
    graph: onnx.GraphProto, names: _Names, input_name: str, maps: Collection[str], overlay: str | None
) -> None:
    """State the types of the new inputs and outputs."""
    sides = [names.height, names.width]
    for index, info in enumerate(graph.input):
        if info.name == input_name:
            samples = _first_axis(info)
            image = helper.make_tensor_value_info(
                names.image, TensorProto.UINT8, [samples, *sides, 3], _IMAGE_DOC
            )
            graph.input[index].CopyFrom(image)
    for info in graph.output:
        if info.name in maps:
            doc = " ".join(filter(None, (info.doc_string, _MAP_DOC)))
            dtype = info.type.tensor_type.elem_type
            info.CopyFrom(helper.make_tensor_value_info(info.name, dtype, [_first_axis(info), *sides], doc))
    if overlay is not None:
        rows = next(_first_axis(info) for info in graph.output if info.name == overlay)
        doc = _OVERLAY_DOC.format(name=overlay)
        graph.output.append(
            helper.make_tensor_value_info(names.overlay, TensorProto.UINT8, [rows, *sides, 4], doc)
        )


def _first_axis(info: onnx.ValueInfoProto) -> int | str | None:
    axis = info.type.tensor_type.shape.dim[0]
    return axis.dim_value if axis.HasField("dim_value") else axis.dim_param or None


def _given(info: onnx.ValueInfoProto) -> _Given:
    kind = info.type.tensor_type
    return _Given(
        kind.elem_type,
        tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in kind.shape.dim),
    )


def _infos(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from (*graph.input, *graph.output, *graph.value_info)


def _tensor_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name of a tensor, in subgraphs, too."""
    yield from (info.name for info in _infos(graph))
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from (*node.input, *node.output)
        for body in subgraphs(node):
            yield from _tensor_names(body)
