"""How far each sample moved between two models: its output beside its attributions, the worst first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analyzer.checks.distances import cosine, rank_correlation, relative_l2, ssim, top_overlap
from analyzer.checks.metrics import distance
from analyzer.types import Arrays, Row

TwoSides = tuple[Arrays, Arrays]


def drift_rows(
    outputs: tuple[np.ndarray, np.ndarray],
    attributions: Mapping[str, TwoSides],
    maps: Mapping[str, TwoSides],
) -> list[Row]:
    """One dict a sample: `output`, the relative L2 of its outputs; `changed`, whether another class is the highest; for
    every kind of attribution its relative L2, cosine, rank correlation and the overlap of the largest tenth; and where
    there are maps of that kind their structural similarity, the least of several. Sorted by the attributions' L2.

    outputs: (N, …) of both models. attributions: {kind: ({tensor: (N, …)} of both models)}. maps: likewise, of tensors
    with spatial axes (N, *spatial).
    """
    count = len(outputs[0])
    moved = {
        kind: _moved(_rows(left, count), _rows(right, count)) for kind, (left, right) in attributions.items()
    }
    for kind, (left, right) in maps.items():
        if left:
            moved[kind]["ssim"] = np.min([ssim(left[name], right[name]) for name in left], axis=0)
    rows = [
        {
            "sample": sample,
            "output": distance(outputs[0][sample], outputs[1][sample]).relative_l2,
            "changed": bool(outputs[0][sample].argmax() != outputs[1][sample].argmax()),
            **{
                f"{kind} {name}": float(values[sample])
                for kind, found in moved.items()
                for name, values in found.items()
            },
        }
        for sample in range(count)
    ]
    return sorted(rows, key=lambda row: -max(row[f"{kind} relative_l2"] for kind in attributions))


def _rows(arrays: Arrays, count: int) -> np.ndarray:
    """Return all arrays as one row per sample; an array that all samples share is part of every row."""
    rows = [
        array.reshape(count, -1)
        if array.ndim and len(array) == count
        else np.broadcast_to(array.reshape(1, -1), (count, array.size))
        for array in arrays.values()
    ]
    return np.concatenate(rows, axis=1)


def _moved(left: np.ndarray, right: np.ndarray) -> Arrays:
    return {
        "relative_l2": relative_l2(left, right),
        "cosine": cosine(left, right),
        "rank_correlation": rank_correlation(left, right),
        "top_overlap": top_overlap(left, right),
    }
