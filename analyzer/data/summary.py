"""Summarize the explanations of a data set: accuracy, completeness, mean maps of classes, unusual samples.

Reads the rows once. Keeps a few numbers of each sample, and its map as 8 × 8 cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analyzer.data.statistics import ClassMaps, MapPair, area_of_half, share_inside
from converters.system.plain_data import plain


@dataclass(frozen=True)
class SummaryRow:
    """A sample of a result. label_index: the class of its label; map: None where the method has none."""

    id: str
    label_index: int | None = None
    target: int | None = None
    predicted: int | None = None
    error: float | None = None
    map: np.ndarray | None = None


@dataclass(frozen=True)
class ClassSummary:
    """The samples for which one class was explained, under the names of `SetSummary.to_json`.

    right: the share of the samples with this label that the model classifies right. area_of_half: the mean over samples
    of the smallest share of the map that holds half of it; mean_map_area_of_half: that of the mean map.
    """

    target: int | None
    name: str
    samples: int
    labelled: int
    right: float | None
    area_of_half: float
    mean_map: np.ndarray | None
    mean_map_area_of_half: float
    inside_mask: float | None
    alike: MapPair | None
    different: MapPair | None


@dataclass(frozen=True)
class SetSummary:
    """A summary of the explanations of a data set.

    samples: explained. errors: {reason: number of samples that could not be explained}.
    labelled, accuracy: samples whose label is a class of the model, and the share of them that is classified right.
    completeness: (samples,) relative errors, without those of methods that claim none.
    areas: (samples,) smallest share of each map that holds half of it; NaN without a map.
    inside, uniform: (samples,) share of each map inside its mask, and share of the mask itself; NaN without a mask.
    classes: by the number of samples, the largest first.
    """

    samples: int
    errors: Mapping[str, int]
    labelled: int
    accuracy: float | None
    completeness: np.ndarray
    areas: np.ndarray
    inside: np.ndarray
    uniform: np.ndarray
    classes: Sequence[ClassSummary]
    ids: Sequence[str]

    def ordered(self, values: np.ndarray) -> list[int]:
        """Return the places of samples with a value, from the smallest value to the largest."""
        order = np.argsort(values, kind="stable")
        return [int(place) for place in order if not np.isnan(values[place])]

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain data. Samples are named by their ids."""
        order = self.ordered(self.areas)
        masked = ~np.isnan(self.inside)
        return {
            "samples": self.samples,
            "errors": dict(self.errors),
            "labelled": self.labelled,
            "accuracy": self.accuracy,
            "completeness_error": _spread(self.completeness),
            "area_of_half": _spread(self.areas[~np.isnan(self.areas)]),
            "most_concentrated": [self.ids[place] for place in order[:12]],
            "least_concentrated": [self.ids[place] for place in order[::-1][:12]],
            "inside_mask": float(self.inside[masked].mean()) if masked.any() else None,
            "uniform_inside_mask": float(self.uniform[masked].mean()) if masked.any() else None,
            "classes": [self._class(one) for one in self.classes],
        }

    def _class(self, one: ClassSummary) -> dict[str, Any]:
        found = {
            key: value for key, value in vars(one).items() if key not in ("mean_map", "alike", "different")
        }
        for kind in ("alike", "different"):
            pair = getattr(one, kind)
            found[kind] = pair and {
                "ids": [self.ids[pair.first], self.ids[pair.second]],
                "correlation": pair.correlation,
            }
        return {key: plain(value) for key, value in found.items()}


@dataclass
class _OfClass:
    """What is counted of one class."""

    maps: ClassMaps = field(default_factory=ClassMaps)
    places: list[int] = field(default_factory=list)
    labelled: int = 0
    right: int = 0


def summarize(
    rows: Iterable[SummaryRow],
    *,
    class_names: Sequence[str] = (),
    mask_of: Callable[[SummaryRow], np.ndarray | None] | None = None,
    errors: Mapping[str, int] | None = None,
) -> SetSummary:
    """Summarize rows. mask_of: gives a sample's mask in [0, 1], of the shape of its map, None where it has none."""
    found: dict[int | None, _OfClass] = {}
    ids: list[str] = []
    completeness, areas, inside, uniform = [], [], [], []
    for place, row in enumerate(rows):
        ids.append(row.id)
        own = found.setdefault(row.target, _OfClass())
        own.places.append(place)
        if row.label_index is not None and row.predicted is not None:
            labelled = found.setdefault(row.label_index, _OfClass())
            labelled.labelled += 1
            labelled.right += row.label_index == row.predicted
        if row.error is not None and not np.isnan(row.error):
            completeness.append(row.error)
        areas.append(float("nan") if row.map is None else area_of_half(row.map))
        mask = mask_of(row) if mask_of is not None and row.map is not None else None
        inside.append(float("nan") if mask is None or row.map is None else share_inside(row.map, mask))
        uniform.append(float("nan") if mask is None else float(mask.mean()))
        if row.map is not None:
            own.maps.add(place, row.map)
    area, within = np.asarray(areas), np.asarray(inside)
    classes = [
        _summary_of(target, one, class_names, area, within) for target, one in found.items() if one.places
    ]
    labels = sum(one.labelled for one in found.values())
    return SetSummary(
        samples=len(ids),
        errors=dict(errors or {}),
        labelled=labels,
        accuracy=sum(one.right for one in found.values()) / labels if labels else None,
        completeness=np.asarray(completeness),
        areas=area,
        inside=within,
        uniform=np.asarray(uniform),
        classes=sorted(classes, key=lambda one: -one.samples),
        ids=ids,
    )


def _summary_of(
    target: int | None, own: _OfClass, names: Sequence[str], areas: np.ndarray, inside: np.ndarray
) -> ClassSummary:
    mean = own.maps.mean
    pairs = own.maps.extremes()
    return ClassSummary(
        target=target,
        name=_name(target, names),
        samples=len(own.places),
        labelled=own.labelled,
        right=own.right / own.labelled if own.labelled else None,
        area_of_half=_mean(areas[own.places]),
        mean_map=mean,
        mean_map_area_of_half=float("nan") if mean is None else area_of_half(mean),
        inside_mask=None if np.isnan(inside[own.places]).all() else _mean(inside[own.places]),
        alike=pairs and pairs[0],
        different=pairs and pairs[1],
    )


def _name(target: int | None, names: Sequence[str]) -> str:
    if target is None:
        return "all samples"
    return names[target] if 0 <= target < len(names) else f"class {target}"


def _mean(values: np.ndarray) -> float:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else float("nan")


def _spread(values: np.ndarray) -> dict[str, float] | None:
    """Return the smallest value, the median and the largest; None without values."""
    if not values.size:
        return None
    return {
        "smallest": float(values.min()),
        "median": float(np.median(values)),
        "largest": float(values.max()),
    }
