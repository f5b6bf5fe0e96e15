"""Photographs to model inputs: resize, fit, crop, scale and normalise, as a Preprocessing says.

From RGB pixels (H, W, 3) to one sample (C, h, w) or (h, w, C). Refuses images of too many pixels after resizing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.images.files import MOST_PIXELS, as_float
from analyzer.images.letterbox import Letterbox

if TYPE_CHECKING:
    from converters.model import Preprocessing

CHANNELS = (1, 3, 4)
PADDING = 114
"""The grey of 8 bits around an image that is padded, as Ultralytics pads."""
# A larger image is cropped before it is resized, and Pillow may then round in another order between rows and columns.
_RESIZED_WHOLE = 2**24
# Half the width of the widest filter, in pixels of the smaller of the two images, and one for rounding.
_MARGIN = 4


def preprocess(image: np.ndarray, preprocessing: Preprocessing, channels: int = 3) -> np.ndarray:
    """Make one sample of a model's input from a photograph (H, W, 3), float in [0, 1] or uint8.

    Returns float32 (C, h, w) or (h, w, C) by the layout. Where `resize` is not stated, the image is resized
    to just cover `size`. With `channels` 1 the photograph is made grey by Rec. 601 luma.
    Raises ValueError where the resized image would have more than MOST_PIXELS pixels.
    """
    fitted = _padded if preprocessing.fit == "pad" else _resized_and_cropped
    pixels = as_float(fitted(image, preprocessing))
    if channels == 1:
        pixels = pixels @ np.asarray([[0.299], [0.587], [0.114]], np.float32)
    mean, std = (per_channel(values, channels) for values in (preprocessing.mean, preprocessing.std))
    pixels = pixels - mean
    pixels /= std
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if preprocessing.layout == "NCHW" else pixels)


def _padded(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """The whole image at the largest scale that fits into `size`, with grey around it."""
    given, size = image.shape[:2], preprocessing.size
    box = Letterbox.of(given, size)
    whole = [box.height, box.width]
    if tuple(whole) != given:
        image = _part_of_resized(image, whole, [(0, length) for length in whole], preprocessing.interpolation)
    grey = PADDING if image.dtype == np.uint8 else PADDING / 255
    canvas = np.full((*size, 3), grey, image.dtype)
    canvas[box.top : box.top + box.height, box.left : box.left + box.width] = image
    return canvas


def _resized_and_cropped(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """The centre of the resized image, (h, w, 3); uint8 where it was resized."""
    given, size = image.shape[:2], preprocessing.size
    whole = _whole(given, preprocessing)
    lefts = [length - wanted for length, wanted in zip(whole, size, strict=True)]
    starts = [round(left / 2) if preprocessing.rounding == "torchvision" else left // 2 for left in lefts]
    crop = [(start, start + wanted) for start, wanted in zip(starts, size, strict=True)]
    if tuple(whole) == given:
        (top, bottom), (left, right) = crop
        return image[top:bottom, left:right]
    parts = [(0, length) for length in whole]
    if math.prod(whole) > _RESIZED_WHOLE:
        # Pixels beyond the crop count as far as the filter reaches.
        reach = [math.ceil(_MARGIN * max(1.0, new / old)) for new, old in zip(whole, given, strict=True)]
        parts = [
            (max(start - more, 0), min(stop + more, length))
            for (start, stop), more, length in zip(crop, reach, whole, strict=True)
        ]
    height, width = (stop - start for start, stop in parts)
    if height * width > MOST_PIXELS:
        raise ValueError(
            f"expected at most {MOST_PIXELS} pixels after resizing, found {height} x {width}. "
            "Fix: give a smaller --size or --resize"
        )
    resized = _part_of_resized(image, whole, parts, preprocessing.interpolation)
    (top, bottom), (left, right) = (
        (start - first, stop - first) for (start, stop), (first, _) in zip(crop, parts, strict=True)
    )
    return resized[top:bottom, left:right]


def _part_of_resized(
    image: np.ndarray, whole: list[int], parts: list[tuple[int, int]], interpolation: str
) -> np.ndarray:
    """The rows and columns `parts` of an image resized to `whole`, as (h, w, 3) uint8."""
    from PIL import Image

    edges = [
        (start * old / new, stop * old / new)
        for (start, stop), old, new in zip(parts, image.shape, whole, strict=False)
    ]
    # Pillow keeps the edges of its box in single precision: they are near 0 in the cut image.
    cut = [(math.floor(low), math.ceil(high)) for low, high in edges]
    (top, bottom), (left, right) = cut
    image = image[top:bottom, left:right]
    if image.dtype != np.uint8:
        # In 8 bits, like the pipelines that networks are trained with: rounding moves probabilities by 1 %.
        image = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    (low_y, high_y), (low_x, high_x) = (
        (low - first, high - first) for (low, high), (first, _) in zip(edges, cut, strict=True)
    )
    height, width = (stop - start for start, stop in parts)
    if interpolation == "linear":
        edges_in_cut = ((low_y, high_y, height), (low_x, high_x, width))
        return _linear(image, edges_in_cut)
    picture = Image.fromarray(np.ascontiguousarray(image))
    box = (low_x, low_y, high_x, high_y)
    filters = Image.Resampling[interpolation.upper()]
    return np.asarray(picture.resize((width, height), filters, box=box))


def _linear(image: np.ndarray, edges: Sequence[tuple[float, float, int]]) -> np.ndarray:
    """An image resized by interpolation between the two nearest pixels of each axis, as OpenCV's INTER_LINEAR.

    edges: for rows and columns, where the result begins and ends in the image, and its length.
    """
    found = image.astype(np.float32)
    for axis, (low, high, length) in enumerate(edges):
        last = image.shape[axis] - 1
        at = np.clip(low + (np.arange(length) + 0.5) * (high - low) / length - 0.5, 0, last)
        before = np.floor(at).astype(np.int64)
        share = (at - before).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        first, second = (found.take(index, axis=axis) for index in (before, np.minimum(before + 1, last)))
        found = first * (1 - share) + second * share
    return np.round(found).astype(np.uint8)


def _whole(given: tuple[int, ...], preprocessing: Preprocessing) -> list[int]:
    """The (height, width) to which an image is resized before it is cropped."""
    size, resize = preprocessing.size, preprocessing.resize
    if preprocessing.fit == "stretch":
        return [max(resize or wanted, wanted) for wanted in size]
    if resize is not None and preprocessing.rounding != "nearest":
        return [max(int(resize * length / min(given)), low) for length, low in zip(given, size, strict=True)]
    if resize is not None:
        scale = resize / min(given)
    else:
        scale = max(wanted / length for wanted, length in zip(size, given, strict=True))
    return [max(round(length * scale), low) for length, low in zip(given, size, strict=True)]


def per_channel(values: tuple[float, ...], channels: int) -> np.ndarray:
    """Return a mean or std as an array (channels,). Raises ValueError for another number of values."""
    if channels == 1:
        return np.asarray([np.mean(values)], np.float32)
    if len(values) not in (1, channels):
        raise ValueError(
            f"{len(values)} values of mean or std for {channels} channels. Fix: give 1 or {channels} of each"
        )
    return np.broadcast_to(np.asarray(values, np.float32), (channels,))


def image_layout(shape: tuple[Any, ...]) -> str | None:
    """The layout of a batch of images, "NCHW" or "NHWC", or None where the shape is no image's."""
    if len(shape) != 4:
        return None
    if shape[1] in CHANNELS:
        return "NCHW"
    return "NHWC" if shape[3] in CHANNELS else None
