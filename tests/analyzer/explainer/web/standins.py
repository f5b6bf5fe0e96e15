"""Explainer files written node by node, with the names and the metadata that `export_explainer` gives.

They hold the FullGrad program of a network, between a resizing of pixels and of the map, so that the page is tested on
files that are made apart from the exporter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from analyzer.autodiff.request import CHOSEN, OUTPUT, full_program
from analyzer.backends import differentiate
from analyzer.explainer.description import EXPLAINER_KEY
from analyzer.methods.full_grad import PUBLISHED
from analyzer.methods.full_gradient.decomposition import Settings, plan
from converters.model import Preprocessing, set_metadata


def photo_explainer(model: Any, preprocessing: Preprocessing, names: Sequence[str]) -> onnx.ModelProto:
    """FullGrad of a classifier of images (1, 3, H, W), from pixels to maps; both sides are resized."""
    height, width = preprocessing.size
    fn = differentiate(model)
    program, made, given, logits = _full_grad(fn, np.zeros((1, 3, height, width), np.float32))
    proto = program.proto
    result = program.outputs
    totals = [result[f"sum/{name}"] for name in made.layout.placements]
    constants = {
        "std/size": np.array([1, 3, height, width]),
        "std/scale": np.float32(255),
        "std/mean": np.reshape(preprocessing.mean, (1, 3, 1, 1)).astype(np.float32),
        "std/std": np.reshape(preprocessing.std, (1, 3, 1, 1)).astype(np.float32),
    }
    node = helper.make_node
    before = [
        node("Cast", ["image"], ["std/float"], to=TensorProto.FLOAT),
        node("Div", ["std/float", "std/scale"], ["std/unit"]),
        node("Transpose", ["std/unit"], ["std/planes"], perm=[0, 3, 1, 2]),
        node("Resize", ["std/planes", "", "", "std/size"], ["std/resized"], mode="linear"),
        node("Sub", ["std/resized", "std/mean"], ["std/centred"]),
        node("Div", ["std/centred", "std/std"], [given]),
    ]
    after = [
        node("Shape", ["image"], ["std/own"], start=1, end=3),
        node("Constant", [], ["std/one"], value_ints=[1, 1]),
        node("Concat", ["std/one", "std/own"], ["std/target size"], axis=0),
        *_resized(result[f"map/{given}"], "map"),
        *_resized(result[f"complete map/{given}"], "complete_map"),
        *_ends(program, totals),
    ]
    shape: list[Any] = ["batch", "height", "width", 3]
    inputs = [_port("image", "image", shape, "uint8"), _TARGET]
    outputs = [
        _port(logits, "output", ["batch", len(names)], "float32", explains=True),
        _port("map", "map", ["batch", "height", "width"], "float32", of=given),
        _port("complete_map", "complete_map", ["batch", "height", "width"], "float32", of=given),
        *_SUMS,
    ]
    return _file(
        proto, [*before, *proto.graph.node, *after], constants, inputs, outputs, names, preprocessing
    )


def text_explainer(model: Any, ids: np.ndarray, names: Sequence[str]) -> onnx.ModelProto:
    """FullGrad of a classifier of token ids (1, T), at the embedding."""
    fn = differentiate(model)
    program, made, given, logits = _full_grad(fn, ids, "embedding")
    proto, result = program.proto, program.outputs
    totals = [result[f"sum/{name}"] for name in made.layout.placements]
    node = helper.make_node
    after = [
        node("Identity", [result[f"map/{given}"]], ["map"]),
        node("Identity", [result[f"complete map/{given}"]], ["complete_map"]),
        *_ends(program, totals),
    ]
    own = proto.graph.input[0].name if proto.graph.input[0].name != "target" else proto.graph.input[1].name
    inputs = [_port(own, "model", ["batch", ids.shape[1]], "int64"), _TARGET]
    outputs = [
        _port(logits, "output", ["batch", len(names)], "float32", explains=True),
        _port("map", "map", ["batch", "tokens"], "float32", of=given),
        _port("complete_map", "complete_map", ["batch", "tokens"], "float32", of=given),
        *_SUMS,
    ]
    return _file(proto, [*proto.graph.node, *after], {}, inputs, outputs, names, None)


def _full_grad(fn: Any, example: np.ndarray, wrt: str | None = None) -> tuple[Any, Any, str, str]:
    bound = fn.bind(example, None)
    roots = fn.roots(wrt)
    made = plan(bound, Settings(bound.seed.outputs, roots, False, PUBLISHED))
    program = full_program(bound.fn.graph, made.request, bound.seed.output, weights=False)
    return program, made, roots[0], bound.seed.output


def _resized(tensor: str, name: str) -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        node("Constant", [], [f"std/axis {name}"], value_ints=[1]),
        node("Unsqueeze", [tensor, f"std/axis {name}"], [f"std/plane {name}"]),
        node(
            "Resize", [f"std/plane {name}", "", "", "std/target size"], [f"std/large {name}"], mode="linear"
        ),
        node("Squeeze", [f"std/large {name}", f"std/axis {name}"], [name]),
    ]


def _ends(program: Any, totals: Sequence[str]) -> list[onnx.NodeProto]:
    """The explained score, its class, and the relative error of the terms' sum."""
    node = helper.make_node
    explained, chosen = program.outputs[OUTPUT], program.outputs[CHOSEN]
    return [
        *(node("Cast", [name], [f"std/cast {name}"], to=TensorProto.DOUBLE) for name in totals),
        node("Sum", [f"std/cast {name}" for name in totals], ["std/double"]),
        node("Cast", ["std/double"], ["std/total"], to=TensorProto.FLOAT),
        node("Sub", ["std/total", explained], ["std/short"]),
        node("Abs", ["std/short"], ["std/absolute"]),
        node("Abs", [explained], ["std/size of score"]),
        node("Div", ["std/absolute", "std/size of score"], ["completeness_error"]),
        node("Identity", [explained], ["explained"]),
        node("Cast", [chosen], ["explained_target"], to=TensorProto.INT64),
    ]


