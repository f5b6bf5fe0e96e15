"""Heat maps and overlays: one attribution map (H, W) becomes RGB pixels; RGB pixels become a PNG.

Refuses maps that are not finite: a picture would hide it.
"""

from __future__ import annotations

import io
import os

import numpy as np

from converters.atomic import write_bytes

PERCENTILE = 99.5
# Perceptually uniform from black to pale yellow; and blue, neutral grey, red with equal lightness steps.
SEQUENTIAL, DIVERGING = "inferno", "RdBu_r"


def normalized(values: np.ndarray, *, signed: bool = False, percentile: float = PERCENTILE) -> np.ndarray:
    """Scale a map robustly: unsigned to [0, 1] between its outer percentiles, signed to [-1, 1] about 0.

    A few extreme pixels do not decide the picture's range. A constant unsigned map becomes 0 everywhere.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2:
        raise ValueError(f"a heat map is drawn of one (H, W) map, not of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("the map holds NaN or infinity")
    if signed:
        scale = np.percentile(np.abs(values), percentile) or np.abs(values).max()
        return np.clip(values / scale, -1, 1) if scale else np.zeros_like(values)
    low, high = np.percentile(values, (100 - percentile, percentile))
    if high <= low:
        low, high = values.min(), values.max()
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)


def heat_map(values: np.ndarray, *, signed: bool = False, percentile: float = PERCENTILE) -> np.ndarray:
    """Colour a map (H, W): (H, W, 3) uint8, from dark to bright; signed maps from blue to red."""
    scaled = normalized(values, signed=signed, percentile=percentile)
    return _bytes(_colours(scaled, signed))


def overlay(
    image: np.ndarray,
    values: np.ndarray,
    *,
    signed: bool = False,
    strength: float = 0.85,
    percentile: float = PERCENTILE,
) -> np.ndarray:
    """Lay a map over a photograph: (H, W, 3) uint8, of the photograph's size.

    image: (H, W, 3) in [0, 1] or uint8. values: (h, w), resized to the photograph where they differ. The
    map's opacity grows with its value up to `strength`, so that the photograph stays visible; it is made
    paler in colour beneath, so that the map's colours are not mistaken for its own.
    """
    pixels = image / 255.0 if image.dtype == np.uint8 else np.clip(np.asarray(image, np.float64), 0, 1)
    scaled = _fitted(normalized(values, signed=signed, percentile=percentile), pixels.shape[:2])
    grey = pixels @ np.asarray([0.299, 0.587, 0.114])
    if signed:
        # On a light grey ground both ends of the diverging colours stand out equally.
        ground = np.repeat((0.6 + 0.38 * grey)[..., None], 3, axis=-1)
        opacity = np.sqrt(np.abs(scaled))
    else:
        ground = 0.85 * (0.6 * pixels + 0.4 * grey[..., None])
        opacity = scaled**1.25
    opacity = strength * opacity[..., None]
    return _bytes((1 - opacity) * ground + opacity * _colours(scaled, signed))


def _fitted(scaled: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    from PIL import Image

    if scaled.shape == shape:
        return scaled
    plane = Image.fromarray(scaled.astype(np.float32))
    return np.asarray(plane.resize((shape[1], shape[0]), Image.Resampling.BILINEAR), np.float64)


def _colours(scaled: np.ndarray, signed: bool) -> np.ndarray:
    from matplotlib import colormaps

    if signed:
        # The outermost colours are near black: at pixel size they would read as holes, not as red and blue.
        return np.asarray(colormaps[DIVERGING](0.5 + 0.4 * scaled))[..., :3]
    return np.asarray(colormaps[SEQUENTIAL](scaled))[..., :3]


def _bytes(pixels: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = np.round(np.clip(pixels, 0, 1) * 255)
    return rounded.astype(np.uint8)


def enlarged(pixels: np.ndarray, least: int = 192) -> np.ndarray:
    """Repeat the pixels of a small picture until its short side has at least `least`; others as they are."""
    factor = -(-least // min(pixels.shape[:2])) if min(pixels.shape[:2]) < least // 2 else 1
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def encode_png(pixels: np.ndarray) -> bytes:
    """The PNG file of RGB pixels: (H, W, 3), uint8 or in [0, 1]."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels if pixels.dtype == np.uint8 else _bytes(pixels)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def save_png(path: str | os.PathLike[str], pixels: np.ndarray) -> None:
    """Write RGB pixels as a PNG, whole or not at all."""
    write_bytes(path, encode_png(pixels))
