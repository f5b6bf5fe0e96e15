"""A file whose nodes stand in any order is read as one in topological order; a circle is named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from analyzer import differentiate
from converters import convert, load
from converters.errors import InvalidModel
from converters.graph.order import in_order
from tests.converters.helpers import normal
from tests.converters.quantized_models import images, network


def shuffled() -> onnx.ModelProto:
    """The network with its nodes in reverse."""
    model = network()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def test_any_order_is_one_function() -> None:
    x = images(2)
    found, expected = (
        differentiate(model).gradients(x, 1).gradients["x"] for model in (shuffled(), network())
    )
    np.testing.assert_array_equal(found, expected)
    verification = convert(shuffled(), {"x": normal(2, 3, 8, 8)}).verification
    assert verification is not None and verification.relative_l2 < 1e-5


def test_what_is_in_order_is_left_alone() -> None:
    model = network()
    assert in_order(model) is model


def test_a_circle_is_named() -> None:
    model = network()
    model.graph.node[0].input[0] = "y"
    with pytest.raises(InvalidModel, match="topologically sorted"):
        load(model)
