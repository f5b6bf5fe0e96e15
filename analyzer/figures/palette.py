"""The colours of maps: values scaled to [0, 1], or signed to [-1, 1], become sRGB in [0, 1].

Signed colours are made in OKLab, a space whose lightness is the eye's: +v and −v are equally light and equally
vivid, so neither sign looks larger than the other. Source: B. Ottosson 2020, "A perceptual color space for image
processing".
"""

from __future__ import annotations

import numpy as np

# Perceptually uniform from black to pale yellow.
SEQUENTIAL = "inferno"
# Red and blue as far apart as sRGB allows at equal lightness and chroma; both darken alike with the magnitude.
RED, BLUE, CHROMA = 27.0, 259.0, 0.165
LIGHT, DARK = 0.66, 0.46


def sequential(scaled: np.ndarray, cmap: str | None = None) -> np.ndarray:
    """Return colours (…, 3) of values in [0, 1], from dark to bright. cmap: a Matplotlib colour map instead.

    Raises ValueError for an unknown colour map.
    """
    from matplotlib import colormaps

    name = cmap or SEQUENTIAL
    if name not in colormaps:
        raise ValueError(
            f"expected the name of a Matplotlib colour map, got {cmap!r}. Fix: give one such as 'viridis'"
        )
    return np.asarray(colormaps[name](scaled))[..., :3]


def signed_colours(scaled: np.ndarray, cmap: str | None = None) -> np.ndarray:
    """Return colours (…, 3) of values in [-1, 1]: red above zero, blue below. Zero has no colour: draw it transparent.

    cmap: a Matplotlib colour map instead, from −1 to 1. Raises ValueError for an unknown one.
    """
    if cmap is not None:
        return sequential((np.asarray(scaled) + 1) / 2, cmap)
    hue = np.deg2rad(np.where(scaled >= 0, RED, BLUE))
    lightness = LIGHT + (DARK - LIGHT) * np.abs(scaled)
    return from_oklab(np.stack([lightness, CHROMA * np.cos(hue), CHROMA * np.sin(hue)], axis=-1))


# Rows: the cube roots of the cones' responses, from (L, a, b); and linear sRGB, from the responses.
CONES = np.array(
    [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.2914855480],
    ]
)
LINEAR = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def from_oklab(colours: np.ndarray) -> np.ndarray:
    """sRGB (…, 3) of OKLab (…, 3), clipped to what sRGB holds."""
    linear = np.clip((colours @ CONES.T) ** 3 @ LINEAR.T, 0, 1)
    encoded: np.ndarray = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return encoded
