"""Heat maps and overlays: one attribution map (H, W) becomes RGB pixels; RGB pixels become a PNG.

Refuses maps that are not finite: a picture would hide it.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass

import numpy as np

from analyzer.figures.palette import sequential, signed_colours
from converters.system.atomic import write_bytes

PERCENTILE = 99.5
LUMA = (0.299, 0.587, 0.114)
# A signed map's grey ground: light enough for both colours to be darker than it, with the photograph's contrast kept.
GROUND, CONTRAST = 0.42, 0.54
PAPER = 0.96
# The opacity of the strongest pixels over a photograph.
STRENGTH = 0.9
# Smoothing as a share of the short side. From pixel to pixel a signed map's signs alternate: a sum over layers is read
# at the scale of regions, one of the pixels alone at that of a few pixels.
REGIONS, PIXELS = 0.04, 0.01


@dataclass(frozen=True)
class Scale:
    """The scale of a map's colours: the values at both ends, and their unit. A signed scale has 0 in the middle.

    cmap: a Matplotlib colour map, in place of the map's own colours.
    """

    low: float
    high: float
    signed: bool
    unit: str = ""
    cmap: str | None = None

    def colours(self, count: int) -> np.ndarray:
        """(count, 3) uint8, from the low end to the high one, as `heat_map` has them."""
        ramp = np.linspace(-1 if self.signed else 0, 1, count).reshape(1, -1)
        drawn: np.ndarray = heat_map(ramp, signed=self.signed, percentile=100, cmap=self.cmap)[0]
        return drawn


def value_range(
    values: np.ndarray, *, signed: bool = False, percentile: float = PERCENTILE
) -> tuple[float, float]:
    """The values that the ends of the colours stand for: outer percentiles; signed, symmetric about 0.

    A few extreme pixels do not decide the picture's range. Where all else is constant, they do.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2:
        raise ValueError(
            f"expected one map (H, W), got shape {values.shape}. Fix: give the map of one sample, as in maps[0]"
        )
    if not np.isfinite(values).all():
        raise ValueError("the map holds NaN or infinity. Fix: draw numpy.nan_to_num(map, posinf=0, neginf=0)")
    if signed:
        scale = float(np.percentile(np.abs(values), percentile) or np.abs(values).max())
        return -scale, scale
    low, high = np.percentile(values, (100 - percentile, percentile))
    return (float(low), float(high)) if high > low else (float(values.min()), float(values.max()))


def scale_of(
    values: np.ndarray,
    unit: str = "",
    *,
    signed: bool = False,
    percentile: float = PERCENTILE,
    cmap: str | None = None,
) -> Scale:
    """The scale of a map (H, W) as `heat_map` and `overlay` draw it."""
    return Scale(*value_range(values, signed=signed, percentile=percentile), signed, unit, cmap)


def normalized(values: np.ndarray, *, signed: bool = False, percentile: float = PERCENTILE) -> np.ndarray:
    """Scale a map by its `value_range`: unsigned to [0, 1], signed to [-1, 1] about 0; a constant one to 0."""
    return scaled_to(values, scale_of(values, signed=signed, percentile=percentile))


def scaled_to(values: np.ndarray, scale: Scale) -> np.ndarray:
    """Values by the ends of a scale: unsigned in [0, 1], signed in [-1, 1]; 0 where the ends meet."""
    values = np.asarray(values, np.float64)
    if scale.high <= scale.low:
        return np.zeros_like(values)
    if scale.signed:
        return np.clip(values / scale.high, -1, 1)
    return np.clip((values - scale.low) / (scale.high - scale.low), 0, 1)


def smoothed(values: np.ndarray, share: float = REGIONS) -> np.ndarray:
    """Spread every pixel of a map (H, W) over its neighbours by a Gaussian; the map's sum stays what it was.

    share: the standard deviation as a share of the short side. What would fall beyond the border stays within it.
    """
    width = share * min(values.shape)
    for axis, size in enumerate(values.shape):
        pixels = np.arange(size)
        weights = np.exp(-0.5 * ((pixels[:, None] - pixels) / width) ** 2)
        # A column is what one pixel gives away: it sums to one.
        spread = weights / weights.sum(axis=0)
        values = np.moveaxis(np.tensordot(spread, values, axes=(1, axis)), 0, axis)
    return values


def heat_map(
    values: np.ndarray, *, signed: bool = False, percentile: float = PERCENTILE, cmap: str | None = None
) -> np.ndarray:
    """Colour a map (H, W): (H, W, 3) uint8, from dark to bright; signed maps from blue over white to red."""
    scaled = normalized(values, signed=signed, percentile=percentile)
    if cmap is not None:
        return _bytes(signed_colours(scaled, cmap) if signed else sequential(scaled, cmap))
    return _bytes(_signed_on(np.full(scaled.shape, PAPER), scaled, 1.0) if signed else sequential(scaled))


def overlay(
    image: np.ndarray,
    values: np.ndarray,
    *,
    signed: bool = False,
    strength: float = STRENGTH,
    percentile: float = PERCENTILE,
    scale: Scale | None = None,
) -> np.ndarray:
    """Lay a map over a photograph: (H, W, 3) uint8, of the photograph's size.

    image: (H, W, 3) in [0, 1] or uint8. values: (h, w), resized to the photograph where they differ. The
    map's opacity grows with its value up to `strength`, and is 0 where a signed map is; the photograph is made
    paler in colour beneath an unsigned map and grey beneath a signed one, so that the map's colours are not
    mistaken for its own. scale: the ends of the colours, where maps are to be compared; default the map's own.
    """
    scale = scale or scale_of(values, signed=signed, percentile=percentile)
    pixels = image / 255.0 if image.dtype == np.uint8 else np.clip(np.asarray(image, np.float64), 0, 1)
    scaled = _fitted(scaled_to(values, scale), pixels.shape[:2])
    grey = pixels @ np.asarray(LUMA)
    if scale.signed:
        return _bytes(_signed_on(GROUND + CONTRAST * grey, scaled, strength, scale.cmap))
    ground = 0.85 * (0.6 * pixels + 0.4 * grey[..., None])
    opacity = strength * scaled[..., None] ** 1.25
    return _bytes((1 - opacity) * ground + opacity * sequential(scaled, scale.cmap))


def _signed_on(grey: np.ndarray, scaled: np.ndarray, strength: float, cmap: str | None = None) -> np.ndarray:
    """Signed values in [-1, 1] over a grey ground (H, W)."""
    # Above 1 the opacity leaves zero without an edge: no contour is seen where the sign changes.
    opacity = strength * np.abs(scaled)[..., None] ** 1.2
    laid: np.ndarray = (1 - opacity) * grey[..., None] + opacity * signed_colours(scaled, cmap)
    return laid


def _fitted(scaled: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    from PIL import Image

    if scaled.shape == shape:
        return scaled
    plane = Image.fromarray(scaled.astype(np.float32))
    return np.asarray(plane.resize((shape[1], shape[0]), Image.Resampling.BILINEAR), np.float64)


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
