"""What a map is drawn over: the input as a photograph, or the original where the input is padded; with a box.

From a photograph and its place in the input to a Ground, which cuts a map to the part that the photograph fills.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analyzer.images.files import as_float, read_pixels
from analyzer.images.letterbox import Letterbox

if TYPE_CHECKING:
    from converters.model import Preprocessing

Box = tuple[float, float, float, float]
GREEN = (0.1, 0.85, 0.3)
# A photograph of a camera is drawn smaller: a page holds several of it.
LONGEST = 1024


@dataclass(frozen=True)
class Ground:
    """photograph: (H, W, 3) in [0, 1]. letterbox, size: where it lies in an input of a size; None where it is all."""

    photograph: np.ndarray
    letterbox: Letterbox | None = None
    size: tuple[int, int] = (1, 1)
    note: str = "as the model sees it"

    def cut(self, plane: np.ndarray) -> np.ndarray:
        """Return the part of a map of the input that the photograph fills."""
        return plane if self.letterbox is None else self.letterbox.cut(plane, self.size)

    def with_box(self, box: Box) -> Ground:
        """Return the ground with the edges of a box of the input, x1, y1, x2, y2."""
        height, width = self.photograph.shape[:2]
        whole = (height, width) if self.letterbox is None else self.letterbox.photograph
        x1, y1, x2, y2 = box if self.letterbox is None else self.letterbox.back(box)
        scale = (height / whole[0], width / whole[1])
        top, bottom = (int(np.clip(round(y * scale[0]), 0, height - 1)) for y in (y1, y2))
        left, right = (int(np.clip(round(x * scale[1]), 0, width - 1)) for x in (x1, x2))
        edge = max(1, round(max(height, width) / 200))
        drawn = self.photograph.copy()
        rows, columns = slice(top, bottom + 1), slice(left, right + 1)
        drawn[top : top + edge, columns] = GREEN
        drawn[max(bottom - edge + 1, 0) : bottom + 1, columns] = GREEN
        drawn[rows, left : left + edge] = GREEN
        drawn[rows, max(right - edge + 1, 0) : right + 1] = GREEN
        return replace(self, photograph=drawn)


def original_ground(path: Path, preprocessing: Preprocessing) -> Ground:
    """Return the original photograph of an input that was padded."""
    pixels = read_pixels(path)
    letterbox = Letterbox.of(pixels.shape[:2], preprocessing.size)
    return Ground(
        _small(pixels), letterbox, preprocessing.size, "the original, without the padding of the input"
    )


def _small(pixels: np.ndarray) -> np.ndarray:
    """The photograph with a longest side of LONGEST pixels at most, in [0, 1]."""
    step = max(pixels.shape[:2]) / LONGEST
    if step <= 1:
        return as_float(pixels)
    from PIL import Image

    height, width = (max(1, round(length / step)) for length in pixels.shape[:2])
    eight = np.round(as_float(pixels) * 255).astype(np.uint8)
    shrunk = Image.fromarray(eight).resize((width, height), Image.Resampling.BICUBIC)
    return as_float(np.asarray(shrunk))
