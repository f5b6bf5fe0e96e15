"""Results as plain data: for the terminal's tables, for JSON, and for the HTML report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.analysis import FULL_GRAD, MethodResult
from analyzer.analysis.common import class_label
from analyzer.analysis.pictures import result_bars
from analyzer.figures.numbers import format_error, format_value
from analyzer.methods.full_gradient.result import layers_of
from analyzer.report.page import CompletenessRow as Completeness
from analyzer.report.page import Prediction, Sample

if TYPE_CHECKING:
    from analyzer.figures import ScoredTokens
    from analyzer.figures.picture import Picture

Names = Sequence[str] | None
ARRAYS = ("unplaced_total", "output", "explained", "total", "error", "target")


def predictions(outputs: np.ndarray, names: Names = None, most: int = 5) -> list[tuple[Prediction, ...]]:
    """The highest classes of each sample, of an output (N, classes); empty where the output is none such."""
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        return [() for _ in range(outputs.shape[0] if outputs.ndim else 1)]
    probabilities = _probabilities(outputs.astype(np.float64))
    ranked = np.argsort(-outputs, axis=1, kind="stable")[:, :most]
    return [
        tuple(Prediction(int(i), class_label(int(i), names), float(row[i]), float(p[i])) for i in order)
        for order, row, p in zip(ranked, outputs, probabilities, strict=True)
    ]


def _probabilities(outputs: np.ndarray) -> np.ndarray:
    """The outputs where they are probabilities already, else their softmax."""
    if (outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
        return outputs
    powers: np.ndarray = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def completeness_rows(results: Sequence[MethodResult], names: Sequence[str]) -> list[Completeness]:
    """One row per sample and method, samples together."""
    return [
        Completeness(
            sample=name,
            method=result.title_of(index),
            output=float(result.explained[index]),
            total=float(result.total[index]),
            error=float(result.error[index]),
            passed=result.passed[index],
            note="" if result.passed[index] else _shortfall(result, index),
        )
        for index, name in enumerate(names)
        for result in results
        if result.total is not None and result.error is not None
    ]


def _shortfall(result: MethodResult, index: int) -> str:
    """What is left unexplained of one sample, and why."""
    assert result.total is not None
    missing = format_value(float(result.explained[index] - result.total[index]))
    return f"{missing} unexplained: {result.note}" if result.note else f"{missing} unexplained"


def judgement(results: Sequence[MethodResult]) -> tuple[bool | None, str]:
    """The verdict on completeness, in a line; None where none is claimed."""
    claimed = [result for result in results if any(passed is not None for passed in result.passed)]
    if not claimed:
        return None, "Completeness is stated, not claimed"
    failed = dict.fromkeys(_title(one) for one in claimed if any(passed is False for passed in one.passed))
    if failed:
        return False, f"{' and '.join(failed)} miss what they must add up to"
    worst: dict[str, float] = {}
    for result in claimed:
        if result.error is not None:
            worst[_title(result)] = max(worst.get(_title(result), 0.0), float(result.error.max()))
    return True, ", ".join(f"{name} is complete to {format_error(error)}" for name, error in worst.items())


def _title(result: MethodResult) -> str:
    return result.label.partition(",")[0]


def samples(
    results: Sequence[MethodResult],
    names: Sequence[str],
    predicted: Sequence[tuple[Prediction, ...]],
    pictures: Sequence[Mapping[str, Picture]],
    class_names: Names,
    texts: Sequence[Sequence[ScoredTokens]] = (),
) -> list[Sample]:
    """What the report shows of each input."""
    full_grads = [result for result in results if result.method == FULL_GRAD]
    first = by_method(results)[0]
    return [
        Sample(
            name=name,
            target="; ".join(target_text(result, index, class_names) for result in first),
            pictures=tuple(pictures[index].values()),
            predictions=predicted[index],
            bars=result_bars(full_grads[0], index) if full_grads else (),
            output=float(results[0].output[index]),
            texts=texts[index] if texts else (),
        )
        for index, name in enumerate(names)
    ]


def target_text(result: MethodResult, index: int, class_names: Names) -> str:
    """What was explained of one sample: "espresso (967)", or what is no class as it was asked for."""
    if result.target is None:
        return result.asked or "a weighted sum of the outputs"
    chosen = int(result.target[index])
    named = class_names is not None and 0 <= chosen < len(class_names)
    return f"{class_label(chosen, class_names)} ({chosen})" if named else f"class {chosen}"


def by_method(results: Sequence[MethodResult]) -> list[list[MethodResult]]:
    """The results of each method: one, or one for each class that is explained of a sample."""
    groups: dict[str, list[MethodResult]] = {}
    for result in results:
        groups.setdefault(result.method, []).append(result)
    return list(groups.values())


def arrays_of(results: Sequence[MethodResult]) -> dict[str, np.ndarray]:
    """The arrays that are written as .npz, by method: maps, attributions, completeness, layer totals.

    Where several classes of a sample are explained, these are a second axis, (N, k, …).
    """
    found: dict[str, np.ndarray] = {}
    for group in by_method(results):
        parts = [_arrays(result) for result in group]
        found |= (
            parts[0]
            if not group[0].classes
            else {name: np.stack([part[name] for part in parts], axis=1) for name in parts[0]}
        )
    return found


def _arrays(result: MethodResult) -> dict[str, np.ndarray]:
    stem = result.method.replace("-", "_")
    found = {f"{stem}/attributions/{name}": array for name, array in result.attributions.items()}
    known = {name: getattr(result, name) for name in ARRAYS}
    found |= {f"{stem}/{name}": array for name, array in known.items() if array is not None}
    for name, maps in (("map", result.maps), ("complete_map", result.complete_maps)):
        several = len(maps) > 1
        found |= {f"{stem}/{name}/{key}" if several else f"{stem}/{name}": m for key, m in maps.items()}
    if result.shares:
        found[f"{stem}/layer_totals"] = np.stack([share.total for share in result.shares], axis=1)
        found[f"{stem}/layer_tensors"] = np.array([share.tensor for share in result.shares])
    return found


def as_json(results: Sequence[MethodResult], index: int, class_names: Names) -> dict[str, Any]:
    """One sample's results for the machine-readable output: a record of each method, or {"classes": records}."""
    return {
        group[0].method: {"classes": [_record(result, index, class_names) for result in group]}
        if group[0].classes
        else _record(group[0], index, class_names)
        for group in by_method(results)
    }


