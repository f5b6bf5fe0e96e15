"""Emit one method on one model as a finished ONNX model: its inputs, outputs, docstrings and metadata.

From a bound model, a registered method and its settings to a ModelProto of the canonical opset. The results get their
documented names here. Refuses methods and settings that need the host.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from analyzer.errors import ExportError
from analyzer.explainer.description import Port
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.graph.program import assemble
from analyzer.methods.exporting import ExplainerGraph, Exported, Hosted
from analyzer.methods.names import suggested
from analyzer.methods.registry import METHODS, Method
from converters.types import Shape

_TINY = float(np.finfo(np.float32).tiny)
_DOUBLE, _FLOAT = onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class EmittedExplainer:
    """An emitted explainer: the model, its inputs and outputs, and the method's results."""

    proto: onnx.ModelProto
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    exported: Exported

    @property
    def sum_of(self) -> str | None:
        """Return "output" or "difference", to which the attributions sum; None where they sum to neither."""
        if self.exported.delta is not None:
            return "difference"
        return None if self.exported.total is None else "output"


def method_to_export(name: str) -> Method:
    """Return a method that can be a file. Raises ExportError with the reason, and with what to export instead."""
    method = METHODS.get(name) or METHODS.get(str(name).replace("_", "-"))
    if method is None:
        near = suggested(str(name), METHODS)
        fix = f"did you mean {near!r}?" if near else f"choose from {', '.join(METHODS)}"
        raise ExportError(f"unknown method {name!r}. Fix: {fix}")
    if isinstance(method.export, Hosted):
        raise ExportError(f"{name} cannot be one ONNX file: {method.export.reason}. Fix: {method.export.fix}")
    return method


