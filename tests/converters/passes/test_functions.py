"""Ops that the standard defines by others, and ops newer than the canonical opset, become what is known."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.loader import load_model_tests

from analyzer import Target, differentiate
from analyzer.ops import registered
from converters import UnsupportedModel, canonicalise, load
from converters.graph.runtime import Session
from converters.passes.functions import EXPANDED
from tests.converters.helpers import make_model, normal, ops, run

# Ops with a body in the standard that nobody expands, and why.
LEFT_WHOLE = {"AffineGrid": "lowered by a rule of its own"}
# ONNX Runtime has no arithmetic in bfloat16 on the CPU; expanded tests do not hold the op.
SKIPPED = ("bf16", "bfloat16", "expanded")


@cache
def official(op_type: str) -> tuple[Any, ...]:
    """The standard's own tests of one op."""
    return tuple(
        case
        for case in _node_tests()
        if case.model.graph.node[0].op_type == op_type and not any(word in case.name for word in SKIPPED)
    )


@cache
def _node_tests() -> tuple[Any, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(load_model_tests(kind="node"))


def _array(value: onnx.TensorProto | np.ndarray) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def test_every_op_with_a_body_is_expanded_or_known_to_the_analyzer() -> None:
    newest = {
        name: onnx.defs.get_schema(name)
        for name in {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    }
    bodies = {n for n, s in newest.items() if s.has_function or s.has_context_dependent_function}
    known = {name for domain, name in registered() if domain == ""}
    assert bodies <= EXPANDED | known | LEFT_WHOLE.keys()
    assert not (EXPANDED | LEFT_WHOLE.keys()) & known
    assert bodies >= EXPANDED


@pytest.mark.parametrize("op_type", sorted((EXPANDED | {"TensorScatter", "Range"}) - {"SequenceMap"}))
def test_the_standards_own_tests_pass_on_the_canonical_form(op_type: str) -> None:
    cases = official(op_type)
    assert cases
    for case in cases:
        model = canonicalise(case.model)
        assert op_type not in ops(model) or op_type == "Range"
        session = Session(model)
        for inputs, outputs in case.data_sets:
            given = [_array(value) for value in inputs]
            feeds = dict(zip((info.name for info in case.model.graph.input), given, strict=True))
            rough = any(array.dtype == np.float16 for array in given) or "softmax_precision" in case.name
            for value, stated in zip(session.run(feeds), outputs, strict=True):
                expected = _array(stated)
                assert value.dtype == expected.dtype
                np.testing.assert_allclose(
                    value,
                    expected,
                    rtol=2e-3 if rough else 1e-4,
                    atol=2e-3 if rough else 1e-5,
                    err_msg=case.name,
                )


def test_attention_of_a_symbolic_batch_computes_no_shape_while_running() -> None:
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=4, kv_num_heads=2, is_causal=1)
    shapes = {"q": ("n", 5, 32), "k": ("n", 5, 16), "v": ("n", 5, 16)}
    found = ops(canonicalise(make_model([node], shapes, ["y"])))
    assert not found.keys() & {"Shape", "If", "Range", "ConstantOfShape", "Equal", "Mod"}


def test_attention_of_symbolic_lengths_gives_what_the_op_gives() -> None:
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=4, kv_num_heads=2, is_causal=1)
    model = make_model([node], {"q": ("n", "t", 32), "k": ("n", "s", 16), "v": ("n", "s", 16)}, ["y"])
    canonical = canonicalise(model)
    for batch, length, keys in ((1, 4, 4), (3, 2, 6)):
        feeds = {
            "q": normal(batch, length, 32),
            "k": normal(batch, keys, 16, seed=1),
            "v": normal(batch, keys, 16, seed=2),
        }
        np.testing.assert_allclose(run(canonical, feeds)[0], run(model, feeds)[0], rtol=1e-4, atol=1e-5)


def test_the_expanded_nodes_keep_the_output_and_the_layer_they_come_from() -> None:
    node = helper.make_node("Swish", ["x"], ["y"], alpha=1.5)
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'gate']")
    model = canonicalise(
        make_model([node, helper.make_node("Neg", ["y"], ["z"])], {"x": ("n", 3)}, ["z"], opset=24)
    )
    assert "y" in {name for n in model.graph.node for name in n.output}
    scoped = [n.op_type for n in model.graph.node if any(e.value == "['', 'gate']" for e in n.metadata_props)]
    assert sorted(scoped) == ["Mul", "Mul", "Sigmoid"]


def test_an_affine_grid_of_known_size_is_one_product() -> None:
    node = helper.make_node("AffineGrid", ["theta", "size"], ["y"])
    model = make_model([node], {"theta": ("n", 2, 3)}, ["y"], {"size": np.array([1, 3, 4, 5])})
    canonical = canonicalise(model)
    assert ops(canonical) == {"MatMul": 1, "Transpose": 1, "Reshape": 1}
    identity = np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1))
    grid = run(canonical, {"theta": identity})[0]
    # Of 5 columns of width 2/5 the first has its centre at -0.8; of 4 rows the last at 0.75.
    np.testing.assert_allclose(grid[1, -1, 0], [-0.8, 0.75], rtol=1e-6)
    np.testing.assert_allclose(
        run(model, {"theta": normal(1, 2, 3)})[0],
        run(canonical, {"theta": normal(1, 2, 3)})[0],
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("sizes", [("h", "w"), (4, "w"), (4, 1), (2, "h", 3)])
def test_an_affine_grid_takes_the_size_of_an_image(sizes: tuple[int | str, ...], aligned: int) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["size"]),
        helper.make_node("AffineGrid", ["theta", "size"], ["y"], align_corners=aligned),
    ]
    rank = len(sizes)
    inputs = {"theta": ("n", rank, rank + 1), "x": ("n", 1, *sizes)}
    model = canonicalise(make_model(nodes, inputs, ["y"]))
    assert "AffineGrid" not in ops(model)
    theta = normal(2, rank, rank + 1)
    image = normal(2, 1, *[size if isinstance(size, int) else 5 for size in sizes])
    expected = torch.nn.functional.affine_grid(torch.tensor(theta), list(image.shape), bool(aligned))
    np.testing.assert_allclose(run(model, {"theta": theta, "x": image})[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"reverse": 1}, {"exclusive": 1}, {"reverse": 1, "exclusive": 1}])
