"""LabelIndex of a data set as classes of a model, where that is certain.

A label is matched by its name: to a class name, or one of its synonyms. A number without a name is a class index. The
order of names is not guessed: where no class has the name of a label, there is no index.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from analyzer.data.sources.base import Label
from analyzer.errors import TargetError
from analyzer.target.class_names import find_class


def has_class(names: Sequence[str] | None, text: str) -> bool:
    """Return whether a class, or one of its synonyms, has this name."""
    try:
        return find_class(text, names) is not None
    except TargetError:
        return True


class LabelIndex:
    """How labels become class indices.

    names: of labels that are numbers. class_names: those of the model. classes: the number of the model's classes; None
    where it is not known.
    """

    def __init__(
        self, names: Sequence[str] | None, class_names: Sequence[str] | None, classes: int | None
    ) -> None:
        self.names, self.class_names, self.classes = names, class_names, classes
        self._named = cache(self._find)

    def text(self, label: Label) -> str | None:
        """Return a label as a text: its name, where the source has names."""
        if label is None or isinstance(label, str):
            return label
        return self.names[label] if self.names and 0 <= label < len(self.names) else str(label)

    def index(self, label: Label) -> int | None:
        """Return the class of a label, None where it is not certain."""
        if label is None:
            return None
        if isinstance(label, int):
            if self.names is None:
                return self._within(label)
            if not 0 <= label < len(self.names):
                return None
            if self.class_names is None:
                # Without names in the model, the order is that of the labels only if there are as many.
                return label if self.classes == len(self.names) else None
            label = self.names[label]
        return self._named(label)

    def _find(self, label: str) -> int | None:
        if self.class_names is not None and label in self.class_names:
            return self.class_names.index(label) if self.class_names.count(label) == 1 else None
        if label.isascii() and label.isdecimal():
            return self._within(int(label)) if self.names is None else None
        try:
            return None if label.startswith("-") else find_class(label, self.class_names)
        except TargetError:
            return None

    def _within(self, index: int) -> int | None:
        return index if index >= 0 and (self.classes is None or index < self.classes) else None
