"""Emit one method on one model as a finished ONNX model: its inputs, outputs, docstrings and metadata.

From a bound model, a registered method and its settings to a ModelProto of the canonical opset. The results get their
documented names here. Refuses methods and settings that need the host.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from analyzer.errors import ExportError
from analyzer.explainer.description import Port
from analyzer.graph.batch_axis import batched_inputs
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.graph.program import assemble
from analyzer.methods.exporting import ExplainerGraph, Exported
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
        """What the attributions sum to."""
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
    if isinstance(method.export, str):
        reason, _, fix = method.export.partition(" Fix: ")
        raise ExportError(f"{name} cannot be one ONNX file: {reason} Fix: {fix}")
    return method


def settings_to_export(method: Method, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an exporter, with the defaults of the method.

    Raises ExportError for an unknown setting and for one that needs the host.
    """
    assert callable(method.export)
    taken = [one for one in inspect.signature(method.export).parameters if one != "explainer"]
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
    results, ports = _results(explainer, exported, method)
    named = {explainer.free_name(name): tensor for name, tensor in results.items()}
    own = {name: explainer.graph.tensors[name] for name in explainer.graph.outputs}
    op = explainer.op
    ended = {name: op.Identity(tensor) for name, tensor in named.items()}
    program = assemble(
        explainer.graph,
        op,
        {**own, **ended},
        extra_inputs={one.tensor.name: one.tensor for one in explainer.extra},
    )
    proto = program.proto
    _rename_outputs(proto, program.outputs)
    inputs = _inputs(proto, explainer, sized=sized or exported.sized)
    explained = set(explainer.bound.seed.outputs)
    shapes = {**{name: t.shape for name, t in own.items()}, **{n: t.shape for n, t in named.items()}}
    outputs = [
        Port(
            name,
            "output",
            _stated(shapes[name]),
            _type(own[name].dtype),
            "output of the model",
            explains=name in explained,
        )
        for name in own
    ]
    for name, tensor in results.items():
        port = ports[name]
        if port[0] in ("attribution", "map", "complete_map") and tensor.shape is None:
            # Of other shapes it is known after the first run.
            known = {one.name: one.shape for one in inputs}
            shape = (
                known.get(port[1], explainer.graph.tensors[port[1]].shape)
                if port[0] == "attribution"
                else None
            )
            tensor = Tensor(tensor.name, tensor.dtype, shape)
        outputs.append(
            Port(
                explainer.free_name(name),
                port[0],
                _stated(tensor.shape),
                _type(tensor.dtype),
                port[2],
                of=port[1],
            )
        )
    return EmittedExplainer(proto, inputs, tuple(outputs), exported)


def _results(
    explainer: ExplainerGraph, exported: Exported, method: Method
) -> tuple[dict[str, Tensor], dict[str, tuple[str, str, str]]]:
    """{name of the output: tensor}, and {name: (role, attributed tensor, meaning)}."""
    op = explainer.op
    results: dict[str, Tensor] = {}
    ports: dict[str, tuple[str, str, str]] = {}

    def add(role: str, tensor: Tensor, meaning: str, of: str = "", *, alone: bool = True) -> None:
        name = role if alone else f"{role}/{of}"
        results[name] = tensor
        ports[name] = (role, of, meaning)

    sign = (
        "positive speaks for the class, negative against it"
        if exported.signed
        else "larger is more important"
    )
    alone = len(exported.attributions) == 1
    for of, tensor in exported.attributions.items():
        add("attribution", tensor, f"{method.caption} of {of!r}, like it: {_unit(exported)}", of, alone=alone)
    for of, tensor in exported.maps.items():
        add("map", tensor, f"map of {method.caption} over {of!r}: {sign}", of, alone=alone)
    for of, tensor in exported.complete_maps.items():
        add("complete_map", tensor, f"all terms over {of!r}, with their sign", of, alone=alone)
    rows: Shape = (_batch(explainer),)
    add("explained", _shaped(op, explainer.explained, rows), "the score that is explained, of each sample")
    if explainer.chosen is not None:
        add(
            "explained_target",
            _shaped(op, explainer.chosen, rows),
            "the class that is explained, of each sample",
        )
    if exported.total is not None and exported.absolute is not None:
        error = _error(op, explainer.explained, exported.total, exported.absolute)
        add("completeness_error", _shaped(op, error, rows), "|sum of all parts - score| over |score|")
    if exported.delta is not None:
        words = (
            "sum of the attributions, less the score's difference from the baseline; in units of the score"
        )
        add("delta", _shaped(op, op.Cast(exported.delta, to=_FLOAT), rows), words)
    return results, ports


def _unit(exported: Exported) -> str:
    if exported.total is not None or exported.delta is not None:
        return "in units of the score"
    return "see the method"


def _error(op: Builder, score: Tensor, total: Tensor, absolute: Tensor) -> Tensor:
    """The error of a sum as `Completeness` has it, in float32."""
    wanted = op.Cast(score, to=_DOUBLE)
    unit = float(np.finfo(score.dtype).eps) if score.dtype.kind == "f" else 2.0**-7
    scale = op.Max(op.Max(op.Abs(wanted), op.Mul(absolute, unit)), _TINY)
    return op.Cast(op.Div(op.Abs(op.Sub(total, wanted)), scale), to=_FLOAT)


def _shaped(op: Builder, tensor: Tensor, shape: Shape) -> Tensor:
    return Tensor(tensor.name, tensor.dtype, shape)


def _batch(explainer: ExplainerGraph) -> int | str:
    names = batched_inputs(explainer.graph) or explainer.graph.inputs
    shape = explainer.graph.tensors[next(iter(names))].shape
    axis = shape[0] if shape else None
    return axis if axis is not None else "batch"


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
    """Give the inputs their shapes and defaults, and return what they are."""
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
