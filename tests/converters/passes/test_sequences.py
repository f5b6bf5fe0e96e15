"""Lists of tensors and optional tensors become the tensors themselves, with the same values and names."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converters.passes.sequences import lower_sequences
from tests.converters.helpers import ops, run
from tests.converters.passes.rewriting import assert_same, assert_untouched, graph, rewritten, whole

NUMBERS = (
    "int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}, int64 last = {-1}, int64 first = {-3}, int64 two = {2},"
    " int64[3] parts = {1, 1, 2}, int64[2] halves = {2, 2}"
)
LISTS = {
    "SplitToSequence",
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceInsert",
    "SequenceErase",
    "SequenceAt",
}
LISTS |= {"SequenceLength", "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement"}
MADE = "s = SequenceConstruct(a, b, x)"


def listed(nodes: str, outputs: str = "double y", shape: str = "N,4") -> onnx.ModelProto:
    """Return the file; a and b are made of x (N, 4)."""
    return graph(f"(double[{shape}] x) => ({outputs}) <{NUMBERS}> {{ a = Neg(x) b = Mul(x, a) {nodes} }}")


# name: nodes
KNOWN = {
    "an item": f"{MADE} y = SequenceAt(s, i1)",
    "an item from the end": f"{MADE} y = SequenceAt(s, last)",
    "the first item from the end": f"{MADE} y = SequenceAt(s, first)",
    "an item that is read on": f"{MADE} t = SequenceAt(s, i0) y = Exp(t)",
    "the same item twice": f"{MADE} t = SequenceAt(s, i0) u = SequenceAt(s, first) y = Mul(t, u)",
    "a join": f"{MADE} y = ConcatFromSequence<axis = 1>(s)",
    "a join along the last axis": f"{MADE} y = ConcatFromSequence<axis = -1>(s)",
    "a join along a new axis": f"{MADE} y = ConcatFromSequence<axis = 1, new_axis = 1>(s)",
    "a join along a new last axis": f"{MADE} y = ConcatFromSequence<axis = -1, new_axis = 1>(s)",
    "a length": f"{MADE} n = SequenceLength(s) t = Cast<to = 11>(n) y = Mul(x, t)",
    "an insertion at the end": f"{MADE} t = SequenceInsert(s, b) y = ConcatFromSequence<axis = 1>(t)",
    "an insertion before": f"{MADE} t = SequenceInsert(s, b, i0) y = ConcatFromSequence<axis = 1>(t)",
    "an insertion before the last": f"{MADE} t = SequenceInsert(s, a, last) y = ConcatFromSequence<axis = 1>(t)",
    "an erasure at the end": f"{MADE} t = SequenceErase(s) y = ConcatFromSequence<axis = 1>(t)",
    "an erasure": f"{MADE} t = SequenceErase(s, i0) y = ConcatFromSequence<axis = 1>(t)",
    "an erasure from the end": f"{MADE} t = SequenceErase(s, first) y = ConcatFromSequence<axis = 1>(t)",
    "a list that goes two ways": (
        f"{MADE} t = SequenceErase(s, i0) u = SequenceInsert(s, b) p = ConcatFromSequence<axis = 1>(t)"
        " q = ConcatFromSequence<axis = 1>(u) r = ConcatFromSequence<axis = 1>(s) y = Concat<axis = 1>(p, q, r)"
    ),
    "a list that begins empty": (
        "e = SequenceEmpty<dtype = 11>() s = SequenceInsert(e, a) t = SequenceInsert(s, b, i0)"
        " y = ConcatFromSequence<axis = 1>(t)"
    ),
    "a split": "s = SplitToSequence<axis = 1>(x, parts) y = SequenceAt(s, i1)",
    "a split by a number": "s = SplitToSequence<axis = 1>(x, two) t = SequenceAt(s, i1) y = Exp(t)",
    "a split from the end": "s = SplitToSequence<axis = -1>(x, two) y = SequenceAt(s, last)",
    "a split into ones": "s = SplitToSequence<axis = 1>(x) y = SequenceAt(s, i2)",
    "a split into ones without the axis": "s = SplitToSequence<axis = 1, keepdims = 0>(x) y = SequenceAt(s, i2)",
    "keepdims beside sizes": "s = SplitToSequence<axis = 1, keepdims = 0>(x, parts) y = SequenceAt(s, i2)",
    "a split that is joined": (
        "s = SplitToSequence<axis = 1>(x, parts) t = SequenceInsert(s, a, i0) y = ConcatFromSequence<axis = 1>(t)"
    ),
    "items of a split that are picked by two numbers": (
        "s = SplitToSequence<axis = 1>(x, halves) t = SequenceAt(s, i1) u = SequenceAt(s, last) v = SequenceAt(s, i0)"
        " w = Mul(t, u) y = Mul(w, v)"
    ),
    "a split whose last part is smaller": (
        "c = Concat<axis = 1>(x, a, x) d = Slice(c, k0, k7, k1) s = SplitToSequence<axis = 1>(d, two)"
        " y = SequenceAt(s, last)"
    ),
    "an optional": "o = Optional(a) y = OptionalGetElement(o)",
    "an optional that may be there": (
        "o = Optional(a) h = OptionalHasElement(o) t = Cast<to = 11>(h) u = OptionalGetElement(o) y = Mul(u, t)"
    ),
    "a tensor that is asked for": "h = OptionalHasElement(a) t = Cast<to = 11>(h) y = Mul(x, t)",
    "nothing": "h = OptionalHasElement() t = Cast<to = 11>(h) y = Mul(x, t)",
}
SLICED = "int64[1] k0 = {0}, int64[1] k1 = {1}, int64[1] k7 = {7}"


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_list_is_its_items(name: str) -> None:
    file = listed(KNOWN[name])
    if "k0" in KNOWN[name]:
        file.graph.initializer.extend(
            helper.make_tensor(f"k{number}", TensorProto.INT64, [1], [number]) for number in (0, 1, 7)
        )
    made, found = rewritten(file, _until_done)
    assert found
    assert not ops(made).keys() & LISTS
    for samples in (1, 3):
        x = whole(samples, 4)
        np.testing.assert_array_equal(run(made, {"x": x})[0], run(file, {"x": x})[0])
        # The reference evaluator takes an optional tensor for a list.
        if "Optional(" not in KNOWN[name]:
            assert_same(file, made, {"x": x})


def _until_done(mutable) -> bool:
    """Apply the pass as `simplify` does: types are inferred again between rounds."""
    found = lower_sequences(mutable)
    mutable.remove_unused()
    mutable.infer_types()
    while lower_sequences(mutable):
        mutable.remove_unused()
        mutable.infer_types()
    return found


def test_items_that_are_outputs_keep_their_names() -> None:
    file = listed(
        "s = SplitToSequence<axis = 1>(x, parts) p = SequenceAt(s, i0) q = SequenceAt(s, i0) r = SequenceAt(s, last)",
        "double p, double q, double r",
    )
    made, _ = rewritten(file, lower_sequences)
    assert ops(made) == {"Split": 1, "Identity": 1}
    assert_same(file, made, {"x": whole(2, 4)})


def test_what_comes_of_a_list_keeps_its_origin() -> None:
    file = listed("s = SplitToSequence<axis = 1>(x, parts) y = ConcatFromSequence<axis = 1>(s)")
    for node in file.graph.node[-2:]:
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['{node.op_type}']")
    made, _ = rewritten(file, lower_sequences)
    assert {node.op_type: node.metadata_props[0].value for node in made.graph.node} == {
        "Split": "['SplitToSequence']",
        "Concat": "['ConcatFromSequence']",
    }


def test_a_list_that_is_read_in_another_way_stays_beside_its_items() -> None:
    file = listed(f"{MADE} y = SequenceAt(s, i1)", "double y, seq(double[N,4]) s")
    made, found = rewritten(file, lower_sequences)
    assert found and ops(made)["SequenceConstruct"] == 1 and "SequenceAt" not in ops(made)
    assert [info.name for info in made.graph.output] == ["y", "s"]


# name: (nodes, outputs)
STAYS = {
    "a computed position": (
        "n = Size(x) t = Sub(n, n) s = SequenceConstruct(a, b) y = SequenceAt(s, t)",
        "double y",
    ),
    "a position outside": ("s = SequenceConstruct(a, b) y = SequenceAt(s, i2)", "double y"),
    "a position before the first": ("s = SequenceConstruct(a, b) y = SequenceAt(s, first)", "double y"),
    "an insertion outside": (
        "s = SequenceConstruct(a) t = SequenceInsert(s, b, i2) y = ConcatFromSequence<axis = 1>(t)",
        "double y",
    ),
    "an erasure outside": (
        "s = SequenceConstruct(a) t = SequenceErase(s, i1) y = ConcatFromSequence<axis = 1>(t)",
        "double y",
    ),
    "a computed insertion": (
        "n = Size(x) t = Sub(n, n) s = SequenceConstruct(a) u = SequenceInsert(s, b, t)"
        " y = ConcatFromSequence<axis = 1>(u)",
        "double y",
    ),
    "a split of the samples": ("s = SplitToSequence<axis = 0>(x) y = SequenceAt(s, i0)", "double y"),
    "a split into computed sizes": (
        "n = Shape(x) t = Slice(n, k1, k2) s = SplitToSequence<axis = 1>(x, t) y = SequenceAt(s, i0)",
        "double y",
    ),
    "the length as an output": ("s = SequenceConstruct(a, b) n = SequenceLength(s)", "int64 n"),
    "a presence as an output": ("h = OptionalHasElement(a)", "bool h"),
    "a list that is the output": ("s = SequenceConstruct(a, b)", "seq(double[N,4]) s"),
    "an optional that is the output": ("o = Optional(a)", "optional(double[N,4]) o"),
    "an optional of nothing": ("o = Optional<type = double>() h = OptionalHasElement(o)", "bool h"),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_is_not_known_before_running_stays(name: str) -> None:
    nodes, outputs = STAYS[name]
    if name == "an optional of nothing":
        kind = helper.make_tensor_type_proto(TensorProto.DOUBLE, ["N", 4])
        file = listed("h = OptionalHasElement(a)", outputs)
        del file.graph.node[:]
        file.graph.node.extend(
            [
                helper.make_node("Optional", [], ["o"], type=kind),
                helper.make_node("OptionalHasElement", ["o"], ["h"]),
            ]
        )
    else:
        file = listed(nodes, outputs)
    if "k1" in nodes:
        file.graph.initializer.extend(
            helper.make_tensor(f"k{number}", TensorProto.INT64, [1], [number]) for number in (1, 2)
        )
    assert_untouched(file, lower_sequences)


def test_an_optional_input_may_be_empty() -> None:
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.DOUBLE, ["N", 4]))
    infos = [helper.make_value_info("o", kind), helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)]
    nodes = [
        helper.make_node("OptionalHasElement", ["o"], ["h"]),
        helper.make_node("Cast", ["h"], ["y"], to=TensorProto.DOUBLE),
        helper.make_node("OptionalGetElement", ["o"], ["z"]),
    ]
    outputs = [infos[1], helper.make_tensor_value_info("z", TensorProto.DOUBLE, None)]
    made = helper.make_graph(nodes, "g", infos[:1], outputs)
    assert_untouched(
        helper.make_model(made, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), lower_sequences
    )
