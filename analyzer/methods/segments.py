"""Overlapping regions of an image, by scikit-image's graph-based segmentation at several scales.

From one image (H, W, channels), in any unit, to boolean masks (K, H, W). The parameters are those that XRAI was
published with: for the segmentation alone the image is rescaled to [−1, 1] and to 224 × 224, so that they suit every
image. Refuses to run where scikit-image is not installed, and names the extra.
Source: Felzenszwalb & Huttenlocher 2004; Kapishnikov et al. 2019, and the authors' code.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from analyzer.errors import MissingDependency
from converters.system.extras import install

SCALES = (50, 100, 150, 250, 500, 1200)
SIZE = (224, 224)
SIGMA, LEAST_PIXELS = 0.8, 150
# In pixels of the image: segments take in their edges, where attributions are largest.
DILATION = 5


def segments(image: np.ndarray) -> np.ndarray:
    """The regions of an image (H, W, channels) at all scales, dilated, as masks (K, H, W).

    Raises MissingDependency where scikit-image is not installed.
    """
    skimage = _scikit_image()
    image = image.astype(np.float64)
    low, high = image.min(), image.max()
    # A flat image has no edges at any scale.
    scaled = np.zeros(image.shape) if low == high else 2 * (image - low) / (high - low) - 1
    small = skimage.transform.resize(
        scaled, SIZE, order=3, mode="constant", preserve_range=True, anti_aliasing=True
    )
    masks = []
    for scale in SCALES:
        labels = skimage.segmentation.felzenszwalb(small, scale=scale, sigma=SIGMA, min_size=LEAST_PIXELS)
        labels = skimage.transform.resize(
            labels, image.shape[:2], order=0, mode="constant", preserve_range=True, anti_aliasing=False
        ).astype(int)
        masks += [labels == label for label in np.unique(labels)]
    return np.stack([_dilated(mask, skimage) for mask in masks])


def _dilated(mask: np.ndarray, skimage: Any) -> np.ndarray:
    """A mask (H, W) grown by DILATION pixels; computed within the rectangle that it can reach, as most are small."""
    spans = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    reach = tuple(slice(max(0, span[0] - DILATION), span[-1] + DILATION + 1) for span in spans)
    grown = np.zeros_like(mask)
    grown[reach] = skimage.morphology.dilation(mask[reach], footprint=skimage.morphology.disk(DILATION))
    return grown


def _scikit_image() -> Any:
    try:
        return import_module("skimage")
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"segments of an image need {error.name}, which is not installed. Fix: {install('segments')}"
        ) from error
