"""Try models of one node on the WebGPU provider: which (op, version, types) it takes, and which stay on the CPU.

The models are the standard's node tests at every opset from 17, with their types replaced, and further ones where the
tests have few types.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import onnx
from onnx import TensorProto, helper
from onnx.backend.test.loader import load_model_tests

from analyzer.errors import ExportError
from analyzer.explainer.runtimes.opset import at_opset

OPSETS = range(17, 26)
TYPES = tuple(
    getattr(TensorProto, name) for name in ("FLOAT", "FLOAT16", "INT32", "INT64", "UINT32", "BOOL", "UINT8")
)
Probe = tuple[str, int, str, onnx.ModelProto]

_UNARY = (
    "Abs",
    "Ceil",
    "Identity",
    "Neg",
    "Not",
    "Relu",
    "Round",
    "Sign",
    "Softsign",
    "Sqrt",
    "Transpose",
    "Flatten",
)
_BINARY = ("Add", "Div", "Max", "Mean", "Min", "Mod", "Mul", "Pow", "Sub", "Sum", "MatMul")
_LOGIC = ("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor")
_INT64 = TensorProto.INT64


def placements() -> Iterator[tuple[str, int, str, bool]]:
    """Give (op, since version, "input type>output type", whether the node runs on WebGPU) of every model that loads."""
    seen = set()
    for op_type, since, pair, model in (*_from_node_tests(), *_of_further_types()):
        key = model.SerializeToString()
        if key in seen:
            continue
        seen.add(key)
        with suppress(Exception):  # a model that no provider takes tells nothing
            yield op_type, since, pair, _on_gpu(model)


def _on_gpu(model: onnx.ModelProto) -> bool:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers = ["WebGpuExecutionProvider", "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    if session.get_providers()[0] != providers[0]:
        raise SystemExit(
            "expected a Vulkan device for the WebGPU provider, found none. Fix: set VK_ICD_FILENAMES"
        )
    return all(part.ep_name != providers[1] for part in session.get_provider_graph_assignment_info())


def _from_node_tests() -> Iterator[Probe]:
    for case in load_model_tests(kind="node"):
        model = case.model
        infos = (*model.graph.input, *model.graph.output)
        if len(model.graph.node) != 1 or model.graph.node[0].domain:
            continue
        if all(info.type.WhichOneof("value") == "tensor_type" for info in infos):
            for opset in OPSETS:
                lowered = _labelled(model, opset)
                if lowered is not None:
                    yield from _retyped(lowered, opset)


def _labelled(model: onnx.ModelProto, opset: int) -> onnx.ModelProto | None:
    """A node test at another opset, None where it has no form of one node there."""
    version, node = model.opset_import[0].version, model.graph.node[0]
    if version < OPSETS[0]:
        with suppress(onnx.defs.SchemaError):
            schemas = [onnx.defs.get_schema(node.op_type, one).since_version for one in (version, opset)]
            if schemas[0] == schemas[1]:
                twin = onnx.ModelProto()
                twin.CopyFrom(model)
                twin.opset_import[0].version, twin.ir_version = opset, 8
                return twin
        return None
    with suppress(ExportError):
        lowered = at_opset(model, opset)
        return lowered if len(lowered.graph.node) == 1 else None
    return None


def _retyped(model: onnx.ModelProto, opset: int) -> Iterator[Probe]:
    """A model as it is, and with its float32 tensors, or its int64 ones, of other types."""
    node = model.graph.node[0]
    since = onnx.defs.get_schema(node.op_type, opset).since_version
    for old, new in ((0, 0), *((TensorProto.FLOAT, kind) for kind in TYPES), (_INT64, TensorProto.INT32)):
        twin = onnx.ModelProto()
        twin.CopyFrom(model)
        for info in (*twin.graph.input, *twin.graph.output):
            if info.type.tensor_type.elem_type == old:
                info.type.tensor_type.elem_type = new
        yield node.op_type, since, _pair(twin), twin


def _of_further_types() -> Iterator[Probe]:
    two, square = [2, 3], [3, 3]
    for opset in OPSETS:
        for kind in TYPES:
            for op_type in _UNARY:
                yield _probe(op_type, opset, [(kind, two)], kind)
            for op_type in _BINARY:
                yield _probe(op_type, opset, [(kind, square)] * 2, kind)
            for op_type in _LOGIC:
                yield _probe(op_type, opset, [(kind, two)] * 2, TensorProto.BOOL)
            for to in TYPES:
                yield _probe("Cast", opset, [(kind, two)], to, to=to)
            yield _probe("Where", opset, [(TensorProto.BOOL, two), (kind, two), (kind, two)], kind)
            yield _probe("Concat", opset, [(kind, two)] * 2, kind, axis=0)
            for op_type in ("Expand", "Reshape", "Tile", "Gather"):
                yield _probe(op_type, opset, [(kind, two), (_INT64, [2])], kind)
            for op_type in ("Squeeze", "Unsqueeze", "ReduceSum"):
                yield _probe(op_type, opset, [(kind, [1, 3]), (_INT64, [1])], kind)
            yield _probe("Slice", opset, [(kind, two), (_INT64, [1]), (_INT64, [1])], kind)
            yield _probe("GatherElements", opset, [(kind, two), (_INT64, two)], kind)
            yield _probe("CumSum", opset, [(kind, two), (_INT64, [])], kind)
            yield _probe("Range", opset, [(kind, [])] * 3, kind)
            yield _probe("Clip", opset, [(kind, two), (kind, []), (kind, [])], kind)
            for reduction in ("none", "add"):
                inputs = [(kind, two), (_INT64, two), (kind, two)]
                yield _probe("ScatterElements", opset, inputs, kind, reduction=reduction)
                yield _probe(
                    "ScatterND", opset, [inputs[0], (_INT64, [2, 1]), inputs[2]], kind, reduction=reduction
                )
            yield _probe("Einsum", opset, [(kind, square)] * 2, kind, equation="ij,jk->ik")


def _probe(
    op_type: str, opset: int, inputs: Sequence[tuple[int, Sequence[int]]], output: int, **attributes: object
) -> Probe:
    names = [f"x{index}" for index in range(len(inputs))]
    infos = [helper.make_tensor_value_info(name, *one) for name, one in zip(names, inputs, strict=True)]
    result = helper.make_tensor_value_info("y", output, None)
    graph = helper.make_graph(
        [helper.make_node(op_type, names, ["y"], **attributes)], "probe", infos, [result]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return op_type, onnx.defs.get_schema(op_type, opset).since_version, _pair(model), model


def _pair(model: onnx.ModelProto) -> str:
    """The types of the first input and the first output."""
    first = [
        infos[0].type.tensor_type.elem_type if infos else 0
        for infos in (model.graph.input, model.graph.output)
    ]
    return ">".join(TensorProto.DataType.Name(kind).lower() if kind else "" for kind in first)
