"""Types that several layers share, and values of users as arrays: NumPy arrays, nested lists, tensors of frameworks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.sources.pytorch import is_pytorch

Arrays = dict[str, np.ndarray]
"""{name of a tensor: array}."""
Names = str | Sequence[str]
"""One or several tensors: ONNX names, paths of modules, names of Keras layers, or "embedding"."""
Rng = np.random.Generator | int
"""A source of randomness, or a seed for one."""


def as_array(value: object) -> np.ndarray:
    """Return a value as an array; a PyTorch tensor may need gradients, lie on a GPU or be in bfloat16."""
    if is_pytorch(value):
        from converters.sources.torch_call import to_numpy

        return to_numpy(value)  # type: ignore[arg-type]
    return np.asarray(value)


def kind_of(value: object, array: np.ndarray) -> str:
    """Return the kind of a value that does not hold numbers, for a message. array: the value as an array."""
    if array.dtype.kind in "SU":
        return "text"
    return type(value).__name__ if array.dtype.kind == "O" else str(array.dtype)
