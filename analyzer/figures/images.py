"""Photographs to model inputs and back: files, RGB arrays in [0, 1], and normalised batches.

Reads any image file that Pillow reads; refuses what is no image and what has no pixel range (float images).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import one_line

if TYPE_CHECKING:
    from PIL import Image

    from converters.model import Preprocessing

CHANNELS = (1, 3, 4)


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image file as RGB: (H, W, 3) float32 in [0, 1], upright, on white where it is transparent.

    Raises ValueError with one line where the file is missing, no image, or damaged.
    """
    from PIL import Image, ImageOps

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}")
    try:
        with Image.open(path) as image:
            return _rgb(ImageOps.exif_transpose(image))
    # Pillow reports damage by many types; SyntaxError is the one for a broken PNG.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image ({one_line(error)})") from error


def _rgb(image: Image.Image) -> np.ndarray:
    from PIL import Image

    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; give the array as .npy")
    if image.mode.startswith("I"):
        grey = np.asarray(image, np.float32) / 65535
        return np.repeat(np.clip(grey, 0, 1)[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"), np.float32) / 255


def preprocess(image: np.ndarray, preprocessing: Preprocessing, channels: int = 3) -> np.ndarray:
    """Make one sample of a model's input from a photograph (H, W, 3) in [0, 1].

    Returns float32 (C, h, w) or (h, w, C) by the layout. Where `resize` is not stated, the image is resized
    to just cover `size`. With `channels` 1 the photograph is made grey by Rec. 601 luma.
    """
    height, width = preprocessing.size
    pixels = _resized(image, _scale(image.shape[:2], preprocessing), (height, width))
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    pixels = pixels[top : top + height, left : left + width]
    if channels == 1:
        pixels = pixels @ np.asarray([[0.299], [0.587], [0.114]], np.float32)
    mean, std = (_per_channel(values, channels) for values in (preprocessing.mean, preprocessing.std))
    pixels = (pixels - mean) / std
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if preprocessing.layout == "NCHW" else pixels)


def _scale(shape: tuple[int, ...], preprocessing: Preprocessing) -> float:
    if preprocessing.resize is not None:
        return preprocessing.resize / min(shape)
    return max(wanted / given for wanted, given in zip(preprocessing.size, shape, strict=True))


def _resized(image: np.ndarray, scale: float, at_least: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    size = tuple(max(round(given * scale), low) for given, low in zip(image.shape[:2], at_least, strict=True))
    if size == image.shape[:2]:
        return image
    # In 8 bits, like the pipelines that networks are trained with: rounding moves probabilities by 1 %.
    picture = Image.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8))
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BICUBIC), np.float32) / 255


def _per_channel(values: tuple[float, ...], channels: int) -> np.ndarray:
    if channels == 1:
        return np.asarray([np.mean(values)], np.float32)
    if len(values) not in (1, channels):
        raise ValueError(f"{len(values)} values of mean or std for {channels} channels")
    return np.broadcast_to(np.asarray(values, np.float32), (channels,))


def image_layout(shape: tuple[Any, ...]) -> str | None:
    """The layout of a batch of images, "NCHW" or "NHWC", or None where the shape is no image's."""
    if len(shape) != 4:
        return None
    if shape[1] in CHANNELS:
        return "NCHW"
    return "NHWC" if shape[3] in CHANNELS else None


def photographs(inputs: np.ndarray, preprocessing: Preprocessing | None = None) -> np.ndarray | None:
    """Undo a batch's normalisation: (N, H, W, 3) float32 in [0, 1] of (N, C, H, W) or (N, H, W, C).

    Without preprocessing the range is taken from the values: [0, 1], [0, 255], else each sample's own
    minimum and maximum. Returns None where the inputs are no images.
    """
    layout = preprocessing.layout if preprocessing and inputs.ndim == 4 else image_layout(inputs.shape)
    if layout is None:
        return None
    pixels = np.asarray(inputs, np.float32)
    pixels = pixels.transpose(0, 2, 3, 1) if layout == "NCHW" else pixels
    channels = pixels.shape[-1]
    if channels not in CHANNELS:
        return None
    if preprocessing is not None:
        pixels = pixels * _per_channel(preprocessing.std, channels) + _per_channel(
            preprocessing.mean, channels
        )
    else:
        pixels = _guessed_range(pixels)
    pixels = np.repeat(pixels, 3, axis=-1) if channels == 1 else pixels[..., :3]
    return np.clip(pixels, 0, 1)


def _guessed_range(pixels: np.ndarray) -> np.ndarray:
    low, high = float(pixels.min()), float(pixels.max())
    if low >= 0 and high <= 1:
        return pixels
    if low >= 0 and 1 < high <= 255:
        return pixels / 255
    lows, highs = (edge(pixels, axis=(1, 2, 3), keepdims=True) for edge in (np.min, np.max))
    stretched: np.ndarray = (pixels - lows) / np.maximum(highs - lows, np.finfo(np.float32).tiny)
    return stretched


def to_planes(attributions: np.ndarray, layout: str | None = None) -> np.ndarray | None:
    """Sum attributions over channels: (N, H, W) of (N, C, H, W) or (N, H, W, C); None where no image's."""
    if attributions.ndim == 3:
        return attributions
    layout = layout or image_layout(attributions.shape)
    if attributions.ndim != 4 or layout is None:
        return None
    planes: np.ndarray = attributions.sum(axis=1 if layout == "NCHW" else 3)
    return planes
