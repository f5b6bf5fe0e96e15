"""Noise in the place of a sample: it tells the shapes of results, and errors of a model from those of a sample."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analyzer.backends import Differentiable
from analyzer.graph.batch_axis import batched_inputs
from analyzer.graph.channel_axis import shape_with_channels
from analyzer.types import Arrays

# The size of an axis that the model leaves free.
_FREE = 32


def noise_like(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Return normal noise in the shapes of a sample's floats; its whole numbers, such as token ids, are kept."""
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal(array.shape).astype(array.dtype) if array.dtype.kind in "fV" else array
        for name, array in arrays.items()
    }


def noise_sample(fn: Differentiable) -> tuple[Arrays, bool]:
    """Return noise of the sizes that a model states, without batch axis, and whether it states all of them.

    Free sizes of an image are those of the preprocessing, other free sizes 32. Whole numbers are 0.
    """
    graph, preprocessing = fn.graph, fn.model.preprocessing
    batched, arrays, stated = batched_inputs(graph), {}, True
    for name in graph.inputs:
        shape = shape_with_channels(graph, name) or ()
        sizes = shape[1:] if name in batched else shape
        if len(sizes) == 3 and preprocessing is not None:
            height, width = preprocessing.size
            known = (None, height, width) if preprocessing.layout == "NCHW" else (height, width, None)
            sizes = tuple(s if isinstance(s, int) else k for s, k in zip(sizes, known, strict=True))
        stated = stated and graph.tensors[name].shape is not None and all(isinstance(s, int) for s in sizes)
        found = tuple(size if isinstance(size, int) else _FREE for size in sizes)
        arrays[name] = np.zeros(found, graph.tensors[name].dtype)
    return noise_like(arrays), stated
