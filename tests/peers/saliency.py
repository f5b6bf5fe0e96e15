"""The path methods of `saliency`, the package of their authors: from a gradient function to attributions of one image.

Its Guided Integrated Gradients calls NumPy's quantile by a keyword that newer NumPy has renamed; a stand-in passes
it on while the package runs. Images are (H, W, channels), as the package takes them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

INSTALLED = importlib.util.find_spec("saliency") is not None
needs_saliency = pytest.mark.skipif(not INSTALLED, reason="saliency is not installed: pip install saliency")

# ∂f/∂x of images (n, H, W, channels).
Gradient = Callable[[np.ndarray], np.ndarray]


def blur_ig(
    gradient: Gradient, image: np.ndarray, *, max_sigma: float, steps: int, grad_step: float
) -> np.ndarray:
    """The attributions of Blur IG, by differences of the blur between σ and σ + `grad_step`."""
    from saliency.core import BlurIG

    return BlurIG().GetMask(image, _model(gradient), max_sigma=max_sigma, steps=steps, grad_step=grad_step)


def guided_ig(
    gradient: Gradient,
    image: np.ndarray,
    baseline: np.ndarray,
    *,
    steps: int,
    fraction: float,
    max_dist: float,
) -> np.ndarray:
    """The attributions of Guided IG."""
    from saliency.core import GuidedIG, guided_ig

    def quantile(values: np.ndarray, share: float, interpolation: str) -> np.ndarray:
        return np.quantile(values, share, method=interpolation)

    numpy = SimpleNamespace(**{**vars(np), "quantile": quantile})
    with mock.patch.object(guided_ig, "np", numpy):
        return GuidedIG().GetMask(
            image, _model(gradient), x_baseline=baseline, x_steps=steps, fraction=fraction, max_dist=max_dist
        )


def xrai(image: np.ndarray, attributions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The map of XRAI (H, W) and the ranks of its regions, of given attributions (H, W, channels)."""
    from saliency.core import XRAI, XRAIParameters

    parameters = XRAIParameters(return_xrai_segments=True, flatten_xrai_segments=True)
    found = XRAI().GetMaskWithDetails(
        image, _model(lambda x: x), base_attribution=attributions, extra_parameters=parameters
    )
    return found.attribution_mask, found.segments


def _model(gradient: Gradient) -> Callable[..., dict[str, np.ndarray]]:
    def call(images: np.ndarray, call_model_args: object = None, expected_keys: object = None):
        return {"INPUT_OUTPUT_GRADIENTS": gradient(np.asarray(images))}

    return call
