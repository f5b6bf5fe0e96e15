"""Detect inputs that do not match the stored preprocessing: raw pixels, unusual ranges, Pillow images.

From a Model and inputs to arrays, and from arrays to an error where they are surely raw pixels, or to a warning where
they probably are: the network would compute a number for another picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analyzer.backends.call import first_time
from analyzer.errors import InputError, InputWarning, note
from analyzer.graph.graph import Graph
from analyzer.images.load import load_images
from analyzer.types import Arrays
from converters.model import Model, Preprocessing

# Times the largest normalised value, from which on whole numbers, other numbers, and numbers of any sign are not
# normalised pixels.
_WHOLE, _ANY, _FAR = 4, 8, 8
_DARK = 16
_BYTE = 255
# Fewer numbers are not a picture whose range says anything.
_FEW = 64
# They move pixels and keep their scale.
_LAYOUT = frozenset({"Cast", "Identity", "Pad", "Resize", "Slice", "Transpose"})
_FIX = "give images with onnxplain.load_images(paths, model) (the files, on the command line)"


def from_pictures(inputs: Any, model: Model) -> Any:
    """Return inputs whose images of Pillow are arrays, by the model's preprocessing. Raises InputError without one."""
    if isinstance(inputs, Mapping):
        if not any(_is_picture(value) for value in inputs.values()):
            return inputs
        return {
            name: load_images(value, model, name=name) if _is_picture(value) else value
            for name, value in inputs.items()
        }
    return load_images(inputs, model) if _is_picture(inputs) else inputs


def refuse_raw(feeds: Arrays, preprocessing: Preprocessing | None, graph: Graph) -> None:
    """Raise InputError where an input surely holds raw pixels; warn where its range is not that of normalised ones.

    Without a preprocessing, warn of raw pixels that a convolution reads: many networks scale pixels themselves.
    """
    if preprocessing is None:
        for name, array in feeds.items():
            if _is_image(array, 1, -1) and _reach_convolution(graph, name) and _are_bytes(array):
                _warn(
                    f"the input {name!r} holds whole numbers from {array.min():.3g} to {array.max():.3g}, as pixels of "
                    "8 bits, and a convolution reads them unscaled: was the network trained on such numbers? If not, "
                    "scale them as in training, or give images with onnxplain.load_images(paths, preprocessing=…)"
                )
        return
    mean, std = (np.asarray(one, np.float64) for one in (preprocessing.mean, preprocessing.std))
    low, high = float(((0 - mean) / std).min()), float(((1 - mean) / std).max())
    for name, array in feeds.items():
        axis = 1 if preprocessing.layout == "NCHW" else -1
        if _is_image(array, axis):
            _judge(name, array, low, high)


def _is_image(array: np.ndarray, *axes: int) -> bool:
    """Whether an array is a batch of images of floats, with their channels along one of the axes."""
    floats = array.ndim == 4 and array.dtype.kind in "fV" and array.size > 0
    return floats and any(array.shape[axis] in (1, 3, 4) for axis in axes)


def _reach_convolution(graph: Graph, name: str) -> bool:
    """Whether a convolution is all that reads an input, maybe after a change of its layout, type or size."""
    readers = graph.consumers.get(name, ())
    return bool(readers) and all(
        node.op_type == "Conv" or (node.op_type in _LAYOUT and _reach_convolution(graph, node.outputs[0]))
        for node in readers
    )


def _are_bytes(array: np.ndarray) -> bool:
    """Whether an array holds whole numbers from 0 to at most 255, some of which are bright pixels."""
    if array.size < _FEW or float(array.min()) < 0 or not _DARK < float(array.max()) <= _BYTE:
        return False
    return bool(np.array_equal(array, np.rint(array)))


def _judge(name: str, array: np.ndarray, low: float, high: float) -> None:
    least, most = float(array.min()), float(array.max())
    told = f"the input {name!r} holds numbers from {least:.3g} to {most:.3g}"
    takes = f"the model stores a normalisation to {low:.3g} to {high:.3g}"
    if least >= 0 and most <= _BYTE and most > _WHOLE * high:
        whole = most >= _DARK and np.array_equal(array, np.rint(array))
        if whole or most > max(_ANY * high, 2 * _DARK):
            raise InputError(
                f"{told}, as pixels of 8 bits, and {takes}. Fix: {_FIX}, or normalise them, (x / 255 - mean) / std "
                "with the mean and std of model.preprocessing"
            )
    if max(-least, most) > _FAR * max(-low, high):
        _warn(f"{told}, and {takes}: are they normalised? If not, {_FIX}")
    elif array.size >= _FEW and least < most and least >= 0:
        unscaled = low < -0.5 and 0.5 < most <= 1
        small = high >= 100 and most <= 1
        if unscaled or small:
            _warn(f"{told}, and {takes}: are they normalised? If not, {_FIX}")


def _warn(text: str) -> None:
    # The points between the inputs of a call are checked, too.
    if first_time("raw pixels"):
        note(text, InputWarning)


def _is_picture(value: Any) -> bool:
    """Whether a value is an image of Pillow, or a list of them."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_picture(one) for one in value)
    return any(kind.__module__.startswith("PIL.") for kind in type(value).__mro__)
