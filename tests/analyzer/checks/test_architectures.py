"""Whole networks of every family: converted and verified, four backends in agreement, FullGrad complete.

Random weights, small inputs. A row beyond the tolerance must name the kink decisions that explain it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from analyzer import check, differentiate, full_grad
from analyzer.errors import AnalysisError
from converters import Model, convert
from tests.zoo import (
    keras_families,
    pytorch_sequences,
    pytorch_structures,
    pytorch_transformers,
    pytorch_vision,
)

FAMILIES = (pytorch_transformers, pytorch_vision, pytorch_sequences, pytorch_structures)
PYTORCH = {name: build for family in FAMILIES for name, build in family.NETWORKS.items()}
TEXTS = pytorch_sequences.TEXTS


def by_name(model: Model, example) -> dict[str, np.ndarray]:
    """The example's arrays by the names of the graph's inputs."""
    return dict(zip(differentiate(model).graph.inputs, map(np.asarray, example), strict=True))


def assert_agreement(model: Model, feeds: Mapping[str, np.ndarray], target=None, **options) -> None:
    report = check(model, feeds, target, steps=2, **options)
    assert report.backends == ("onnxruntime", "torch", "tensorflow", "source")
    report.raise_for_disagreement()
    for row in report.rows:
        assert row["relative_l2"] <= 1e-4 or "within rounding of a kink" in row["explanation"], row


def assert_complete(model: Model, feeds: Mapping[str, np.ndarray], target=None, **options) -> None:
    single = full_grad(model, feeds, target, **options).completeness
    assert single.within(1e-4).all(), single
    double = full_grad(differentiate(model, "torch", precision="float64"), feeds, target, **options)
    assert double.completeness.error.max() <= 1e-10, double.completeness


@pytest.mark.parametrize("name", PYTORCH)
def test_pytorch_network(name):
    net, example = PYTORCH[name]()
    model = convert(net, example)
    feeds = by_name(model, example)
    assert_agreement(model, feeds)
    assert_complete(model, feeds)


@pytest.mark.parametrize("name", keras_families.NETWORKS)
def test_keras_network(name):
    net, example = keras_families.NETWORKS[name]()
    model = convert(net, example)
    feeds = by_name(model, example)
    assert_agreement(model, feeds)
    assert_complete(model, feeds)


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_explained_from_its_embedded_tokens(name):
    net, example = TEXTS[name]()
    model = convert(net, example)
    feeds = by_name(model, example)
    with pytest.raises(AnalysisError, match="no floating input"):
        full_grad(model, feeds)
    with pytest.raises(AnalysisError, match="no floating input"):
        check(model, feeds)
    assert_agreement(model, feeds, wrt=["embedding"])
    assert_complete(model, feeds, wrt=["embedding"])
    assert full_grad(model, feeds, wrt=["embedding"]).input_term["embedding"].shape[:2] == example[0].shape


def test_keras_text_is_explained_from_its_embedded_tokens():
    net, example = keras_families.TEXTS["text"]()
    model = convert(net, example)
    feeds = by_name(model, example)
    (embedded,) = (node.outputs[0] for node in differentiate(model).graph.nodes if node.op_type == "Gather")
    assert_agreement(model, feeds, wrt=[embedded])
    assert_complete(model, feeds, wrt=[embedded])
