"""A model without a floating input attributes the vectors of its tokens where wrt is omitted."""

import numpy as np
import pytest

import onnxplain as ox
from tests.analyzer.languages import batch, encoder


@pytest.fixture(scope="module")
def text():
    ids = batch()["input_ids"]
    return encoder()[1], {**batch(), "token_type_ids": np.zeros_like(ids)}


def word_vectors(model):
    """The tensor of the words' vectors: the lookup that the ids choose."""
    (node,) = (
        node
        for node in model.proto.graph.node
        if node.op_type == "Gather" and "input_ids" in node.input and node.input[0] == "word.weight"
    )
    return node.output[0]


def test_token_types_and_positions_are_not_attributed(text):
    model, inputs = text
    words = word_vectors(model)
    fn = ox.differentiate(model)
    assert fn.roots(fn.default_wrt) == (words,)
    assert set(fn.gradients(inputs, 1).gradients) == {words}
    # "embedding" still means every lookup of an input.
    assert len(fn.roots("embedding")) == 2
    for method in (ox.gradient, ox.input_x_gradient, ox.full_grad, ox.integrated_gradients):
        assert method(model, inputs, 1).wrt == (words,)
    ox.check(model, inputs, target=1, backends=["torch", "source"]).raise_for_disagreement()


def test_the_path_of_conductance_runs_along_them(text):
    model, inputs = text
    found = ox.conductance(model, inputs, 1, wrt="norm", tolerance=0.01)
    ig = ox.integrated_gradients(model, inputs, 1, tolerance=0.001)
    # Layers that all paths pass have the whole difference of the outputs.
    np.testing.assert_allclose(found.completeness.output, ig.completeness.output, rtol=1e-4)
    assert found.completeness.error.max() < 0.01


def test_methods_that_attribute_inputs_alone_say_so(text):
    model, inputs = text
    for method in (ox.smooth_grad, ox.simple_full_grad, ox.xrai):
        with pytest.raises(ox.AnalysisError, match="no floating input"):
            method(model, inputs, 1)
