"""Ops that are said in other ops, calls of a model's own functions, loops over sizes, and codes of integers."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tools.audit.sketch import BATCH, Sketch
from tools.audit.values import DEFINED


def draw_lowered(sketch: Sketch) -> None:
    """One op that the canonical opset has not, or that runtimes do not compute."""
    kind = sketch.choose("TensorScatter", "CumProd", "Range", "AffineGrid", "LSTM", "GRU", "RNN")
    if kind == "TensorScatter":
        y = _tensor_scatter(sketch)
    elif kind == "CumProd":
        sketch.opsets[""] = 26
        axis = sketch.constant(np.asarray(sketch.choose(1, -1, 0), np.int64))
        flags = {"exclusive": sketch.choose(None, 1), "reverse": sketch.choose(None, 1)}
        y = str(sketch.add("CumProd", sketch.input(2, sketch.number(1, 5), 2), axis, **flags))
    elif kind == "Range":
        sketch.dtype = np.dtype(np.float16)
        sketch.opsets[""] = 27
        bounds = [
            sketch.floats(v) for v in sketch.choose((0, 5, 1), (1, 2, 0.25), (3, -1, -0.7), (0, 2000, 37))
        ]
        x = sketch.input(1)
        y = str(sketch.add("Add", str(sketch.add("Range", *bounds)), x))
    elif kind == "AffineGrid":
        axes = sketch.choose(2, 3)
        size = sketch.integers(2, 1, *(sketch.number(2, 4) for _ in range(axes)))
        theta = sketch.input(2, axes, axes + 1)
        y = str(sketch.add("AffineGrid", theta, size, align_corners=sketch.choose(None, 1)))
    else:
        y = _recurrent(sketch, kind)
    sketch.output(y)


def _tensor_scatter(sketch: Sketch) -> str:
    sketch.opsets[""] = 24
    length = sketch.number(1, 4)
    circular = sketch.chance(50)
    starts = [sketch.number(0, 3 if circular else 4 - length) for _ in range(2)]
    given = [sketch.integers(*starts)] if sketch.chance(70) else []
    cache, update = sketch.input(2, 2, 4, 3), sketch.input(2, 2, length, 3)
    mode = "circular" if circular else sketch.choose(None, "linear")
    return str(sketch.add("TensorScatter", cache, update, *given, axis=sketch.choose(None, 2), mode=mode))


def _recurrent(sketch: Sketch, kind: str) -> str:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    x = sketch.input(2, sketch.number(1, 3), 3)
    weights = [sketch.weight(1, gates * 2, size, flavour="ordinary") for size in (3, 2)]
    weights.append(sketch.weight(1, gates * 4, flavour="ordinary") if sketch.chance(60) else "")
    given = [x, *weights]
    if sketch.chance(40):
        given += ["", sketch.weight(2, 1, 2, flavour="ordinary")]
    while not given[-1]:
        given.pop()
    y, ends = sketch.add(kind, *given, outputs=2, hidden_size=2, layout=1)
    return str(sketch.add("Add", str(sketch.add("ReduceSum", y, sketch.integers(1), keepdims=0)), ends))


def draw_calls(sketch: Sketch) -> None:
    """One or two calls of a function of the model, with attributes, and one of a function that calls another."""
    sketch.opsets["own"] = 1
    versions = [helper.make_opsetid("", 23), helper.make_opsetid("own", 1)]
    scale = helper.make_node("Constant", [], ["alpha"])
    scale.attribute.append(onnx.AttributeProto(name="value_float", ref_attr_name="alpha", type=1))
    nodes = [
        scale,
        helper.make_node("CastLike", ["alpha", "a"], ["typed"]),
        helper.make_node("Mul", ["a", "typed"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
    ]
    sketch.functions = [
        helper.make_function("own", "Scaled", ["a", "b"], ["y"], nodes, versions, ["alpha"]),
        helper.make_function(
            "own",
            "Outer",
            ["a"],
            ["y", "z"],
            [
                helper.make_node("Scaled", ["a", "a"], ["m"], domain="own", alpha=0.5),
                helper.make_node("Tanh", ["m"], ["y"]),
                helper.make_node("Neg", ["y"], ["z"]),
            ],
            versions,
        ),
    ]
    y = sketch.input(2, 3)
    for _ in range(sketch.number(1, 3)):
        if sketch.chance(50):
            y, z = sketch.add("Outer", y, outputs=2, domain="own")
            sketch.leak(z, percent=50)
        else:
            y = str(
                sketch.add("Scaled", y, sketch.weight(3), domain="own", alpha=sketch.choose(1.0, 0.5, -3.0))
            )
    sketch.output(y)


def draw_sized_loops(sketch: Sketch) -> None:
    """A loop over the second axis of an input, whose size is free."""
    x = sketch.input(BATCH, "time", 2)
    sketch.notes["sizes"] = {BATCH: 2, "time": 3}
    kind = helper.np_dtype_to_tensor_dtype(sketch.dtype)
    step = [
        helper.make_node("Identity", ["alive"], ["alive_"]),
        helper.make_node("Gather", [x, "i"], ["now"], axis=1),
        helper.make_node(sketch.choose("Add", "Sub", "Max"), ["state", "now"], ["next"]),
        helper.make_node("Neg", ["next"], ["item"]),
    ]
    body = helper.make_graph(
        step,
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("alive", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", kind, None),
        ],
        [
            helper.make_tensor_value_info("alive_", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", kind, None),
            helper.make_tensor_value_info("item", kind, None),
        ],
    )
    trips = str(sketch.add("Gather", str(sketch.add("Shape", x)), sketch.constant(np.asarray(1, np.int64))))
    first = str(sketch.add("ReduceSum", x, sketch.integers(1), keepdims=0))
    sketch.output(*sketch.add("Loop", trips, "", first, outputs=2, body=body))


def draw_codes(sketch: Sketch) -> None:
    """Quantized numbers: pairs of QuantizeLinear and DequantizeLinear, moves of codes, products of integers."""
    sketch.notes[DEFINED] = True
    x = sketch.input(2, 3, 4)
    kind = sketch.choose(np.uint8, np.int8)
    y = _rounded(sketch, x, kind)
    for _ in range(sketch.number(0, 2)):
        step = sketch.choose("Relu", "MatMul", "again", "Add")
        if step == "MatMul":
            w = sketch.constant(sketch.rng.integers(-9, 9, (4, 4)).astype(np.int8))
            # The product of code and scale is exact, so that no code on the way to another lies between two.
            weight = sketch.add("DequantizeLinear", w, sketch.floats(sketch.choose(0.125, 2.0**-9, 1.0)))
            y = str(sketch.add("MatMul", y, str(weight)))
        elif step == "again":
            y = _rounded(sketch, y, kind)
        else:
            y = str(sketch.add(step, y, *([y] if step == "Add" else [])))
    sketch.output(_rounded(sketch, y, kind) if sketch.chance(50) else y)


def _grid(sketch: Sketch, kind: type) -> list[str]:
    return [
        sketch.floats(sketch.choose(0.125, 0.05, 1.0, 3e-3)),
        sketch.constant(np.asarray(sketch.choose(0, 3, 100), kind)),
    ]


def _rounded(sketch: Sketch, x: str, kind: type) -> str:
    grid = _grid(sketch, kind)
    codes = str(sketch.add("QuantizeLinear", x, *grid))
    if sketch.chance(40):
        codes = str(sketch.add("Transpose", codes, perm=[0, 2, 1]))
        codes = str(sketch.add("Transpose", codes, perm=[0, 2, 1]))
    return str(sketch.add("DequantizeLinear", codes, *(grid if sketch.chance(80) else _grid(sketch, kind))))


def draw_gates(sketch: Sketch) -> None:
    """Sigmoids among other functions."""
    y = sketch.input(2, 3)
    for _ in range(sketch.number(1, 4)):
        y = str(sketch.add(sketch.choose("Sigmoid", "Sigmoid", "Neg", "Tanh", "Exp"), y))
        sketch.leak(y, percent=30)
    sketch.output(y)
