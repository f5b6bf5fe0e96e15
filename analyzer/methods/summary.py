"""Results as plain data: for the terminal's tables, for JSON, and for the HTML report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.figures.numbers import format_error, format_value
from analyzer.methods.answers import answer
from analyzer.methods.full_gradient.result import FullGrad
from analyzer.methods.pictures import result_bars, title_of
from analyzer.methods.result import Attribution, class_label
from analyzer.report.page import CompletenessRow, Prediction, Sample

if TYPE_CHECKING:
    from analyzer.figures import ScoredTokens
    from analyzer.figures.picture import Picture

ClassNames = Sequence[str] | None
Asked = str | tuple[str, ...]


def predictions(outputs: np.ndarray, names: ClassNames = None, most: int = 5) -> list[tuple[Prediction, ...]]:
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


def completeness_rows(results: Sequence[Attribution], names: Sequence[str]) -> list[CompletenessRow]:
    """One row per sample and method, samples together."""
    return [
        CompletenessRow(
            sample=name,
            method=title_of(result, index),
            output=float(result.completeness.output[index]),
            total=float(result.completeness.total[index]),
            error=float(result.completeness.error[index]),
            passed=result.passed[index],
            note=_note(result, index),
        )
        for index, name in enumerate(names)
        for result in results
        if result.completeness is not None
    ]


def _note(result: Attribution, index: int) -> str:
    """Return what a sum is compared with, where that is not the output, and its shortfall where it does not hold."""
    against = f"to explain: {result.sums_to}" if result.sums_to else ""
    return "; ".join(filter(None, [against, "" if result.passed[index] else _shortfall(result, index)]))


def _shortfall(result: Attribution, index: int) -> str:
    """Return the unexplained rest of one sample, and the reason."""
    assert result.delta is not None
    missing = format_value(-float(result.delta[index]))
    return f"{missing} unexplained: {result.remark}" if result.remark else f"{missing} unexplained"


def judgement(results: Sequence[Attribution]) -> tuple[bool | None, str]:
    """Return the verdict on completeness, in a line. It is None where no method claims it of all samples."""
    failed = dict.fromkeys(one.caption for one in results if False in one.passed)
    if failed:
        return False, f"{' and '.join(failed)} miss what they must add up to"
    summed = [one for one in results if one.completeness is not None]
    open_ones = dict.fromkeys(one.caption for one in summed if None in one.passed)
    worst: dict[str, float] = {}
    for one in summed:
        if one.caption not in open_ones and one.completeness is not None:
            worst[one.caption] = max(worst.get(one.caption, 0.0), float(one.completeness.error.max()))
    words = [f"{name} is complete to {format_error(error)}" for name, error in worst.items()]
    words += [f"{name} is not judged" for name in open_ones]
    return True if worst else None, ", ".join(words) or "no method claims completeness"


def samples(
    results: Sequence[Attribution],
    names: Sequence[str],
    predicted: Sequence[tuple[Prediction, ...]],
    pictures: Sequence[Mapping[str, Picture]],
    class_names: ClassNames,
    texts: Sequence[Sequence[ScoredTokens]] = (),
    asked: Asked = "",
    one_scale: Sequence[Sequence[Picture]] = (),
) -> list[Sample]:
    """Return the report's sections, one for each input. asked: the target in the user's words."""
    full_grads = [result for result in results if isinstance(result, FullGrad)]
    first = by_method(results)[0]
    targets = [
        "; ".join(target_text(result, index, class_names, asked) for result in first)
        for index in range(len(names))
    ]
    return [
        Sample(
            name=name,
            answer=answer(results, index, predicted[index], targets[index]),
            target=targets[index],
            pictures=tuple(pictures[index].values()),
            predictions=predicted[index],
            bars=result_bars(full_grads[0], index) if full_grads else (),
            output=float(results[0].output[index]),
            texts=texts[index] if texts else (),
            one_scale=one_scale[index] if one_scale else (),
        )
        for index, name in enumerate(names)
    ]


def target_text(result: Attribution, index: int, class_names: ClassNames, asked: Asked = "") -> str:
    """Return the target of one sample: "espresso (967)", or, without a class, the user's own words.

    asked: words for all samples, or for each.
    """
    if result.target is None:
        return (asked if isinstance(asked, str) else asked[index]) or "a weighted sum of the outputs"
    chosen = int(result.target[index])
    named = class_names is not None and 0 <= chosen < len(class_names)
    return f"{class_label(chosen, class_names)} ({chosen})" if named else f"class {chosen}"


def by_method(results: Sequence[Attribution]) -> list[list[Attribution]]:
    """The results of each method: one, or one for each class that is explained of a sample."""
    groups: dict[str, list[Attribution]] = {}
    for result in results:
        groups.setdefault(result.method, []).append(result)
    return list(groups.values())


def arrays_of(results: Sequence[Attribution]) -> dict[str, np.ndarray]:
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


def _arrays(result: Attribution) -> dict[str, np.ndarray]:
    stem = result.method.replace("-", "_")
    sums = result.completeness
    attributions = {} if result.is_map else result.by_tensor(result.attributions)
    found = {f"{stem}/attributions/{name}": array for name, array in attributions.items()}
    known = {
        "unplaced_total": getattr(result, "unplaced_total", None),
        "output": doubles(result.output),
        "explained": doubles(result.output) if sums is None else sums.output,
        "total": None if sums is None else sums.total,
        "error": None if sums is None else sums.error,
        "target": result.target,
    }
    found |= {f"{stem}/{name}": array for name, array in known.items() if array is not None}
    for name, value in (("map", result.maps), ("complete_map", getattr(result, "complete_map", None))):
        maps = result.by_tensor(value)
        several = len(maps) > 1
        found |= {f"{stem}/{name}/{key}" if several else f"{stem}/{name}": m for key, m in maps.items()}
    if isinstance(result, FullGrad) and result.contributions:
        shares = result.contributions
        found[f"{stem}/layer_totals"] = np.stack([share.total for share in shares], axis=1)
        found[f"{stem}/layer_tensors"] = np.array([share.tensor for share in shares])
    return found


def doubles(numbers: np.ndarray) -> np.ndarray:
    """A number for each sample, (N,), in double precision."""
    return np.atleast_1d(numbers).astype(np.float64)


def as_json(results: Sequence[Attribution], index: int, class_names: ClassNames) -> dict[str, Any]:
    """One sample's results for the machine-readable output: a record of each method, or {"classes": records}."""
    return {
        group[0].method: {"classes": [_record(result, index, class_names) for result in group]}
        if group[0].classes
        else _record(group[0], index, class_names)
        for group in by_method(results)
    }


