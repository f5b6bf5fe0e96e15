"""Axes that a file declares badly: unknown sizes, shared symbols, shapes of computed tensors that are not true."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from analyzer import differentiate, integrated_gradients
from converters import UnsupportedModel, load
from converters.graph.fixed_point import settle
from converters.passes.input_axes import normalise_axes
from converters.passes.sizes import types_at
from tests.converters.helpers import Shape, make_model, normal, run

node = helper.make_node


def declared(model: onnx.ModelProto, name: str, shape: Shape | None) -> onnx.ModelProto:
    """A model whose output has this declared shape. A number below 1 is written as it is."""
    for info in model.graph.output:
        if info.name == name:
            info.CopyFrom(helper.make_tensor_value_info(name, info.type.tensor_type.elem_type, shape))
    return model


def shapes_of(model: onnx.ModelProto) -> dict[str, list[int | str | None]]:
    return {
        info.name: [
            axis.dim_value if axis.HasField("dim_value") else axis.dim_param or None
            for axis in info.type.tensor_type.shape.dim
        ]
        for info in (*model.graph.input, *model.graph.output)
    }


def image_model(batch: int | str | None, size: int | str | None) -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["p"]),
        node("Flatten", ["p"], ["y"]),
    ]
    return make_model(nodes, {"x": (batch, 3, size, size)}, ["y"], {"w": normal(4, 3, 3, 3)})


@pytest.mark.parametrize("unknown", [-1, 0, -7, "", "?", "None", "-1", "unk__12"])
def test_an_unknown_size_is_free_however_it_is_written(unknown: int | str) -> None:
    model = declared(image_model(unknown, unknown), "y", (unknown, 4))
    x = normal(3, 3, 6, 9)
    assert shapes_of(load(model).proto) == {"x": ["batch", 3, None, None], "y": ["batch", 4]}
    for samples in (1, 3):
        fn = differentiate(model)
        np.testing.assert_allclose(
            fn.forward(x[:samples])["y"], run(image_model("n", "s"), {"x": x[:samples]})[0], rtol=1e-5
        )
    ig = integrated_gradients(differentiate(model), x, target=1, steps=8)
    # y_1(x) is piecewise linear: its paths from zero are straight, and the sum is exact.
    np.testing.assert_allclose(
        ig.attributions.reshape(3, -1).sum(1), fn.forward(x)["y"][:, 1], rtol=1e-4, atol=1e-6
    )


def attention(first: Shape, second: Shape) -> onnx.ModelProto:
    """Scores of the steps of one sequence for those of another: (N, S, 4), (N, T, 4) to (N, S)."""
    nodes = [
        node("Transpose", ["b"], ["t"], perm=[0, 2, 1]),
        node("MatMul", ["a", "t"], ["scores"]),
        node("Softmax", ["scores"], ["weights"], axis=-1),
        node("MatMul", ["weights", "b"], ["read"]),
        node("ReduceSum", ["read", "last"], ["y"], keepdims=0),
    ]
    return make_model(nodes, {"a": first, "b": second}, ["y"], {"last": np.array([-1])})


def added(first: Shape, second: Shape) -> onnx.ModelProto:
    return make_model(
        [node("Add", ["a", "b"], ["s"]), node("Tanh", ["s"], ["y"])], {"a": first, "b": second}, ["y"]
    )


def graph_network(nodes_axis: int | str, edges_axis: int | str) -> onnx.ModelProto:
    """x (nodes, 3), edges (edges, 2) to (nodes, 3): each node plus the sum of its neighbours."""
    nodes = [
        node("Gather", ["edges", "zero"], ["source"], axis=1),
        node("Slice", ["edges", "one", "two", "one"], ["sink"]),
        node("Gather", ["x", "source"], ["sent"]),
        node("ScatterND", ["x", "sink", "sent"], ["y"], reduction="add"),
    ]
    constants = {"zero": np.array(0), "one": np.array([1]), "two": np.array([2])}
    shapes: dict[str, Sequence[int | str | None]] = {"x": (nodes_axis, 3), "edges": (edges_axis, 2)}
    return make_model(nodes, shapes, ["y"], constants, integers=["edges"])


@pytest.mark.parametrize(
    "model, expected",
    [
        # One symbol for a batch and for sizes that have nothing to do with it.
        (image_model("n", "n"), {"x": ["n", 3, "x_2", "x_3"]}),
        # A batch symbol per input; one symbol for the lengths of two sequences.
        (attention(("p", "s", 4), ("q", "s", 4)), {"a": ["p", "s", 4], "b": ["p", "a_1", 4]}),
        (added(("p", "s"), ("q", "s")), {"a": ["p", "s"], "b": ["p", "s"]}),
        # Nodes and edges are two sizes, also where neither has a name.
        (graph_network("n", "n"), {"x": ["x_0", 3], "edges": ["n", 2]}),
        (graph_network(-1, -1), {"x": ["x_0", 3], "edges": ["edges_0", 2]}),
        (graph_network("nodes", "edges"), {"x": ["nodes", 3], "edges": ["edges", 2]}),
    ],
    ids=["image", "attention", "sum", "graph-one-symbol", "graph-unknown", "graph"],
)
def test_axes_share_a_symbol_where_they_share_a_size(
    model: onnx.ModelProto, expected: dict[str, list[int | str | None]]
) -> None:
    found = shapes_of(normalise_axes(model))
    assert _classes({name: found[name] for name in expected}) == _classes(expected)


def _classes(shapes: dict[str, list[int | str | None]]) -> list[object]:
    """Shapes with their symbols numbered by their first use: which axes share one, whatever it is called."""
    numbers: dict[str, str] = {}
    return [
        numbers.setdefault(size, f"#{len(numbers)}") if isinstance(size, str) else size
        for shape in shapes.values()
        for size in shape
    ]


def test_sequences_of_two_lengths_under_one_symbol_are_attributed() -> None:
    model = attention(("n", "s", 4), ("n", "s", 4))
    feeds = {"a": normal(2, 3, 4), "b": normal(2, 5, 4)}
    fn = differentiate(model)
    np.testing.assert_allclose(fn.forward(feeds)["y"], run(model, feeds)[0], rtol=1e-5)
    found = fn.gradients(feeds, target=1).gradients
    assert {name: array.shape for name, array in found.items()} == {"a": (2, 3, 4), "b": (2, 5, 4)}


def test_two_towers_keep_the_batch_that_they_declare() -> None:
    nodes = [node("Relu", ["a"], ["first"]), node("Tanh", ["b"], ["second"])]
    model = make_model(nodes, {"a": ("n", 2), "b": ("n", 3)}, ["first", "second"])
    assert shapes_of(normalise_axes(model))["b"][0] == "n"


def test_a_false_output_shape_gives_way_to_the_computed_one_with_a_warning() -> None:
    nodes = [node("Transpose", ["x"], ["t"], perm=[2, 0, 1]), node("Relu", ["t"], ["y"])]
    model = declared(make_model(nodes, {"x": (2, 4, "width")}, ["y"]), "y", (1, "length"))
    with pytest.warns(UserWarning, match=r"\(1, length\).*'y'.*\(width, 2, 4\)"):
        loaded = load(model)
    x = normal(2, 4, 7)
    values = differentiate(loaded).forward(x)["y"]
    np.testing.assert_array_equal(values, np.maximum(x.transpose(2, 0, 1), 0))


def test_a_false_shape_within_the_graph_does_not_decide_a_reshape() -> None:
    nodes = [
        node("Relu", ["x"], ["r"]),
        node("Shape", ["r"], ["size"]),
        node("Gather", ["size", "one"], ["wide"], axis=0),
        node("Concat", ["minus", "wide"], ["target"], axis=0),
        node("Reshape", ["r", "target"], ["y"]),
    ]
    model = make_model(nodes, {"x": ("n", 6)}, ["y"], {"one": np.array([1]), "minus": np.array([-1])})
    model.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, ("n", 3)))
    x = normal(2, 6)
    assert differentiate(load(model)).forward(x)["y"].shape == (2, 6)


@pytest.mark.parametrize("stated", [(9, 7), (9, "n"), (7,), ("n", "t", 1)])
def test_a_stated_shape_that_is_false_in_one_place_is_not_used_in_another(
    stated: tuple[int | str, ...],
) -> None:
    nodes = [
        node("Neg", ["x"], ["r"]),
        node("Shape", ["x"], ["size"], start=0, end=1),
        node("Concat", ["size", "minus"], ["target"], axis=0),
        node("Reshape", ["r", "target"], ["y"]),
    ]
    model = make_model(nodes, {"x": ("n", "t", 2)}, ["y"], {"minus": np.array([-1])})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = load(declared(model, "y", stated))
    x = normal(2, 3, 2)
    np.testing.assert_array_equal(differentiate(loaded).forward(x)["y"], -x.reshape(2, 6))


def test_a_stated_shape_fills_in_what_cannot_be_computed() -> None:
    nodes = [node("NonZero", ["x"], ["found"]), node("Cast", ["found"], ["y"], to=TensorProto.FLOAT)]
    model = declared(make_model(nodes, {"x": (4, 3)}, ["y"]), "y", (2, "found"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shapes_of(load(model).proto)["y"] == [2, "found"]


def test_shapes_that_depend_on_the_data_settle() -> None:
    """A size that NonZero gives, expanded to a target that holds it again: each round renames the symbol."""
    nodes = [
        node("NonZero", ["x"], ["nz"]),
        node("Transpose", ["nz"], ["rows"], perm=[1, 0]),
        node("Cast", ["rows"], ["data"], to=TensorProto.FLOAT),
        node("Shape", ["data"], ["size"]),
        node("Equal", ["size", "minus"], ["free"]),
        node("Where", ["free", "ones", "size"], ["target"]),
        node("Expand", ["data", "target"], ["one"]),
        node("Shape", ["one"], ["again"]),
        node("Max", ["again", "ones"], ["least"]),
        node("Concat", ["count", "again"], ["longer"], axis=0),
        node("Expand", ["one", "longer"], ["two"]),
        node("Expand", ["two", "again"], ["three"]),
        node("ReduceSum", ["three"], ["y"], keepdims=0),
    ]
    constants = {"minus": np.array([-1]), "ones": np.array([1, 1]), "count": np.array([5])}
    model = make_model(nodes, {"x": ("n", 6)}, ["y"], constants)
    known = types_at(model, {"x": (2, 6)})
    assert known["two"].tensor_type.shape.dim[0].dim_value == 5


def test_a_rewriting_that_never_ends_is_an_error() -> None:
    with pytest.raises(UnsupportedModel, match="128 rounds"):
        settle(lambda: True)
    left = iter([True, True, False])
    settle(lambda: next(left))
