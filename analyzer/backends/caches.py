"""Typed caches of a model: values that depend on the model alone, computed once and kept with it.

A module declares one cache for each type of value, `_VIEWS: Cache[Differentiable] = Cache("views")`, and reads it with
`_VIEWS.get(fn, key, make)`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Differentiable

_Value = TypeVar("_Value")


@dataclass(frozen=True, eq=False)
class Cache(Generic[_Value]):
    """A cache of one type of value. Two caches are different even where their names are equal."""

    name: str

    def of(self, fn: Differentiable) -> dict[Hashable, _Value]:
        """Return the values of this cache that a model keeps."""
        found: dict[Hashable, _Value] = fn.caches.setdefault(self, {})
        return found

    def get(self, fn: Differentiable, key: Hashable, make: Callable[[], _Value]) -> _Value:
        """Return the value of a key that a model keeps; make it where there is none."""
        kept = self.of(fn)
        if key not in kept:
            kept[key] = make()
        return kept[key]


Caches: TypeAlias = dict[Cache[Any], dict[Hashable, Any]]
