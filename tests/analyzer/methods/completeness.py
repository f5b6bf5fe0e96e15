"""The claim that FullGrad is complete: for logits, for probabilities and for a unit within, in both precisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from analyzer import Differentiable, Target, differentiate, full_grad
from analyzer.autodiff.sweep import active_tensors
from analyzer.target.target import TargetLike
from converters import Model, load

Inputs = np.ndarray | Mapping[str, np.ndarray]

PROBABILITIES = "probabilities"
FLOAT32, FLOAT64 = 1e-4, 1e-10


def assert_complete(
    model: Model, feeds: Inputs, target: TargetLike = None, wrt: Sequence[str] | None = None
) -> None:
    """Terms of all kinds sum to the logit, to its probability and to a unit of an inner layer."""
    extended = with_probabilities(model)
    runtime = differentiate(extended)
    referee = differentiate(extended, "torch", precision="float64")
    for explained in (target, Target(PROBABILITIES), inner_unit(referee, feeds, wrt)):
        single = full_grad(runtime, feeds, explained, wrt=wrt).completeness
        assert single.within(FLOAT32).all(), (explained, single)
        double = full_grad(referee, feeds, explained, wrt=wrt).completeness
        assert double.output.dtype == np.float64
        assert double.error.max() <= FLOAT64, (explained, double)


def with_probabilities(model: Model) -> Model:
    """The model with a Softmax over the classes of its first output as another output."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    logits = proto.graph.output[0]
    axis = 1 if len(logits.type.tensor_type.shape.dim) > 1 else 0
    proto.graph.node.append(helper.make_node("Softmax", [logits.name], [PROBABILITIES], axis=axis))
    kind = logits.type.tensor_type.elem_type
    proto.graph.output.append(helper.make_tensor_value_info(PROBABILITIES, kind, None))
    return load(proto)


def inner_unit(fn: Differentiable, feeds: Inputs, wrt: Sequence[str] | None = None) -> Target:
    """The largest unit, in the first sample, of a layer two thirds into the network."""
    active = active_tensors(fn.graph, fn.roots(wrt))
    samples = fn.graph.tensors[fn.graph.outputs[0]].shape[0]
    layers = [
        name
        for node in fn.graph.nodes
        for name in node.outputs
        if name in active and (fn.graph.tensors[name].shape or (None,))[0] == samples
    ]
    name = layers[len(layers) * 2 // 3]
    value = fn.forward(feeds, [name])[name]
    return Target(name, index=tuple(int(i) for i in np.unravel_index(value[0].argmax(), value.shape[1:])))
