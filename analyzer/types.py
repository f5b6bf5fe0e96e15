"""The types that several modules share, and the arrays of what users pass.

Users pass NumPy arrays, nested lists, tensors of PyTorch and of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from converters.sources.pytorch import is_pytorch

Arrays = dict[str, np.ndarray]
"""Arrays by tensor name."""

Inputs = np.ndarray | Mapping[str, np.ndarray]
"""The inputs of a model: one array, or an array for each input name."""

Sizes = tuple[int, ...]
"""The sizes of a tensor whose shape is known."""

Row = dict[str, Any]
"""One comparison of a report, by column name."""

Progress = Callable[[int, int], None]
"""A function that is called with the number of finished steps and the number of all steps."""

Names = str | Sequence[str]
"""One or several tensors: ONNX names, paths of modules, names of Keras layers, or "embedding"."""

Rng = np.random.Generator | int
"""A source of randomness, or a seed for one."""

Announce = Callable[[str], None]
"""A function that is called with the name of the step that begins."""


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