def _port(name: str, role: str, shape: list[Any], dtype: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "role": role, "shape": shape, "type": dtype, "meaning": role, **more}


_TARGET = _port("target", "target", ["targets"], "int64", optional=True, default=[-1])
_SUMS = [
    _port("explained", "explained", ["batch"], "float32"),
    _port("explained_target", "explained_target", ["batch"], "int64"),
    _port("completeness_error", "completeness_error", ["batch"], "float32"),
]
_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8}


def _file(
    proto: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Any],
    inputs: Sequence[dict[str, Any]],
    outputs: Sequence[dict[str, Any]],
    names: Sequence[str],
    preprocessing: Preprocessing | None,
) -> onnx.ModelProto:
    info = lambda port: helper.make_tensor_value_info(port["name"], _TYPES[port["type"]], port["shape"])  # noqa: E731
    # The program itself is of one sample; only its names are those of the contract.
    inferred = [onnx.ValueInfoProto(name=port["name"]) for port in outputs]
    for one, port in zip(inferred, outputs, strict=True):
        one.type.tensor_type.elem_type = _TYPES[port["type"]]
    graph = helper.make_graph(
        list(nodes),
        "explainer",
        [info(port) for port in inputs],
        inferred,
        [
            *proto.graph.initializer,
            *(numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()),
            numpy_helper.from_array(np.array([-1]), "target"),
        ],
    )
    found = helper.make_model(graph, opset_imports=list(proto.opset_import), ir_version=10)
    stored = {
        "format": 1, "method": "full-grad", "caption": "FullGrad", "settings": {"terms": "all"}, "signed": False,
        "onnxplain": "0", "model_sha256": "0" * 64, "opset": 21, "precision": "float32", "sum_of": "output",
        "inputs": list(inputs), "outputs": list(outputs),
    }  # fmt: skip
    set_metadata(found, preprocessing, list(names))
    helper.set_model_props(
        found,
        {**{one.key: one.value for one in found.metadata_props}, "onnxplain.explainer": json.dumps(stored)},
    )
    return found


def described(change: Callable[[dict[str, Any]], object]) -> Callable[[onnx.ModelProto], None]:
    """Return a function that changes the stored description of a model."""

    def apply(proto: onnx.ModelProto) -> None:
        (entry,) = (one for one in proto.metadata_props if one.key == EXPLAINER_KEY)
        stored = json.loads(entry.value)
        change(stored)
        entry.value = json.dumps(stored)

    return apply
