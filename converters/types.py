"""The types that several modules of `converters` share."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

NamedArrays = Mapping[str, np.ndarray]
"""Arrays by tensor name, to be read and not changed."""

Shape = tuple[int | str | None, ...]
"""The sizes of a tensor: an int, the symbol of a free size, or None where nothing is known."""
