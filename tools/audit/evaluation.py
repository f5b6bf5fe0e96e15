"""Evaluate a graph node by node with ONNX's reference evaluator, as given or in float64, with noise where asked.

No pass and no runtime is involved: the evaluator is the standard's own, in NumPy. Where it rounds to float32, or knows
the newest meaning of an op alone, a formula of `formulas` takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from converters.graph.runtime import Session
from tools.audit.formulas import FORMULAS

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_KIND_ATTRIBUTES = ("to", "dtype", "stash_type", "softmax_precision")


class Evaluation:
    """A graph that is ready to be evaluated."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._evaluator: Any = ReferenceEvaluator(proto, new_ops=FORMULAS)
        self.outputs: list[str] = list(self._evaluator.output_names)

    def __call__(
        self, feeds: Mapping[str, np.ndarray], noise: tuple[np.random.Generator, float] | None = None
    ) -> list[Any]:
        """Return the outputs. noise: every float is multiplied by 1 + scale·(a normal number)."""
        results: dict[str, Any] = {"": None}
        for name, array in (*self._evaluator.rt_inits_.items(), *feeds.items()):
            results[name] = array if noise is None else _noisy(array, *noise)
        with np.errstate(all="ignore"):
            for node in self._evaluator.rt_nodes_:
                given = [results[name] for name in node.input]
                context = {"context": results} if node.need_context() else {}
                for name, value in zip(node.output, node.run(*given, **context), strict=False):
                    results[name] = value if noise is None else _noisy(value, *noise)
        return [results[name] for name in self.outputs]


class Runtime:
    """A graph on ONNX Runtime without optimisations: for ops of old opsets, which the evaluator does not know.

    Noise is added to the inputs alone.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._session = Session(proto, optimise=False)
        self.outputs = self._session.outputs

    def __call__(
        self, feeds: Mapping[str, np.ndarray], noise: tuple[np.random.Generator, float] | None = None
    ) -> list[Any]:
        """Return the outputs."""
        given = dict(feeds) if noise is None else {name: _noisy(a, *noise) for name, a in feeds.items()}
        return self._session.run(given)


class Stacked:
    """A graph that takes a fixed number of samples, evaluated on one group of samples after the other."""

    def __init__(self, evaluation: Evaluation | Runtime, samples: int) -> None:
        self._evaluation, self._samples = evaluation, samples
        self.outputs = evaluation.outputs

    def __call__(
        self, feeds: Mapping[str, np.ndarray], noise: tuple[np.random.Generator, float] | None = None
    ) -> list[Any]:
        """Return the outputs of all samples, joined along the first axis."""
        count = len(next(iter(feeds.values()))) // self._samples
        groups = [
            self._evaluation({name: np.split(a, count)[index] for name, a in feeds.items()}, noise)
            for index in range(count)
        ]
        return [np.concatenate(values) for values in zip(*groups, strict=True)]


def _noisy(value: Any, rng: np.random.Generator, scale: float) -> Any:
    if not isinstance(value, np.ndarray) or value.dtype != np.float64:
        return value
    with np.errstate(over="ignore"):
        return value * (1 + scale * rng.standard_normal(value.shape))


def in_float64(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with double precision in place of every narrower float type."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.value_info[:]
    _widen_graph(copy.graph)
    return copy


def widened(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays with float64 in place of narrower floats."""
    return {n: a.astype(np.float64) if a.dtype.kind in "fV" else a for n, a in feeds.items()}


def _widen_graph(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for info in (*graph.input, *graph.output):
        if info.type.tensor_type.elem_type in _FLOATS:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in graph.node:
        for entry in node.attribute:
            if entry.HasField("g"):
                _widen_graph(entry.g)
            elif entry.HasField("t"):
                _widen_tensor(entry.t)
            elif entry.name in _KIND_ATTRIBUTES and entry.i in _FLOATS:
                entry.i = TensorProto.DOUBLE
            elif node.op_type == "Constant" and entry.name in ("value_float", "value_floats"):
                value = helper.get_attribute_value(entry)
                array = np.asarray(value, np.float32).astype(np.float64)
                entry.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(array)))


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _FLOATS:
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), name))
