"""The claims on the trained network of the demo: completeness in two precisions, and Captum's own numbers."""

from __future__ import annotations

import captum.attr
import numpy as np
import pytest
import torch

from analyzer import differentiate, full_grad, integrated_gradients
from analyzer.demo import PREPROCESSING, load_network, photographs
from analyzer.figures import preprocess
from converters import convert
from tests.analyzer.methods.completeness import assert_complete

CAT, ESPRESSO = 0, 967
STEPS = 20


@pytest.fixture(scope="module")
def trained():
    net = load_network().eval()
    x = np.stack([preprocess(image, PREPROCESSING) for image in photographs().values()]).astype(np.float32)
    return net, x, convert(net, torch.tensor(x))


def test_full_grad_is_complete_in_both_precisions(trained):
    _, x, model = trained
    assert_complete(model, x[:1], CAT)


def test_full_grad_explains_the_class_that_is_shown(trained):
    _, x, model = trained
    fg = full_grad(model, x)
    assert fg.completeness.error.max() <= 1e-4
    assert fg.target[1] == ESPRESSO


def test_explicit_terms_state_their_shortfall(trained):
    _, x, model = trained
    completeness = full_grad(model, x[:1], terms="explicit").completeness
    np.testing.assert_allclose(completeness.output[CAT], 9.17, atol=0.05)
    np.testing.assert_allclose(completeness.output[CAT] - completeness.total[CAT], 7.2, atol=0.05)
    np.testing.assert_allclose(completeness.error[CAT], 7.2 / 9.17, atol=0.01)


def relative_l2(a, b) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def by_captum(net, x) -> np.ndarray:
    image = torch.tensor(x)
    found = captum.attr.IntegratedGradients(net).attribute(
        image,
        torch.zeros_like(image),
        target=ESPRESSO,
        n_steps=STEPS,
        method="gausslegendre",
        internal_batch_size=10,
    )
    return found.detach().numpy()


def test_integrated_gradients_equal_captum_at_equal_steps(trained):
    net, x, model = trained
    single, double = by_captum(net, x[1:]), by_captum(net.double(), x[1:].astype(np.float64))
    net.float()
    source, runtime = (
        integrated_gradients(
            differentiate(model, backend), x[1:], target=ESPRESSO, steps=STEPS, batch_size=10
        ).attributions
        for backend in ("source", "onnxruntime")
    )
    assert relative_l2(source, single) <= 1e-4
    # Along the path ReLU6 decisions sit within rounding of their kinks, so that Captum in float32 is itself 1e-3
    # from Captum in float64. Another order of summation is no further from that truth than a small multiple.
    assert relative_l2(runtime, double) <= 4 * relative_l2(single, double) <= 1e-2
