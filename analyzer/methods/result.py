"""The result of an attribution method: attributions by tensor, their completeness, and ways to look at and keep them.

`Attribution` has what all methods share. A subclass adds what its paper adds, under the paper's names.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from analyzer import archive
from analyzer.deprecation import renamed
from analyzer.errors import AnalysisError
from analyzer.graph.samples.arrangement import INDEPENDENT, Arrangement
from analyzer.graph.samples.labels import Span
from analyzer.methods.completeness import Completeness
from analyzer.methods.spatial_map import SpatialMap, SpatialMaps
from analyzer.methods.subset import LIKE_INPUTS, count_of, subset
from converters.system.plain_data import plain

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from analyzer.figures.plots import Look

BASELINE_DIFFERENCE = "the difference from the output of the baseline"
MAP_UNIT = "saliency, without unit"
OUTPUT_UNIT = "units of the output, per element"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Attribution:
    """The result of an attribution method for N samples.

    attributions: one array like the input, (N, *features); {tensor: array} of several inputs, or where `wrt` named
        tensors. Of a method that only draws a map, such as Grad-CAM, the map.
    output: (N,), the explained scalar of each sample.
    target: (N,) class indices; None where no class is explained.
    completeness: of the attributions' sum; None of a method whose attributions sum to nothing.
    signed: whether the map has a sign; of an unsigned map, more is more important.
    wrt: the ONNX names of the tensors that are attributed.
    maps: the map of a method that defines one, (N, *spatial) or {tensor: map}. Read `map`, which all results have.
    channel_axes: {tensor: the axis that its map sums over}.
    evaluations: gradients computed for each sample, where there is more than one.
    method, settings, seconds: the method's name, its options and how long it took.
    class_names: the model's names of its classes, where it has them.
    classes: the name of the explained class of each sample, where the result is one of several classes of each sample.
    samples: "independent", or "joint" where samples depend on one another and the whole call is explained as one:
        output is then (1,). Of methods that draw at random, the number of draws; `joint` is set for all methods.
    note: a remark on how the samples were found; usually empty.
    """

    attributions: Any = None
    output: np.ndarray
    target: np.ndarray | None = None
    completeness: Completeness | None = None
    signed: bool = True
    wrt: tuple[str, ...] = ()
    maps: Any = None
    channel_axes: Mapping[str, int] = field(default_factory=dict)
    evaluations: int = 1
    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = math.nan
    class_names: tuple[str, ...] | None = None
    classes: tuple[str, ...] = ()
    samples: Any = INDEPENDENT
    joint: bool = False
    note: str = ""
    arrangement: Arrangement | None = None

    def __post_init__(self) -> None:
        if self.attributions is None:
            object.__setattr__(self, "attributions", self.maps)

    @property
    def map(self) -> Any:
        """The map over the input, (N, *spatial): an array, or {tensor: array} where several tensors are attributed.

        It can be called with a tensor's name, `result.map("image")`, whichever form it has. Attributions without a map
        of their own are summed over channels. The unit is the output's where the map is signed, else there is none.
        """
        found = self._summed() if self.maps is None else self.maps
        if isinstance(found, Mapping):
            return SpatialMaps(found)
        return SpatialMap.of(found, self.wrt)

    @cached_property
    def delta(self) -> np.ndarray | None:
        """(N,): the sum of the attributions minus the required sum; None of methods without completeness."""
        found = self.completeness
        return None if found is None else found.total - found.output

    @property
    def is_map(self) -> bool:
        """Whether the attributions are the map itself."""
        return isinstance(self, SaliencyMap)

    def by_tensor(self, value: Any) -> dict[str, np.ndarray]:
        """Return attributions or maps as {tensor: array}, also where they are one array."""
        if value is None:
            return {}
        return dict(value) if isinstance(value, Mapping) else {self.wrt[0] if self.wrt else "": value}

    def attributions_at(self, name: str) -> np.ndarray:
        """Return the attributions of one input, or tensor, by its name."""
        found: np.ndarray = (
            self.attributions[name] if isinstance(self.attributions, Mapping) else self.attributions
        )
        return found

    def _summed(self) -> Any:
        """The attributions summed over channels, in their own form."""
        summed = {
            name: array.sum(axis=self.channel_axes[name])
            if name in self.channel_axes and array.ndim > 2
            else array
            for name, array in self._samples_first().items()
        }
        return summed if isinstance(self.attributions, Mapping) else next(iter(summed.values()))

    def _samples_first(self) -> dict[str, np.ndarray]:
        return {name: self.first(name, array) for name, array in self.by_tensor(self.attributions).items()}

    # What tables, pages and pictures say of the result.

    @property
    def caption(self) -> str:
        """The name of the method, as its paper writes it."""
        from analyzer.methods.registry import METHODS

        return METHODS[self.method].caption if self.method in METHODS else type(self).__name__

    @property
    def detail(self) -> str:
        """A detail of this run of the method, such as its number of gradients."""
        return ""

    @property
    def label(self) -> str:
        """The caption with the detail, such as "Integrated Gradients, 50 gradients"."""
        return ", ".join(filter(None, [self.caption, self.detail]))

    @cached_property
    def passed(self) -> tuple[bool | None, ...]:
        """For each sample, whether completeness holds; None where the method does not claim it."""
        return (None,) * len(np.atleast_1d(self.output))

    @property
    def remark(self) -> str:
        """A remark on the completeness, such as how the sum comes closer; empty where it needs none."""
        return ""

    @property
    def sums_to(self) -> str:
        """The number that the attributions sum to, in words, where it is not the explained output; else empty."""
        return ""

    @property
    def stated(self) -> dict[str, Any]:
        """Further numbers of the computation, for the machine-readable output."""
        return {} if self.evaluations == 1 else {"evaluations": self.evaluations}

    @property
    def of_each_class(self) -> list[Self]:
        """The result of each of several classes of a sample; the result itself where one scalar is explained."""
        return [self]

    def class_of(self, sample: int) -> str:
        """Return the name of the class that is explained of a sample, "class 3" without names, "" without a class."""
        if self.classes:
            return self.classes[sample]
        if self.target is None or np.ndim(self.target) != 1:
            return ""
        return class_label(int(self.target[sample]), self.class_names)

    # Some of the samples.

    def __len__(self) -> int:
        """Return the number of samples."""
        return count_of(self)

    def __getitem__(self, key: Any) -> Self:
        """Return the result of some samples: result[2], result[:3], result[[0, 2]]. It has the same class.

        Raises IndexError for a sample that is not there, and AnalysisError where the samples cannot be taken apart.
        """
        return subset(self, key)

    # Arrays with the samples along axis 0, and as the user's model has them.

    def first(self, name: str, array: Any) -> Any:
        """Return an array like an input, or an attributed tensor, with the samples along axis 0."""
        if self.arrangement is None or array is None:
            return array
        return self.arrangement.first(name, np.asarray(array))

    def restored(self, arrangement: Arrangement, single: str) -> Self:
        """Return the result with arrays as the user's model has them. single: the input of a result of one array."""
        own = self.arrangement
        if own is not None:
            spans, wrapped = {**arrangement.spans, **own.spans}, arrangement.wrapped | own.wrapped
            arrangement = replace(arrangement, spans=spans, wrapped=wrapped)
        name = next(iter(self.channel_axes), single)
        moved = {
            one.name: _each(getattr(self, one.name), name, arrangement)
            for one in fields(self)
            if one.name in LIKE_INPUTS
            and np.ndim(self.output) < 2
            and not (one.name == "attributions" and self.is_map)
        }
        return replace(self, **moved, arrangement=arrangement)

    # Looking at it.

    def drawn(self, name: str, **how: Any) -> tuple[np.ndarray, Look]:
        """Return the values (N, *spatial) that `plot` draws for a tensor, and how. how: further options of a method."""
        from analyzer.figures import PIXELS, Look

        own = self.by_tensor(self.map)
        errors = getattr(self, "standard_error", None) if self.maps is None else None
        if errors is not None:
            errors = self.first(name, errors[name] if isinstance(errors, Mapping) else errors)
        return own[name], Look(
            title=name if len(own) > 1 else "",
            unit=OUTPUT_UNIT if self.maps is None else MAP_UNIT,
            signed=self.signed,
            smoothing=PIXELS if self.signed else 0.0,
            errors=errors if own[name].ndim == 2 else None,
        )

    def is_table(self, name: str, inputs: np.ndarray | None) -> bool:
        """Return whether a map of one axis is of a table's features, not of the steps of a signal."""
        if self.is_map or self.maps is not None:
            return self.by_tensor(self.map)[name].ndim == 2 and (inputs is None or inputs.ndim == 2)
        return bool(self.first(name, self.attributions_at(name)).ndim == 2)

    @renamed(inputs="images")
    def plot(
        self,
        images: Any = None,
        *,
        of: str | None = None,
        features: Sequence[str] | None = None,
        cmap: str | None = None,
        alpha: float | None = None,
        title: str | None = None,
        ax: Axes | None = None,
        sample: int | None = None,
    ) -> Figure:
        """Draw the map: over images, under signals, of volumes from three sides, of a table as a bar for each feature.

        images: the inputs, as they were explained; None draws the map alone.
        of: the input whose map is drawn, of several; default the first.
        features: the names of a table's columns.
        cmap: a Matplotlib colour map, in place of the method's own. alpha: the opacity of the map's strongest pixels,
            from 0 to 1; default 0.9.
        title: above the figure; default the method, and the class where there is one.
        ax: Matplotlib axes to draw one sample into. sample: its index, default the first; without ax, draw it alone.
        Returns the figure, which a notebook shows, and `plt.show()` in a script.
        Raises ValueError where there is no such input, or it does not have the size of the map.
        """
        from analyzer.methods.drawing import plot

        return plot(
            self,
            images,
            of=of,
            features=features,
            cmap=cmap,
            alpha=alpha,
            title=title,
            ax=ax,
            sample=sample,
        )

    def __repr__(self) -> str:
        from analyzer.methods.views import text

        return text(self)

    def _repr_html_(self) -> str:
        from analyzer.methods.views import html

        return html(self)

    # Keeping it.

    def to_json(self) -> str:
        """Return the numbers of every sample as JSON: no array of the size of an input or a layer."""
        return json.dumps(plain(self._document()), indent=1)

    def _document(self) -> dict[str, Any]:
        from analyzer.methods.views import document

        return document(self)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a row for each sample: target, output and completeness; the features of a table. Needs pandas."""
        from analyzer.methods.views import frame

        return frame(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result as one .npz file, whole or not at all. `Attribution.load` reads it."""
        archive.save(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Any:
        """Read a result that `save` wrote, as an object of its own class. Nothing is unpickled.

        Raises AnalysisError where the file is not such a result.
        """
        return archive.load(path, _kinds(), Attribution)


class SaliencyMap(Attribution):
    """The result of a method that draws a map and attributes nothing else, such as Grad-CAM or Simple FullGrad."""


def _kinds() -> dict[str, Any]:
    """The classes that a saved result may hold, by name."""
    from analyzer.methods.full_gradient.result import Contribution, Terms

    found: dict[str, Any] = {
        part.__name__: part for part in (Arrangement, Completeness, Contribution, Span, Terms)
    }
    stack: list[type[Attribution]] = [Attribution]
    while stack:
        one = stack.pop()
        found[one.__name__] = one
        stack += one.__subclasses__()
    return found


def class_label(index: int, names: Sequence[str] | None) -> str:
    """Return the name of a class, or "class 3"."""
    return names[index] if names is not None and 0 <= index < len(names) else f"class {index}"


def chosen_input(names: Iterable[str], of: str | None) -> str:
    """Return the input that is drawn. Raises ValueError for an unknown name."""
    known = list(names)
    if of is not None and of not in known:
        raise ValueError(f"no map of {of!r}. Fix: choose from {', '.join(known)}")
    return of or known[0]


def refuse_ranked(result: Attribution) -> None:
    """Raise AnalysisError where several classes of each sample are explained."""
    if np.ndim(result.output) == 2:
        raise AnalysisError(
            f"the result explains {result.output.shape[1]} classes of each sample. Fix: take one, as in result.rank(0)"
        )


def _each(value: Any, name: str, arrangement: Arrangement) -> Any:
    """Arrays in a list, in a dict by name, or alone under `name`, as the user's model has them."""
    if isinstance(value, list):
        return [_each(one, name, arrangement) for one in value]
    if isinstance(value, Mapping):
        return arrangement.all_back(value)
    return value if value is None else arrangement.back(name, np.asarray(value))
