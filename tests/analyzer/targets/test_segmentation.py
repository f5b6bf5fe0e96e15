"""targets.segmentation: sums over masks, of an output of probabilities also of its logits."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

import onnxplain as ox
from analyzer.errors import TargetError
from tests.zoo.draw import normal

# Logits z[n, k] = w[k] · x[n, 0] of three classes, and their probabilities.
MODEL = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 21]> g (float[n,1,3,4] x) => (float[n,3,3,4] p, float[n,3,4,3] last)'
    " <float[3,1,1] w = {-1.0, 0.5, 2.0}> { z = Mul(x, w) p = Softmax<axis = 1>(z)"
    " last = Transpose<perm = [0, 2, 3, 1]>(p) }"
)
W = np.array([-1.0, 0.5, 2.0])
X = normal(2, 1, 3, 4).numpy()
MASK = np.arange(12).reshape(3, 4) % 2 == 0


@pytest.mark.parametrize(("output", "axis"), [(None, None), ("p", 1), ("last", -1)])
def test_the_sum_is_over_the_predicted_pixels(output, axis):
    """The largest logit is class 2 where x is positive, else class 0."""
    found = ox.gradient(MODEL, X, ox.targets.segmentation(output, 2, axis=axis, before="softmax"))
    np.testing.assert_allclose(found.output, 2 * np.maximum(X, 0).sum(axis=(1, 2, 3)), rtol=1e-5)
    fn = ox.differentiate(MODEL)
    target = ox.targets.segmentation(output, 0, mask=MASK, axis=axis, before="softmax")
    np.testing.assert_allclose(
        fn.gradients(X, target).gradients["x"], -1.0 * MASK[None, None] * np.ones_like(X)
    )
    mean = ox.targets.segmentation(output, 1, mask=MASK / MASK.sum(), axis=axis, before="softmax")
    np.testing.assert_allclose(
        fn.gradients(X, mean).output, 0.5 * X[:, 0, MASK].mean(axis=1), rtol=1e-4, atol=1e-6
    )


def test_classes_are_named_and_probabilities_are_the_default():
    model = ox.convert(MODEL, class_names=("road", "sky", "tree"))
    found = ox.gradient(model, X, ox.targets.segmentation(None, "tree"))
    logits = X * W[:, None, None]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    expected = np.where(X[:, 0] > 0, probabilities[:, 2], 0).sum(axis=(1, 2))
    np.testing.assert_allclose(found.output, expected, rtol=1e-4)
    for options in ({"mask": "all"}, {"axis": 2}):
        with pytest.raises(TargetError, match="Fix: "):
            ox.targets.segmentation(None, 0, **options)
