"""Name the fixes that several messages share, as the end of an error: one line that begins with "Fix:".

Reads shapes as a Graph states them. Every message has the form "expected X, got Y.
Fix: Z".
"""

from __future__ import annotations

from itertools import permutations

import numpy as np

from converters.types import Shape

ALIKE = "Fix: give every input as many rows"
"""Of inputs with different numbers of samples."""
BASELINE = (
    "Fix: choose a baseline at which it is finite, such as the mean of your data, baseline=data.mean(axis=0) "
    "(--baseline FILE.npy)"
)
"""Of paths along which the output or its gradient is not finite."""
FINITE = "Fix: give finite numbers, as numpy.nan_to_num(x, posinf=0, neginf=0) does, or omit these samples"
"""Of arrays that hold NaN or infinity."""
INDICES = "Fix: give ints; weights go into Target(weights=array)"
"""Of targets that are not indices."""
INFERENCE = "runs in training mode. Fix: export the model in inference mode, as after module.eval()"
"""Of layers that compute something else in training."""
NUMBERS = (
    "Fix: give an array of numbers, with rows of one length, as numpy.load or onnxplain.load_images(paths, model) "
    "returns"
)
"""Of inputs that are not arrays of numbers."""
TRACED = 'Fix: use backend="torch" (--backend torch), which differentiates the graph while it runs'
"""Of ops whose VJP needs a size that only a run shows."""
# Arrays of more axes have too many orders to try, and name no layout.
_MOST_AXES = 5


def numbers_fix(array: np.ndarray) -> str:
    """Return how to give real numbers in place of an array that holds none."""
    if array.dtype.kind == "c":
        return "Fix: give real and imaginary parts as real numbers, in the layout that the model takes"
    return NUMBERS


def shape_fix(found: tuple[int, ...], wanted: Shape) -> str:
    """Return how to make an array of the shape `found` one of the shape `wanted`, whose axes may be free."""
    if len(found) == len(wanted) - 1 and _fits(found, wanted[1:]):
        return "Fix: add a batch axis, inputs[None]"
    for batch in (0, 1):
        if len(found) + batch != len(wanted) or len(found) > _MOST_AXES:
            continue
        for order in permutations(range(len(found))):
            if (batch or not order or order[0] == 0) and _fits(
                [found[axis] for axis in order], wanted[batch:]
            ):
                moved = "Fix: change the order of the axes, inputs.transpose"
                return f"{moved}({', '.join(map(str, order))}){'[None]' if batch else ''}"
    return f"Fix: resize, pad or cut the input to the shape ({', '.join('N' if a is None else str(a) for a in wanted)})"


def _fits(found: tuple[int, ...] | list[int], wanted: Shape) -> bool:
    return all(not isinstance(want, int) or have == want for have, want in zip(found, wanted, strict=True))
