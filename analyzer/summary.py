"""Results as plain data: for the terminal's tables, for JSON, and for the HTML report."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.analysis import FULL_GRAD, MethodResult
from analyzer.figures.charts import Bar
from analyzer.figures.heat import PIXELS, encode_png, enlarged, overlay, smoothed
from analyzer.figures.images import photographs, to_planes
from analyzer.figures.report import (
    Completeness,
    Picture,
    Prediction,
    Sample,
    format_error,
    format_value,
)

if TYPE_CHECKING:
    from converters.model import Preprocessing

Names = Sequence[str] | None


def class_label(index: int, names: Names) -> str:
    """How a class is called: its name, or "class 3"."""
    return names[index] if names is not None and 0 <= index < len(names) else f"class {index}"


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
            method=result.label,
            output=float(result.explained[index]),
            total=float(result.total[index]),
            error=float(result.error[index]),
            passed=result.passed[index],
            note="" if result.passed[index] else _shortfall(result, index),
        )
        for index, name in enumerate(names)
        for result in results
    ]


def _shortfall(result: MethodResult, index: int) -> str:
    """What is left unexplained of one sample, and why."""
    missing = format_value(float(result.explained[index] - result.total[index]))
    return f"{missing} unexplained: {result.note}" if result.note else f"{missing} unexplained"


def judgement(results: Sequence[MethodResult]) -> tuple[bool | None, str]:
    """The verdict on completeness, in a line; None where none is claimed."""
    claimed = [result for result in results if any(passed is not None for passed in result.passed)]
    if not claimed:
        return None, "Completeness is stated, not claimed"
    failed = [result for result in claimed if any(passed is False for passed in result.passed)]
    if failed:
        return False, f"{' and '.join(_title(result) for result in failed)} miss what they must add up to"
    worst = [f"{_title(result)} is complete to {format_error(result.error.max())}" for result in claimed]
    return True, ", ".join(worst)


def _title(result: MethodResult) -> str:
    return result.label.partition(",")[0]


def contribution_bars(result: MethodResult, index: int) -> list[Bar]:
    """The input term and every layer's bias contribution to one sample's output, in network order."""
    inputs = [
        Bar(
            "input × gradient" if len(result.attributions) == 1 else f"{name} × gradient",
            float(a[index].sum()),
            "input",
        )
        for name, a in result.attributions.items()
    ]
    layers = [
        Bar(f"{share.layer} · {share.op_type}", float(share.total[index]), share.kind)
        for share in result.shares
    ]
    return inputs + layers


def sample_pictures(
    results: Sequence[MethodResult],
    inputs: Mapping[str, np.ndarray],
    preprocessing: Preprocessing | None,
) -> list[dict[str, Picture]]:
    """Per sample the photograph and an overlay per map, by a short name; empty where there is no image."""
    drawn = {name: photographs(array, preprocessing) for name, array in inputs.items()}
    name, shown = next(((name, found) for name, found in drawn.items() if found is not None), ("", None))
    if shown is None:
        return [{} for _ in next(iter(inputs.values()))]
    layout = preprocessing.layout if preprocessing else None
    return [
        {
            "photograph": Picture("Photograph", _png(photograph), "as the model sees it"),
            **{
                key: picture
                for result in results
                for key, picture in _overlays(result, name, index, photograph, layout).items()
            },
        }
        for index, photograph in enumerate(shown)
    ]


def _overlays(
    result: MethodResult, name: str, index: int, photograph: np.ndarray, layout: str | None
) -> dict[str, Picture]:
    attributions = result.attributions[name][index : index + 1]
    if result.method != FULL_GRAD:
        plane = to_planes(attributions, layout)
        assert plane is not None
        pixels = _png(overlay(photograph, smoothed(plane[0], PIXELS), signed=True))
        return {
            result.method: Picture(
                "Integrated Gradients", pixels, "red speaks for the class, blue against it"
            )
        }
    size = to_planes(np.abs(attributions), layout)
    assert size is not None
    pictures = {
        "input-term": Picture(
            "Input term", _png(overlay(photograph, size[0])), "|x · ∂f/∂x|, what falls to the pixels"
        )
    }
    drawn = result.map.get(name) if isinstance(result.map, Mapping) else result.map
    if drawn is not None and drawn.ndim == 3:
        pixels = _png(overlay(photograph, drawn[index]))
        pictures[FULL_GRAD] = Picture("FullGrad", pixels, "input term and bias terms; brighter is more")
    return pictures


def _png(pixels: np.ndarray) -> bytes:
    return encode_png(enlarged(pixels))


def samples(
    results: Sequence[MethodResult],
    names: Sequence[str],
    predicted: Sequence[tuple[Prediction, ...]],
    pictures: Sequence[Mapping[str, Picture]],
    class_names: Names,
) -> list[Sample]:
    """What the report shows of each input."""
    full_grads = [result for result in results if result.method == FULL_GRAD]
    return [
        Sample(
            name=name,
            target=target_text(results[0], index, class_names),
            pictures=tuple(pictures[index].values()),
            predictions=predicted[index],
            bars=contribution_bars(full_grads[0], index) if full_grads else (),
        )
        for index, name in enumerate(names)
    ]


def target_text(result: MethodResult, index: int, class_names: Names) -> str:
    """What was explained of one sample: "espresso (967)"."""
    if result.target is None:
        return "a weighted sum of the outputs"
    chosen = int(result.target[index])
    named = class_names is not None and 0 <= chosen < len(class_names)
    return f"{class_label(chosen, class_names)} ({chosen})" if named else f"class {chosen}"


def arrays_of(results: Sequence[MethodResult]) -> dict[str, np.ndarray]:
    """The arrays that are written as .npz, by method: maps, attributions, completeness, layer totals."""
    found: dict[str, np.ndarray] = {}
    for result in results:
        stem = result.method.replace("-", "_")
        found |= {f"{stem}/attributions/{name}": array for name, array in result.attributions.items()}
        found |= {f"{stem}/{name}": getattr(result, name) for name in ("explained", "total", "error")}
        if isinstance(result.map, Mapping):
            found |= {f"{stem}/map/{name}": array for name, array in result.map.items()}
        elif result.map is not None:
            found[f"{stem}/map"] = result.map
        if result.shares:
            found[f"{stem}/layer_totals"] = np.stack([share.total for share in result.shares], axis=1)
            found[f"{stem}/layer_tensors"] = np.array([share.tensor for share in result.shares])
        if result.target is not None:
            found[f"{stem}/target"] = result.target
    return found


def environment(backend: str = "") -> dict[str, str]:
    """The versions that decide a number, for the foot of a report."""
    packages = ("onnxplain", "onnx", "onnxruntime", "numpy", "torch", "tensorflow", "tensorflow-cpu")
    found = {package: _version(package) for package in packages}
    system = {"Python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    head = {"backend": backend} if backend else {}
    return {**head, **{name: text for name, text in found.items() if text}, **system}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def as_json(results: Sequence[MethodResult], index: int, class_names: Names) -> dict[str, Any]:
    """One sample's results for the machine-readable output."""
    return {
        result.method: {
            "target": None if result.target is None else int(result.target[index]),
            "target_name": None
            if result.target is None or class_names is None
            else class_label(int(result.target[index]), class_names),
            "completeness": {
                "explained": float(result.explained[index]),
                "total": float(result.total[index]),
                "relative_error": float(result.error[index]),
                "passed": result.passed[index],
            },
            "settings": dict(result.settings),
        }
        for result in results
    }
