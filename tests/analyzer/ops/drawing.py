"""What the strategies of all families share: generators, axes and inputs that hypothesis draws.

A strategy keeps values clear of kinks by far more than the step of a central difference, and within what ONNX Runtime
runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

Draw = st.DrawFn
SIDES = st.integers(1, 4)


def generators() -> st.SearchStrategy[np.random.Generator]:
    """Random generators, by a drawn seed."""
    return st.integers(0, 9999).map(np.random.default_rng)


def open_axes(draw: Draw, rank: int) -> tuple[int, ...]:
    """Some of the axes, often none."""
    axes = st.lists(st.integers(0, rank - 1), unique=True).map(lambda found: tuple(sorted(found)))
    return draw(st.one_of(st.just(()), axes)) if rank else ()


def some_of(draw: Draw, indices: Sequence[int]) -> tuple[int, ...]:
    """At least one of several inputs, ascending."""
    return tuple(sorted(draw(st.sets(st.sampled_from(list(indices)), min_size=1))))


def signed(draw: Draw, axis: int, rank: int) -> int:
    """An axis, counted from the front or from the back."""
    return draw(st.sampled_from([axis, axis - rank]))
