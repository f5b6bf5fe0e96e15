"""Segmentation the short way: a class summed where it is predicted, or over a mask, as a Target."""

from __future__ import annotations

import numpy as np

from analyzer.errors import TargetError
from analyzer.target.target import PREDICTED, Target


def segmentation(
    output: str | None,
    class_index: int | str | np.ndarray,
    *,
    mask: np.ndarray | str | None = PREDICTED,
    axis: int | None = None,
    before: str | bool | None = None,
) -> Target:
    """Return the Target of a class of a segmentation, (N, classes, H, W): its values summed over a mask.

    output: the name of the output; None for the model's first.
    class_index: a class, or its name where the model stores names; an array (N,) for one of each sample.
    mask: "predicted" sums where the class is the highest, which raises TargetError where it is nowhere; an array (H, W)
        or (N, H, W) of booleans or weights, in the size of the output; None sums over all pixels. For the mean give
        weights, `mask / mask.sum()`.
    axis: of the classes, 1, or -1 where channels come last, (N, H, W, classes). Default: 1 with "predicted", else the
        one that the shape of the mask allows; an error shows both where it allows two.
    before: "softmax" or "sigmoid" sums the logits of an output of probabilities; see `Target`.

    One class alone, (N, 1, H, W), is the highest everywhere: give a mask for it.
    """
    if isinstance(mask, str) and mask != PREDICTED:
        raise TargetError(f'unknown mask {mask!r}. Fix: give "{PREDICTED}", an array, or None')
    if axis not in (None, 1, -1):
        raise TargetError(f"axis={axis!r}: expected 1 or -1. Fix: give -1 where channels come last")
    return Target(output, index=class_index, mask=mask, axis=axis, before=before)