def _record(result: MethodResult, index: int, class_names: Names) -> dict[str, Any]:
    chosen = None if result.target is None else int(result.target[index])
    return {
        "target": chosen,
        "target_name": None if chosen is None or class_names is None else class_label(chosen, class_names),
        "output": float(result.output[index]),
        "completeness": completeness_json(result, index),
        **_decomposition_json(result, index),
        "settings": dict(result.settings),
    }


def completeness_json(result: MethodResult, index: int) -> dict[str, Any] | None:
    """What one sample's attributions add up to; None of a method that gives a map alone."""
    if result.total is None or result.error is None or result.delta is None:
        return None
    return {
        "explained": float(result.explained[index]),
        "total": float(result.total[index]),
        "delta": float(result.delta[index]),
        "relative_error": float(result.error[index]),
        "passed": result.passed[index],
    }


def _decomposition_json(result: MethodResult, index: int) -> dict[str, Any]:
    """What makes the output, in network order, with shares of it; and how much of that the complete map holds."""
    if result.unplaced_total is None:
        return {}
    output = float(result.explained[index])

    def part(total: float) -> dict[str, Any]:
        return {"sum": total, "share": total / output if output else None}

    return {
        "inputs": {name: part(float(total[index])) for name, total in result.input_totals.items()},
        "layers": [
            {
                "layer": layer.name,
                "kind": kind,
                "tensors": [one.tensor for one in layer.contributions if one.kind == kind],
                **part(float(total[index])),
            }
            for layer in layers_of(result.shares)
            for kind, total in layer.by_kind.items()
        ],
        "complete_map": {
            "sums": {name: float(found[index].sum()) for name, found in result.complete_maps.items()},
            "unplaced": list(result.unplaced),
            "unplaced_total": float(result.unplaced_total[index]),
        },
    }
