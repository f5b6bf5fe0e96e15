"""Keep the best of overlapping boxes: greedy non-maximum suppression of each class, in NumPy.

Source: Felzenszwalb et al. 2010, "Object Detection with Discriminatively Trained Part-Based Models", section 3.
"""

from __future__ import annotations

import numpy as np

MOST = 5000


def suppress(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, overlap: float) -> np.ndarray:
    """Return the indices of the boxes that are kept, the highest score first.

    boxes: (K, 4), x1, y1, x2, y2. scores, classes: (K,). overlap: a box is dropped where its intersection over union
    with a better one of its class is larger. Of more than MOST boxes the best are taken.
    """
    order = np.argsort(-scores, kind="stable")[:MOST]
    kept: list[int] = []
    while order.size:
        best, order = int(order[0]), order[1:]
        kept.append(best)
        same = classes[order] == classes[best]
        order = order[~(same & (overlaps(boxes[best], boxes[order]) > overlap))]
    return np.asarray(kept, np.int64)


def overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the intersection over union, (K,), of one box (4,) with others (K, 4)."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    areas = [np.clip(one[..., 2:] - one[..., :2], 0, None).prod(axis=-1) for one in (box, others)]
    union = areas[0] + areas[1] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))
