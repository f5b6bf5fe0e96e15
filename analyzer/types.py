"""Take what users hand over as an array: NumPy arrays, nested lists, tensors of PyTorch and TensorFlow."""

from __future__ import annotations

import numpy as np

from converters.sources.pytorch import is_pytorch


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
