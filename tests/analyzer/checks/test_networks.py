"""The four backends agree on the networks of Keras, and two or three on the files that the onnx package ships.

Random weights, small inputs. A row beyond the tolerance must name the kink decisions that explain it, or be a gradient
that is zero but for rounding: the files' equal weights give every class one probability.
The PyTorch networks are checked in test_agreement.py.
"""

from __future__ import annotations

import numpy as np
import pytest

from analyzer import check
from analyzer.checks.explain.rounding import ROUNDING
from converters import convert, load
from tests.analyzer.methods.completeness import assert_complete
from tests.analyzer.placement.placements import assert_placed
from tests.zoo import keras_networks, onnx_files

SMALL = ("shufflenet", "squeezenet")


def assert_agreement(report, backends):
    assert tuple(name for name in report.backends if name != "file") == backends
    report.raise_for_disagreement()
    for row in report.rows:
        reason = row["explanation"]
        assert row["relative_l2"] <= 1e-4 or "within rounding of a kink" in reason or reason == ROUNDING, row


# Inception and EfficientNet take as long as seven others: their layers are those of the others, and their structures
# are checked as PyTorch networks.
@pytest.mark.parametrize("name", sorted(keras_networks.NETWORKS.keys() - {"inception_v3", "efficientnet_b0"}))
def test_keras_network(name):
    net, shape = keras_networks.NETWORKS[name]()
    x = keras_networks.example_input(name, shape)
    model = convert(net, x)
    report = check(model, x, steps=2)
    assert_agreement(report, ("onnxruntime", "torch", "tensorflow", "source"))
    biased = [row for row in report.rows if row["quantity"] == "bias gradient" and row["b"] == "source"]
    assert biased, "the source's own bias gradients are compared"
    assert_placed(model, {model.proto.graph.input[0].name: x})
    if name not in keras_networks.HEAVY:
        assert_complete(model, x)


# The larger files have the layers of zfnet512, inception_v1 and shufflenet, and the structures of the ResNets,
# DenseNets and VGGs of both frameworks.
LARGE = ("vgg19", "densenet121", "resnet50", "inception_v2")


@pytest.mark.parametrize("name", [name for name in onnx_files.NAMES if name not in LARGE])
def test_light_model(name):
    model = load(onnx_files.network(name))
    x = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    # What TensorFlow computes of the larger ones is computed of the Keras networks, too.
    backends = ("onnxruntime", "torch", "tensorflow")[: 3 if name in SMALL else 2]
    assert_agreement(check(model, x, backends=backends, steps=2), backends)
