"""Maps that are arrays and can be asked for by the name of an input: `result.map` and `result.map("image")`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np


class SpatialMap(np.ndarray):
    """A map (N, *spatial) of one tensor: an array in every way, which returns itself for that tensor's name."""

    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Any, names: tuple[str, ...]) -> Self:
        """Return a view of values as the map of a tensor. names: of the tensor; () where it is not known."""
        found = np.asarray(values).view(cls)
        found.names = names
        return found

    def __call__(self, name: str | None = None) -> np.ndarray:
        """Return the map as a plain array. Raises ValueError for the name of another tensor."""
        if name is not None and self.names and name not in self.names:
            raise ValueError(f"no map of {name!r}. Fix: choose from {', '.join(self.names)}")
        return np.asarray(self)


class SpatialMaps(dict[str, np.ndarray]):
    """{tensor: map (N, *spatial)}, which returns the map of a tensor for its name, without a name that of the first."""

    def __init__(self, maps: Mapping[str, np.ndarray]) -> None:
        super().__init__(maps)

    def __call__(self, name: str | None = None) -> np.ndarray:
        """Return one of the maps. Raises ValueError for an unknown name."""
        if name is not None and name not in self:
            raise ValueError(f"no map of {name!r}. Fix: choose from {', '.join(self)}")
        return self[next(iter(self)) if name is None else name]
