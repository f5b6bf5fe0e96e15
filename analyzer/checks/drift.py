"""How far each sample moved between two models: its output beside its attributions, the worst first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analyzer.backends.base import Arrays
from analyzer.checks.metrics import distance
from analyzer.checks.report import Row


def drift_rows(
    outputs: tuple[np.ndarray, np.ndarray], attributions: Mapping[str, tuple[Arrays, Arrays]]
) -> list[Row]:
    """One dict a sample: `output`, the relative L2 of its outputs; `changed`, whether another class is the highest; and
    for every kind of attribution its relative L2, cosine and rank correlation; sorted by the attributions' L2.

    outputs: (N, …) of both models. attributions: {kind: ({tensor: (N, …)} of both models)}.
    """
    rows = [
        {
            "sample": sample,
            "output": distance(outputs[0][sample], outputs[1][sample]).relative_l2,
            "changed": bool(outputs[0][sample].argmax() != outputs[1][sample].argmax()),
            **{
                f"{kind} {name}": value
                for kind, (left, right) in attributions.items()
                for name, value in _moved(_flat(left, sample), _flat(right, sample)).items()
            },
        }
        for sample in range(len(outputs[0]))
    ]
    return sorted(rows, key=lambda row: -max(row[f"{kind} relative_l2"] for kind in attributions))


def _flat(arrays: Arrays, sample: int) -> np.ndarray:
    return np.concatenate([array[sample].reshape(-1) for array in arrays.values()])


def _moved(left: np.ndarray, right: np.ndarray) -> Mapping[str, float]:
    measured = distance(left, right)
    return {
        "relative_l2": measured.relative_l2,
        "cosine": measured.cosine,
        "rank_correlation": rank_correlation(left, right),
    }


def rank_correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Spearman's ρ of two vectors; equal elements share their mean rank. 1 for two constant vectors."""
    a, b = (ranks - ranks.mean() for ranks in (_ranks(left), _ranks(right)))
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else float(np.array_equal(a, b))


def _ranks(vector: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(vector, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: np.ndarray = last - (counts - 1) / 2
    return means[inverse.reshape(-1)]
