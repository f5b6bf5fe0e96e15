"""Nodes are written as if by calling functions, whether tensors are names (Expander) or records (Builder)."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from onnx import helper, numpy_helper, parser

from analyzer.errors import MissingDependency
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from converters.graph.expansion import Expander
from converters.graph.mutable import MutableGraph
from converters.sources.frameworks import import_framework

MODEL = '<ir_version: 10, opset_import: ["": 23]> g (float[n,3] x) => (float[n,3] y) { y = Relu(x) }'


def expander() -> Expander:
    draft = MutableGraph(parser.parse_model(MODEL))
    return Expander(draft, draft.nodes[0])


def test_omitted_inputs_at_the_end_and_attributes_that_are_none_are_left_out():
    names, records = expander(), Builder(23)
    names.Clip("x", None, None)
    names.Clip("x", None, "high")
    names.Softmax("x", axis=None)
    records.Pad(Tensor("x", np.dtype(np.float32)), [0, 1], None, None)
    assert [list(node.input) for node in names.nodes] == [["x"], ["x", "", "high"], ["x"]]
    assert not names.nodes[2].attribute
    assert len(records.nodes[0].input) == 2


def test_numbers_take_the_type_of_the_first_tensor():
    op = expander()
    op.Add("x", 2)
    cast, add = op.nodes
    assert (cast.op_type, cast.input[1], add.input[1]) == ("CastLike", "x", cast.output[0])
    assert op.draft.constants[cast.input[0]] == 2


def test_several_outputs_have_names_that_the_graph_does_not_have():
    op = expander()
    first, second = op.emit("Split", ["x"], outputs=2, axis=1, num_outputs=2)
    assert len({first, second, "x", "y"}) == 4
    assert list(op.nodes[0].output) == [first, second]


@pytest.mark.parametrize("op", [expander(), Builder(23)], ids=["names", "records"])
def test_an_op_that_onnx_does_not_have_is_refused(op):
    with pytest.raises(AttributeError, match="ONNX has no operator 'Mull'"):
        op.Mull("x", "x")


def test_constants_of_a_builder_are_stored_once():
    op = Builder(23)
    x = Tensor("x", np.dtype(np.float64))
    op.Add(op.Mul(x, 2.0), np.asarray(2.0))
    assert len(op.initializers) == 1


def test_a_node_keeps_the_names_it_is_written_with():
    op = Builder(23)
    value = numpy_helper.from_array(np.float32([1]))
    written = op.write("Constant", [], ["c"], name="c", value=value)
    assert written == helper.make_node("Constant", [], ["c"], name="c", value=value)


def test_a_missing_framework_is_the_error_that_the_caller_names(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    expected = r'this backend needs tensorflow.*pip install "onnxplain\[tensorflow\]"'
    with pytest.raises(MissingDependency, match=expected):
        import_framework("tensorflow", needed_by="this backend", error=MissingDependency)
