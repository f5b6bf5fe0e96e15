"""Explain arrays in a pool of processes: multiprocessing of Python's standard library, and nothing else.

    python examples/data/pool.py model.onnx images.npy maps.npy

onnxplain.explain_dataset(…, workers=4) does the same with Parquet files that a later run continues, and replaces
workers that are killed.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator

import numpy as np

import onnxplain as ox

BATCH = 16


def batches(images: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """Yield batches of a file that is read piece by piece."""
    for start in range(0, len(images), BATCH):
        yield {"image": np.array(images[start : start + BATCH])}


def maps(model: str, images: np.ndarray, workers: int) -> np.ndarray:
    """Return the FullGrad maps of all images, NaN where an image could not be explained."""
    explainer = ox.BatchExplainer(model, "full-grad", threads=1, column="image")
    # A forked process must not use threads of its parent: spawn is right on every system.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        found = [one["map"] for one in pool.imap(explainer, batches(images))]
    return np.concatenate(found)


if __name__ == "__main__":
    path, source, target = sys.argv[1:]
    np.save(target, maps(path, np.load(source, mmap_mode="r"), workers=2))
