"""Leave the caches of keys and values out of a decoder: the run is the first one, and nothing is kept for the next.

From the ModelProto of an exporter, whose inputs past_key_values.* continue an earlier run, to a copy without these
inputs and without the outputs present.*. A cache of length 0 takes the place of each input, and `use_cache_branch` of a
merged decoder is false. A cache whose length cannot be told from its shape stays an input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from converters.graph.nodes import subgraphs

_PAST = re.compile(r"past(_key|_value|_key_value)*s?[._]|past_\d|past_self_|past_cross_")
_PRESENT = re.compile(r"present([._]|_key|_value)")
_SWITCH = "use_cache_branch"
_PREFIX = "empty cache/"


def without_caches(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return the model without caches, and notes that say so; the model itself where it has none."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    inputs = [info for info in proto.graph.input if info.name not in stored]
    ids = next((info for info in inputs if _is_ids(info)), None)
    pasts = {info.name: axis for info in inputs if (axis := _length_axis(info)) is not None}
    if ids is None or not pasts:
        return proto, ()
    cut = onnx.ModelProto()
    cut.CopyFrom(proto)
    graph = cut.graph
    nodes = [
        node for info in inputs if info.name in pasts for node in _empty(info, pasts[info.name], ids.name)
    ]
    if any(info.name == _SWITCH for info in inputs):
        graph.initializer.append(numpy_helper.from_array(np.zeros(1, bool), _SWITCH))
    _drop_from_joins(graph, pasts)
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([*_constants(), *nodes, *kept])
    _keep(graph.input, {info.name for info in graph.input} - pasts.keys() - {_SWITCH})
    presents = {info.name for info in graph.output if _PRESENT.match(info.name)}
    if len(presents) < len(graph.output):
        _keep(graph.output, {info.name for info in graph.output} - presents)
    _as_long_as(graph, ids.name)
    # Their shapes count the tokens of earlier runs.
    del graph.value_info[:]
    note = f"the {len(pasts)} inputs {next(iter(pasts))!r}, … are caches of an earlier run: they are empty and left out"
    return cut, (note,)


def _is_ids(info: onnx.ValueInfoProto) -> bool:
    kind = info.type.tensor_type
    integer = kind.elem_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
    return integer and len(kind.shape.dim) == 2 and "mask" not in info.name.lower()


def _length_axis(info: onnx.ValueInfoProto) -> int | None:
    """The axis of the tokens of a cache: the only free one besides the batch; None of any other input."""
    axes = info.type.tensor_type.shape.dim
    free = [place for place, axis in enumerate(axes) if place and not axis.dim_value]
    named = _PAST.match(info.name) is not None and len(axes) in (3, 4)
    # A first axis that joins the batch and the heads has no size that is known here.
    return free[0] if named and len(free) == 1 and " x " not in axes[0].dim_param else None


def _as_long_as(graph: onnx.GraphProto, ids: str) -> None:
    """State that masks, which counted the tokens of earlier runs, too, are as long as the ids."""
    (length,) = (info.type.tensor_type.shape.dim[1] for info in graph.input if info.name == ids)
    for info in graph.input:
        axes = info.type.tensor_type.shape.dim
        if "mask" in info.name.lower() and len(axes) == 2 and not axes[1].dim_value:
            axes[1].CopyFrom(length)


def _constants() -> Iterator[onnx.NodeProto]:
    for name, value in (("zero", [0]), ("one", [1])):
        yield helper.make_node(
            "Constant", [], [_PREFIX + name], value=numpy_helper.from_array(np.array(value))
        )


def _empty(info: onnx.ValueInfoProto, axis: int, ids: str) -> Iterator[onnx.NodeProto]:
    """Nodes that compute a cache without tokens, for the batch of the token ids."""
    stem, kind = f"{_PREFIX}{info.name}/", info.type.tensor_type
    rest = [0 if place == axis else one.dim_value for place, one in enumerate(kind.shape.dim)][1:]
    zero = np.zeros(1, helper.tensor_dtype_to_np_dtype(kind.elem_type))
    yield helper.make_node("Shape", [ids], [f"{stem}ids"])
    yield helper.make_node("Slice", [f"{stem}ids", f"{_PREFIX}zero", f"{_PREFIX}one"], [f"{stem}batch"])
    yield helper.make_node(
        "Constant", [], [f"{stem}rest"], value=numpy_helper.from_array(np.array(rest, np.int64))
    )
    yield helper.make_node("Concat", [f"{stem}batch", f"{stem}rest"], [f"{stem}shape"], axis=0)
    yield helper.make_node(
        "ConstantOfShape", [f"{stem}shape"], [info.name], value=numpy_helper.from_array(zero)
    )


def _drop_from_joins(graph: onnx.GraphProto, pasts: dict[str, int]) -> None:
    """Leave the caches out where new keys and values are joined to them: nothing is joined to nothing."""
    for node in graph.node:
        for body in subgraphs(node):
            _drop_from_joins(body, pasts)
        if node.op_type != "Concat" or not pasts.keys() & set(node.input):
            continue
        kept = [name for name in node.input if name not in pasts]
        if kept:
            node.input[:] = kept


def _keep(infos: object, names: set[str]) -> None:
    """Keep the inputs or outputs of these names."""
    kept = [info for info in infos if info.name in names]  # type: ignore[attr-defined]
    del infos[:]  # type: ignore[attr-defined]
    infos.extend(kept)  # type: ignore[attr-defined]