def settings_to_export(method: Method, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an exporter, with the defaults of the method.

    Raises ExportError for an unknown setting and for one that needs the host.
    """
    assert callable(method.export)
    _, *taken = inspect.signature(method.export).parameters
    unknown = [name for name in given if name not in method.parameters and name not in taken]
    if unknown:
        raise ExportError(
            f"{method.name} has no setting {unknown[0]!r}. Fix: choose from {', '.join(taken) or 'none'}"
        )
    hosted = [name for name, value in given.items() if name not in taken and value is not None]
    if hosted:
        raise ExportError(
            f"{hosted[0]!r} of {method.name} needs the host: it decides during the run how many gradients are "
            f"computed, or together. Fix: omit it; the file takes {', '.join(taken)}"
        )
    defaults = {
        name: one.default for name, one in inspect.signature(method.run).parameters.items() if name in taken
    }
    return {**defaults, **{name: value for name, value in given.items() if name in taken}}


def emit(
    explainer: ExplainerGraph, method: Method, settings: Mapping[str, Any], *, sized: bool
) -> EmittedExplainer:
    """Emit a method. sized: whether the model is for the sizes of the example alone, but for the batch."""
    assert callable(method.export)
    exported = method.export(explainer, **settings)
    results = _results(explainer, exported, method)
    op, graph = explainer.op, explainer.graph
    ended = {explainer.free_name(one.name): op.Identity(one.tensor) for one in results}
    own = {name: graph.tensors[name] for name in graph.outputs}
    extra = {one.tensor.name: one.tensor for one in explainer.extra}
    program = assemble(graph, op, {**own, **ended}, extra_inputs=extra)
    proto = program.proto
    _rename_outputs(proto, program.outputs)
    inputs = _inputs(proto, explainer, sized=sized or exported.sized)
    shapes = {port.name: port.shape for port in inputs}
    explained = explainer.bound.seed.outputs
    outputs = [
        _port(name, "output", tensor, "output of the model", explains=name in explained)
        for name, tensor in own.items()
    ]
    for one in results:
        tensor = one.tensor
        if one.role == "attribution" and tensor.shape is None:
            tensor = replace(tensor, shape=shapes.get(one.of, graph.tensors[one.of].shape))
        outputs.append(_port(explainer.free_name(one.name), one.role, tensor, one.meaning, of=one.of))
    return EmittedExplainer(proto, inputs, tuple(outputs), exported)


@dataclass(frozen=True)
class _Result:
    """An output that the model does not have. alone: whether its name is its role, without that of its tensor."""

    role: str
    tensor: Tensor
    meaning: str
    of: str = ""
    alone: bool = True

    @property
    def name(self) -> str:
        return self.role if self.alone else f"{self.role}/{self.of}"


def _results(explainer: ExplainerGraph, exported: Exported, method: Method) -> list[_Result]:
    """The method's results, then the scores, the classes and the error of each sample."""
    signs = "positive speaks for the class, negative against it"
    sign = signs if exported.signed else "larger is more important"
    unit = "see the method" if exported.total is None and exported.delta is None else "in units of the score"
    results = []
    for role, tensors, meaning in (
        ("attribution", exported.attributions, f"{method.caption} of each element of {{}}: {unit}"),
        ("map", exported.maps, f"map of {method.caption} over {{}}: {sign}"),
        ("complete_map", exported.complete_maps, "all terms over {}, with their sign"),
    ):
        alone = len(exported.attributions) == 1
        results += [_Result(role, one, meaning.format(repr(of)), of, alone) for of, one in tensors.items()]
    op, score = explainer.op, explainer.explained
    rows = [_Result("explained", score, "the explained score of each sample")]
    if explainer.chosen is not None:
        rows.append(_Result("explained_target", explainer.chosen, "the explained class of each sample"))
    if exported.total is not None and exported.absolute is not None:
        error = _error(op, score, exported.total, exported.absolute)
        rows.append(_Result("completeness_error", error, "|sum of all parts - score| over |score|"))
    if exported.delta is not None:
        words = "sum of the attributions minus the difference of the score from the baseline, in units of the score"
        rows.append(_Result("delta", op.Cast(exported.delta, to=_FLOAT), words))
    batch = (explainer.batch,)
    return [*results, *(replace(row, tensor=replace(row.tensor, shape=batch)) for row in rows)]


def _port(
    name: str, role: str, tensor: Tensor, meaning: str, *, of: str = "", explains: bool = False
) -> Port:
    return Port(name, role, _stated(tensor.shape), _type(tensor.dtype), meaning, of=of, explains=explains)


def _error(op: Builder, score: Tensor, total: Tensor, absolute: Tensor) -> Tensor:
    """The error of a sum as `Completeness` has it, in float32."""
    wanted = op.Cast(score, to=_DOUBLE)
    unit = float(np.finfo(score.dtype).eps) if score.dtype.kind == "f" else 2.0**-7
    scale = op.Max(op.Max(op.Abs(wanted), op.Mul(absolute, unit)), _TINY)
    return op.Cast(op.Div(op.Abs(op.Sub(total, wanted)), scale), to=_FLOAT)


def _rename_outputs(proto: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Give the outputs of a graph the names of the results, where only a last Identity computes them."""
    wanted = {name: key for key, name in names.items() if key != name}
    for node in proto.graph.node:
        if node.op_type == "Identity" and node.output[0] in wanted:
            node.output[0] = wanted[node.output[0]]
            node.name = f"{node.output[0]}/output"
    for info in proto.graph.output:
        info.name = wanted.get(info.name, info.name)


def _inputs(proto: onnx.ModelProto, explainer: ExplainerGraph, *, sized: bool) -> tuple[Port, ...]:
    """Set the shapes and defaults of the inputs, and return their descriptions."""
    extra = {one.tensor.name: one for one in explainer.extra}
    ports = []
    for info in proto.graph.input:
        kind = info.type.tensor_type.elem_type
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
        if info.name in extra:
            one = extra[info.name]
            proto.graph.initializer.append(numpy_helper.from_array(one.default, info.name))
            shape = _stated(one.tensor.shape)
            small = one.default if one.default.size <= 1024 else None
            default = None if small is None else small.tolist()
            port = Port(info.name, one.role, shape, _type(dtype), one.meaning, one.of, True, default)
        else:
            stated = explainer.graph.tensors[info.name].shape
            if sized and stated is not None:
                stated = (*stated[:1], *explainer.bound.feeds[info.name].shape[1:])
            shape = _stated(stated)
            port = Port(info.name, "model", shape, _type(dtype), "input of the model")
        info.CopyFrom(helper.make_tensor_value_info(info.name, kind, shape))
        ports.append(port)
    return tuple(ports)


def _stated(shape: Shape | None) -> tuple[int | str, ...]:
    """A shape with a name for each axis of unknown size."""
    return tuple(
        size if size is not None else ("batch" if axis == 0 else f"axis_{axis}")
        for axis, size in enumerate(shape or ())
    )


def _type(dtype: np.dtype[Any]) -> str:
    return "string" if dtype.kind == "O" else dtype.name


def state_outputs(proto: onnx.ModelProto, outputs: Sequence[Port]) -> None:
    """Give the outputs of a model their shapes, in place."""
    for info, port in zip(proto.graph.output, outputs, strict=True):
        assert info.name == port.name, (info.name, port.name)
        kind = info.type.tensor_type.elem_type
        info.CopyFrom(helper.make_tensor_value_info(port.name, kind, port.shape))