def test_cumulative_products_in_every_direction(options: dict[str, int]) -> None:
    node = helper.make_node("CumProd", ["x", "axis"], ["y"], **options)
    model = canonicalise(make_model([node], {"x": ("n", 5)}, ["y"], {"axis": np.array(1)}, opset=26))
    x = normal(2, 5)
    x[0, 2] = 0
    expected = np.cumprod(x[:, ::-1] if "reverse" in options else x, axis=1)
    if "exclusive" in options:
        expected = np.concatenate([np.ones((2, 1), np.float32), expected[:, :-1]], axis=1)
    expected = expected[:, ::-1] if "reverse" in options else expected
    np.testing.assert_allclose(run(model, {"x": x})[0], expected, rtol=1e-6)


def test_what_no_canonical_op_can_say_is_refused_by_name() -> None:
    node = helper.make_node("BitCast", ["x"], ["y"], to=TensorProto.INT32)
    with pytest.raises(UnsupportedModel, match=r"BitCast of opset 26 .* with opset"):
        canonicalise(make_model([node], {"x": ("n", 4)}, ["y"], opset=26))


NEWER: dict[str, tuple[onnx.NodeProto, dict[str, tuple[int, ...]], dict[str, np.ndarray], int]] = {
    "Swish": (helper.make_node("Swish", ["x"], ["y"], alpha=1.5), {"x": (2, 3)}, {}, 24),
    "TensorScatter": (
        helper.make_node("TensorScatter", ["x", "u", "at"], ["y"], axis=1),
        {"x": (2, 5, 3), "u": (2, 2, 3)},
        {"at": np.array([3, 0])},
        24,
    ),
    "Attention of a window": (
        helper.make_node(
            "Attention",
            ["x", "k", "v"],
            ["y"],
            q_num_heads=2,
            kv_num_heads=2,
            is_causal=1,
            left_window_size=1,
        ),
        {"x": (2, 4, 6), "k": (2, 4, 6), "v": (2, 4, 6)},
        {},
        25,
    ),
    "Attention that masks a row altogether": (
        helper.make_node("Attention", ["x", "k", "v", "mask"], ["y"], q_num_heads=2, kv_num_heads=2),
        {"x": (2, 3, 6), "k": (2, 4, 6), "v": (2, 4, 6)},
        {"mask": np.array([[True, True, False, True], [False] * 4, [True] * 4])},
        23,
    ),
    "Attention whose mask is given": (
        helper.make_node(
            "Attention", ["x", "k", "v", "mask"], ["y"], q_num_heads=2, kv_num_heads=2, is_causal=1
        ),
        {"x": (2, 3, 6), "k": (2, 3, 6), "v": (2, 3, 6), "mask": (2, 1, 3, 3)},
        {},
        24,
    ),
    "CumProd": (helper.make_node("CumProd", ["x", "axis"], ["y"]), {"x": (2, 5)}, {"axis": np.array(1)}, 26),
    "CausalConvWithState": (
        helper.make_node("CausalConvWithState", ["x", "w"], ["y", "state"], activation="silu"),
        {"x": (2, 3, 6)},
        {"w": normal(3, 1, 4)},
        27,
    ),
    "LinearAttention": (
        helper.make_node(
            "LinearAttention",
            ["x", "k", "v", "", "decay"],
            ["y", "state"],
            q_num_heads=2,
            kv_num_heads=2,
            update_rule="gated",
        ),
        {"x": (2, 3, 8), "k": (2, 3, 8), "v": (2, 3, 8), "decay": (2, 3, 8)},
        {},
        27,
    ),
    "SwiGLU": (helper.make_node("SwiGLU", ["x", "b"], ["y"]), {"x": (2, 3), "b": (2, 3)}, {}, 28),
    "SpaceToDepth by columns": (
        helper.make_node("SpaceToDepth", ["x"], ["y"], blocksize=2, mode="CRD"),
        {"x": (2, 3, 4, 4)},
        {},
        28,
    ),
}


@pytest.mark.parametrize("name", NEWER)
def test_newer_ops_differentiate(name: str) -> None:
    """The gradient graph, in float32 on ONNX Runtime, against central differences in float64 on torch's forms."""
    node, shapes, constants, opset = NEWER[name]
    open_batch = {key: ("n", *shape[1:]) for key, shape in shapes.items()}
    model = load(make_model([node], open_batch, ["y"], constants, opset=opset))
    exact = differentiate(model, backend="torch", precision="float64")
    feeds = {key: normal(*shape, seed=i) for i, (key, shape) in enumerate(shapes.items())}
    weights = normal(*exact.forward(feeds)["y"].shape, seed=9)
    found = differentiate(model, backend="onnxruntime").gradients(feeds, Target(weights=weights)).gradients
    for key, x in feeds.items():
        direction = normal(*x.shape, seed=5)
        ahead, behind = (
            (exact.forward({**feeds, key: x.astype(np.float64) + step * direction})["y"] * weights).sum()
            for step in (1e-4, -1e-4)
        )
        np.testing.assert_allclose(
            (found[key] * direction).sum(), (ahead - behind) / 2e-4, rtol=1e-3, atol=1e-4
        )
