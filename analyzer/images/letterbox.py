"""Where a photograph lies in an input that it was padded into, and the way back for maps and boxes.

From the sizes of a photograph and of an input to a Letterbox, by the arithmetic of `preprocess` with fit="pad".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Letterbox:
    """photograph: (height, width) of the original. top, left, height, width: the region of the input that it fills."""

    photograph: tuple[int, int]
    top: int
    left: int
    height: int
    width: int

    @classmethod
    def of(cls, photograph: tuple[int, int], size: tuple[int, int]) -> Letterbox:
        """Return the region of an input of a size, (height, width), at the largest scale that fits."""
        scale = min(wanted / length for wanted, length in zip(size, photograph, strict=True))
        height, width = (max(round(length * scale), 1) for length in photograph)
        # As Ultralytics rounds: of an odd rest the larger half is below, and on the right.
        top, left = (
            round((wanted - own) / 2 - 0.1) for wanted, own in zip(size, (height, width), strict=True)
        )
        return cls(photograph, top, left, height, width)

    def cut(self, plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Return the part of a map (h, w) that the photograph fills; size: of the input, where the map is smaller."""
        scales = [own / whole for own, whole in zip(plane.shape[:2], size, strict=True)]
        rows = _span(self.top * scales[0], (self.top + self.height) * scales[0], plane.shape[0])
        columns = _span(self.left * scales[1], (self.left + self.width) * scales[1], plane.shape[1])
        return plane[rows, columns]

    def back(self, box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """Return a box x1, y1, x2, y2 of the input in pixels of the photograph, within its edges."""
        high, wide = self.photograph

        def place(value: float, start: int, length: int, whole: int) -> float:
            return float(np.clip((value - start) * whole / length, 0, whole))

        x1, x2 = (place(value, self.left, self.width, wide) for value in box[::2])
        y1, y2 = (place(value, self.top, self.height, high) for value in box[1::2])
        return x1, y1, x2, y2


def _span(start: float, stop: float, size: int) -> slice:
    first = min(int(start + 0.5), size - 1)
    return slice(first, max(int(stop + 0.5), first + 1))