def _record(result: Attribution, index: int, class_names: ClassNames) -> dict[str, Any]:
    chosen = None if result.target is None else int(result.target[index])
    return {
        "target": chosen,
        "target_name": None if chosen is None or class_names is None else class_label(chosen, class_names),
        "output": float(result.output[index]),
        "completeness": completeness_json(result, index),
        **_decomposition_json(result, index),
        "settings": {**result.settings, **result.stated},
    }


def completeness_json(result: Attribution, index: int) -> dict[str, Any] | None:
    """Return the completeness of one sample; None of a method without one."""
    sums = result.completeness
    if sums is None or result.delta is None:
        return None
    return {
        "explained": float(sums.output[index]),
        "total": float(sums.total[index]),
        "delta": float(result.delta[index]),
        "relative_error": float(sums.error[index]),
        "passed": result.passed[index],
    }


def _decomposition_json(result: Attribution, index: int) -> dict[str, Any]:
    """Return the terms of the output in network order, with their shares, and the sums of the complete map."""
    if not isinstance(result, FullGrad):
        return {}
    output = float(result.completeness.output[index])

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
            for layer in result.layers
            for kind, total in layer.by_kind.items()
        ],
        "complete_map": {
            "sums": {
                name: float(found[index].sum())
                for name, found in result.by_tensor(result.complete_map).items()
            },
            "unplaced": list(result.unplaced),
            "unplaced_total": float(result.unplaced_total[index]),
        },
    }
