"""Write out loops, branches and ranks that depend on sizes or on switches, for the inputs at hand.

Reads a canonical ModelProto and arrays by input name; returns the canonical model for inputs of these shapes, in
which the batch stays free where the loops allow it. A switch is a small integer or boolean input without samples, such
as a sampling rate: where sizes alone do not settle the control flow, its value is written into the graph. The outputs
are compared with those of the model on the arrays. Leaves a model alone whose control flow depends on other values.
An input that is fixed for all calls is another matter: converters/passes/fixed_inputs.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx

from converters.canonical import canonicalise, keeps_batch_norm
from converters.errors import InvalidModel, UnsupportedModel, VerificationFailed
from converters.graph.nodes import is_standard, reads, rename_in, subgraphs
from converters.graph.opset import all_nodes
from converters.graph.runtime import RuntimeFailure, Session
from converters.passes.axes import states_axes
from converters.passes.rebatch import BATCH
from converters.verification.original import with_dropped_axes
from converters.verify import free_inputs, relative_l2

CONTROL_FLOW = ("Loop", "Scan", "If")
# Unrolling reorders no sum, but the runtime has other kernels for other nodes.
_TOLERANCE = 1e-4


# Elements of a switch, at most. Token ids and masks have more.
_LARGEST_SWITCH = 16


class Specialised(NamedTuple):
    """The canonical model for the inputs at hand, and the switches whose values are written into it."""

    proto: onnx.ModelProto
    switches: tuple[str, ...] = ()


def specialised(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> Specialised | None:
    """The model at the sizes of the feeds, with fewer loops and branches; None where it has no fewer.

    Raises VerificationFailed where an output on the feeds is not that of the model.
    """
    fewest, found = _control_flow(proto), None
    for switches, keeps_batch in [(given, keeps) for given in _settings(proto) for keeps in (True, False)]:
        try:
            sized = canonicalise(
                _switched(_at_shapes(proto, feeds, keeps_batch), feeds, switches),
                fold_batch_norm=not keeps_batch_norm(proto),
                dynamic_batch=False,
            )
        except (InvalidModel, UnsupportedModel):
            continue
        if _control_flow(sized) < fewest:
            fewest, found = _control_flow(sized), Specialised(sized, switches)
        if not fewest:
            break
    if found is not None:
        _confirm(proto, found.proto, feeds)
    return found


def drops_axes(proto: onnx.ModelProto | None) -> bool:
    """Whether a Squeeze without axes is in a file: the rank of its result depends on the sizes of the inputs."""
    return proto is not None and any(
        is_standard(node, "Squeeze") and not states_axes(node) for node in all_nodes(list(proto.graph.node))
    )


def without_axes_of_one(
    original: onnx.ModelProto, canonical: onnx.ModelProto, feeds: Mapping[str, np.ndarray]
) -> Specialised | None:
    """The model at the sizes of the feeds, where its file drops an axis of size 1 that the canonical graph keeps.

    None where the outputs on the feeds are those of the file all the same, or the file does not run on them.
    Raises VerificationFailed where the outputs at these sizes are not those of the file either.
    """
    try:
        if _differs(original, canonical, feeds) is None:
            return None
        sized = canonicalise(
            _at_shapes(original, feeds, keeps_batch=False),
            fold_batch_norm=not keeps_batch_norm(canonical),
            dynamic_batch=False,
        )
    except (InvalidModel, UnsupportedModel, RuntimeFailure):
        return None
    _confirm(original, sized, feeds)
    return Specialised(sized)


def switches(proto: onnx.ModelProto) -> tuple[str, ...]:
    """The small integer or boolean inputs without samples that a loop or branch depends on."""
    batched, used = free_inputs(proto), _read_by_control_flow(proto)
    return tuple(
        info.name for info in proto.graph.input if info.name in used - batched and _is_small_integer(info)
    )


def _settings(proto: onnx.ModelProto) -> list[tuple[str, ...]]:
    """The switches to write into the graph: none, and where that leaves control flow, all."""
    return [(), found] if (found := switches(proto)) else [()]


def _is_small_integer(info: onnx.ValueInfoProto) -> bool:
    kind = info.type.tensor_type
    sizes = [axis.dim_value if axis.HasField("dim_value") else _LARGEST_SWITCH + 1 for axis in kind.shape.dim]
    stated = kind.HasField("shape") and int(np.prod(sizes)) <= _LARGEST_SWITCH
    return stated and np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).kind in "iub"


def _read_by_control_flow(proto: onnx.ModelProto) -> frozenset[str]:
    """The tensors that loops and branches depend on."""
    used: set[str] = set()
    for node in reversed(proto.graph.node):
        if is_standard(node, *CONTROL_FLOW) or not used.isdisjoint(node.output):
            used.update(reads(node))
    return frozenset(used)


def _switched(
    proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray], switches: tuple[str, ...]
) -> onnx.ModelProto:
    """The model whose nodes read constants in place of switches; the inputs stay."""
    names = {name: f"{name}/at hand" for name in switches if name in feeds}
    for node in proto.graph.node:
        rename_in(node, names)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(feeds[name], constant) for name, constant in names.items()
    )
    return proto


def _control_flow(proto: onnx.ModelProto) -> int:
    return sum(is_standard(node, *CONTROL_FLOW) for node in all_nodes(list(proto.graph.node)))


def _at_shapes(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray], keeps_batch: bool) -> onnx.ModelProto:
    """The model with the shapes of the feeds as those of its inputs; nothing is stated of other tensors."""
    sized = onnx.ModelProto()
    sized.CopyFrom(proto)
    batched = free_inputs(proto) if keeps_batch else ()
    for info in sized.graph.input:
        if info.name not in feeds:
            continue
        shape = info.type.tensor_type.shape
        del shape.dim[:]
        for axis, size in enumerate(feeds[info.name].shape):
            if axis == 0 and info.name in batched:
                shape.dim.add(dim_param=BATCH)
            else:
                shape.dim.add(dim_value=size)
    for graph in (
        sized.graph,
        *(body for node in all_nodes(list(sized.graph.node)) for body in subgraphs(node)),
    ):
        del graph.value_info[:]
    for info in sized.graph.output:
        info.type.tensor_type.ClearField("shape")
    return sized


def _confirm(proto: onnx.ModelProto, sized: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> None:
    """Compare the outputs of both on the feeds."""
    try:
        wrong = _differs(proto, sized, feeds)
    except RuntimeFailure as failure:
        raise UnsupportedModel(
            f"the model does not run at the sizes of these inputs ({failure}). Fix: give inputs of sizes that it takes"
        ) from failure
    if wrong is not None:
        name, apart = wrong
        shapes = ", ".join(f"{key} {array.shape}" for key, array in feeds.items())
        raise VerificationFailed(
            f"output {name!r} differs by {apart:.2g} (relative L2) once the graph is written out for {shapes}. "
            'Fix: use backend="source" on a converted model, or report the model'
        )


def _differs(
    proto: onnx.ModelProto, other: onnx.ModelProto, feeds: Mapping[str, np.ndarray]
) -> tuple[str, float] | None:
    """The first output of `other` that is not that of the model, and its distance. Raises RuntimeFailure."""
    session, sized = Session(proto), Session(other)
    types = {info.name: info.type.tensor_type.elem_type for info in proto.graph.input}
    given = {
        name: array.astype(onnx.helper.tensor_dtype_to_np_dtype(types[name]), copy=False)
        for name, array in feeds.items()
        if name in types
    }
    expected = dict(zip(session.outputs, session.run(given), strict=True))
    for name, value in zip(sized.outputs, sized.run(given), strict=True):
        truth = with_dropped_axes(expected[name], value.shape)
        apart = relative_l2(value, truth) if value.shape == truth.shape else float("inf")
        if not apart <= _TOLERANCE:
            return name, apart
    return None


__all__ = ["CONTROL_FLOW", "Specialised", "drops_axes", "specialised", "switches", "without_axes_of_one"]
