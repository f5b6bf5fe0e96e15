"""Give each tensor or node a name that no other has, in a time that does not grow with the number of names."""

from __future__ import annotations

from collections.abc import Iterable


class UniqueNames:
    """Names that are taken. It only grows, so that each search goes on where the last one with its stem ended."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.taken = set(taken)
        self._counts: dict[str, int] = {}

    def take(self, names: Iterable[str]) -> None:
        """Enter names."""
        self.taken.update(names)

    def fresh(self, stem: str) -> str:
        """Enter and return the stem, or the first of stem_2, stem_3, … that is not taken."""
        name, count = stem, self._counts.get(stem, 1)
        while name in self.taken:
            count += 1
            name = f"{stem}_{count}"
        self._counts[stem] = count
        self.taken.add(name)
        return name
