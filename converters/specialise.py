"""Write out loops and branches that depend on sizes, for the sizes of the inputs at hand.

Reads a canonical ModelProto and arrays by input name; returns the canonical model for inputs of these shapes, in
which the batch stays free where the loops allow it. Its outputs are compared with those of the model on the arrays.
Leaves a model alone whose control flow depends on values.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from converters.canonical import canonicalise, keeps_batch_norm
from converters.draft import is_standard, subgraphs
from converters.errors import InvalidModel, UnsupportedModel, VerificationFailed
from converters.opset import all_nodes
from converters.rebatch import BATCH
from converters.runtime import RuntimeFailure, Session, run
from converters.verify import free_inputs, relative_l2

CONTROL_FLOW = ("Loop", "Scan", "If")
# Unrolling reorders no sum, but the runtime has other kernels for other nodes.
_TOLERANCE = 1e-4


def specialised(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> onnx.ModelProto | None:
    """The model at the sizes of the feeds, with fewer loops and branches; None where none of them depends on sizes.

    Raises VerificationFailed where an output on the feeds is not that of the model.
    """
    fewest, found = _control_flow(proto), None
    for keeps_batch in (True, False):
        try:
            sized = canonicalise(
                _at_shapes(proto, feeds, keeps_batch),
                fold_batch_norm=not keeps_batch_norm(proto),
                dynamic_batch=False,
            )
        except (InvalidModel, UnsupportedModel):
            continue
        if _control_flow(sized) < fewest:
            fewest, found = _control_flow(sized), sized
        if not fewest:
            break
    if found is not None:
        _confirm(proto, found, feeds)
    return found


def _control_flow(proto: onnx.ModelProto) -> int:
    return sum(is_standard(node, *CONTROL_FLOW) for node in proto.graph.node)


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
        session = Session(proto)
        expected, values = session.run(feeds), run(sized, feeds)
    except RuntimeFailure as failure:
        raise UnsupportedModel(
            f"the model does not run at the sizes of these inputs ({failure}). Fix: give inputs of sizes that it takes"
        ) from failure
    for name, value, truth in zip(session.outputs, values, expected, strict=True):
        apart = relative_l2(value, truth)
        if not apart <= _TOLERANCE:
            shapes = ", ".join(f"{key} {array.shape}" for key, array in feeds.items())
            raise VerificationFailed(
                f"output {name!r} differs by {apart:.2g} (relative L2) once the loops are written out for {shapes}. "
                'Fix: use backend="source" on a converted model, or report the model'
            )


__all__ = ["CONTROL_FLOW", "specialised"]
