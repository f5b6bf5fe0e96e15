"""Check that backends agree on one model: outputs, layers, gradients, biases, attributions, completeness.

Every available backend is read on the same inputs and compared with every other, tensor by tensor
(comparison.py). What exceeds its tolerance is either explained by kink decisions that are named, or a failure that is
pinned to a node; a float64 run says which side is nearer the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from onnx import helper

from analyzer.autodiff.sweep import check_gradient_paths
from analyzer.backends import BACKENDS, Differentiable, ModelLike, explaining, on_backend
from analyzer.backends.appended import with_activation
from analyzer.backends.at_sizes import depends_on_sizes, model_at_sizes
from analyzer.backends.batching.arranging import arranged, arranged_like, moved_target
from analyzer.backends.batching.memory import as_batch_size, as_bytes
from analyzer.backends.devices import as_device, refuse_settings
from analyzer.backends.inputs import check_inputs
from analyzer.backends.networks import model_for
from analyzer.backends.pixels import from_pictures
from analyzer.checks.announce import announces
from analyzer.checks.comparison import STEPS, Comparison
from analyzer.checks.explain.localize import Origin
from analyzer.checks.explain.reference import judge_backends
from analyzer.checks.read.attributions import worst_attributions
from analyzer.checks.read.file_side import FILE, FileSide, file_side
from analyzer.checks.read.nonfinite import not_finite
from analyzer.checks.read.own_backward import AUTOGRAD, OwnBackward, own_backward_of
from analyzer.checks.read.reading import Reader, Reading, refuse_noise, weights_of
from analyzer.checks.report import Report
from analyzer.checks.tolerances import COMPLETENESS, Tolerance, tolerances
from analyzer.errors import AnalysisError, NothingToCompare
from analyzer.graph.graph import Graph
from analyzer.graph.precision import HALF, at_least_float32, epsilon
from analyzer.graph.samples.arrangement import INDEPENDENT, Arrangement
from analyzer.methods.completeness import Completeness
from analyzer.target.saturation import note_saturated
from analyzer.target.target import Target, TargetLike, chosen_classes
from analyzer.types import Announce, Arrays, Inputs, Row
from converters import Model
from converters.straight_through import straight_through as pass_rounding
from converters.system.extras import install
from converters.verification.original import Difference


def available_backends(model: Model) -> dict[str, str]:
    """Every backend, with an empty string where it can run and else the reason why not."""
    return {
        "onnxruntime": "",
        **{
            name: "" if find_spec(name) else f"not installed: {install(name)}"
            for name in ("torch", "tensorflow")
        },
        "source": "" if model.source is not None else "an ONNX file has no source",
    }


@announces("checking")
@explaining()
def check(
    model: ModelLike | Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    wrt: Sequence[str] | None = None,
    backends: Sequence[str] | None = None,
    tolerance: Tolerance | None = None,
    steps: int = STEPS,
    straight_through: bool = False,
    referee: bool | None = None,
    max_memory: int | str | None = None,
    batch_size: int | None = None,
    progress: Announce | Literal[False] | None = None,
    verify: bool = True,
    trust: bool = False,
    providers: Sequence[str] | None = None,
    device: str | None = None,
) -> Report:
    """Compare every backend with every other on one model, and with the model's own file.

    model: anything that `convert` takes or returned; a network is traced from the inputs. Of a Differentiable, its
        model on the backends that `backends` names.
    inputs, target: as for `gradients`; None explains the class that the first backend ranks highest.
    wrt: the tensors that are attributed, such as the "embedding" of a text model (see `Differentiable.roots`);
        default the floating inputs.
        Integrated Gradients, whose path starts at the inputs, are then left out.
    backends: names; default all that are installed, the source included where the model has one.
    tolerance: of relative L2, 1e-4 by default; a number for every quantity, or {quantity: number}, see
        analyzer/checks/tolerances.py. steps: Gauss–Legendre points of Integrated Gradients, from a baseline of zeros.
    straight_through: as for `differentiate`; the source then has no part in it.
    referee: whether the graph is run in float64 on torch to say which side of a difference is nearer, and to accept
        gradients that are within the tolerance of it on both; by default where something is in excess and torch is
        there.
    max_memory, batch_size: of every backend, as for `differentiate`. progress: called with a phrase that says what is
        being run; by default lines on standard error, once the check has taken two seconds. False writes none.
    verify: whether an .onnx file is compared with the canonical graph when it is loaded, as for `differentiate`. The
        file, run as given, is the side "file" in any case.
    trust: load a file that can run code, as for `convert`.
    providers: of ONNX Runtime. device: of the other backends, and of ONNX Runtime without providers; the source runs
        on the device of its weights.
    Raises AnalysisError for an unknown backend, InputError, TargetError, UnsupportedOp; NothingToCompare where there
    is one side alone.
    """
    if isinstance(model, Differentiable):
        model = model.model
    loaded = model_for(model, inputs, verify=verify, trust=trust)
    loaded = pass_rounding(loaded) if straight_through else loaded
    inputs = from_pictures(inputs, loaded)
    state = available_backends(loaded)
    chosen = _chosen(backends, state)
    allowed = tolerances(tolerance)
    stated = Graph.from_proto(loaded.light)
    if depends_on_sizes(loaded, stated):
        loaded = model_at_sizes(loaded, stated, chosen, check_inputs(at_least_float32(stated), inputs))
        stated = Graph.from_proto(loaded.light)
    most, size = as_bytes(max_memory), as_batch_size(batch_size)
    where = {name: _where(name, as_device(device), providers) for name in chosen}
    functions = [
        on_backend(loaded, stated, name, max_memory=most, batch_size=size, verify=False, **where[name])
        for name in chosen
    ]
    feeds, target = functions[0].check_inputs(inputs), functions[0].indexed(target)
    file = file_side(loaded, functions[0], feeds, allowed, alone=len(chosen) < 2)
    # A file has no gradients: it alone is compared where that is asked for.
    if len(chosen) < 2 and (backends is None or file is None or file.reason):
        raise NothingToCompare(_alone(chosen[0], state, file))
    given = feeds
    functions, feeds, target = _arranged(functions, feeds, target)
    fixed = fix_target(functions[0], feeds, target, stated)
    refuse_noise(functions[0])
    # What was made ready to rank the classes holds a copy of the weights.
    functions[0].release()
    wrt = functions[0].default_wrt if wrt is None else wrt
    roots = functions[0].roots(wrt)
    readers = [Reader(fn, fixed, roots, fn.backend) for fn in functions]
    comparison = Comparison(readers, feeds, fixed, allowed, progress or None)
    own = own_backward_of(loaded, functions[0].graph, given, fixed, roots, allowed["input gradient"], chosen)
    with own.explaining():
        check_gradient_paths(functions[0].graph, roots, tuple(weights_of(fixed)), named=wrt is not None)
        readings = comparison.readings()
    by_pair = {pair: comparison.rows_of(pair, readings) for pair in comparison.pairs}
    rows = [row for found in by_pair.values() for row in found]
    judged = judge_backends(comparison, readings, rows, loaded, referee)
    origins: dict[tuple[str, str], Origin | Difference | OwnBackward | None] = {
        (chosen[a], chosen[b]): comparison.origin((a, b), readings, found)
        for (a, b), found in by_pair.items()
    }
    origins["source", AUTOGRAD] = own
    rows += own.rows()
    sides = (*(chosen if file is None or file.reason else (*chosen, FILE)), *own.sides)
    if file is not None and FILE in sides:
        rows += _file_rows(file, chosen, readings, origins, functions[0].arrangement)
    settled = [comparison.settled(index, reading) for index, reading in enumerate(readings)]
    lost = [not_finite(fn, feeds, fixed, one) for fn, (one, _) in zip(functions, settled, strict=True)]
    readings = [reading.without_layers(comparison.roots) for reading in readings]
    if wrt is None:
        rows += comparison.integrated_rows(steps)
    return Report(
        rows=rows,
        completeness=[
            _completeness_row(fn, *one, allowed[COMPLETENESS])
            for fn, one in zip(functions, settled, strict=True)
        ],
        backends=sides,
        skipped={**_skipped(state, chosen, file), **own.skipped},
        seconds=dict(zip(chosen, comparison.seconds, strict=True)),
        origins={pair: str(origin) for pair, origin in origins.items() if origin},
        suspects={pair: origin.names for pair, origin in origins.items() if origin},
        referee=judged,
        attributions=worst_attributions(
            chosen, readings, comparison.integrated, comparison.roots, loaded.preprocessing
        ),
        samples=samples_of(functions[0]),
        note=note_of(functions[0]),
        not_finite={name: found for name, found in zip(chosen, lost, strict=True) if found},
    )


def _file_rows(
    file: FileSide,
    chosen: Sequence[str],
    readings: Sequence[Reading],
    origins: dict[tuple[str, str], Origin | Difference | OwnBackward | None],
    arrangement: Arrangement | None,
) -> list[Row]:
    """The rows of every backend against the file; the first node that differs is put into `origins`."""
    rows = []
    for name, reading in zip(chosen, readings, strict=True):
        found = file.rows(name, reading, arrangement)
        origins[name, FILE] = file.origin(found)
        rows += found
    return rows


def _skipped(state: Mapping[str, str], chosen: Sequence[str], file: FileSide | None) -> dict[str, str]:
    """The sides that have no part in the check, with the reason."""
    found = {name: reason for name, reason in state.items() if reason and name not in chosen}
    return found if file is None or not file.reason else {**found, FILE: file.reason}


def _alone(name: str, state: dict[str, str], file: FileSide | None) -> str:
    """Say why there is nothing to compare with a backend, and what to install."""
    missing = [reason for reason in state.values() if reason.startswith("not installed")]
    how = (
        f"{missing[0].removeprefix('not installed: ')} adds a side"
        if missing
        else f"name two of {', '.join(n for n, reason in state.items() if not reason)}"
    )
    why = f"; {file.reason}" if file is not None and file.reason else ""
    if file is not None and not file.reason:
        how += f"; backends=[{name!r}] (--backends {name}) compares outputs with the file, and no gradients"
    return f"nothing was compared: expected two sides, found {name} alone{why}. Fix: {how}"


def _arranged(
    functions: Sequence[Differentiable], inputs: Inputs, target: TargetLike
) -> tuple[list[Differentiable], Arrays, TargetLike]:
    """All backends with the samples along axis 0, as the first shows that they lie, and the feeds and the target."""
    whole = functions[0]
    raw = whole.check_inputs(inputs)
    first = arranged(whole, raw, target)
    assert first.arrangement is not None
    feeds = first.arrangement.all_first(raw)
    others = [arranged_like(fn, first, feeds) for fn in functions[1:]]
    moved = moved_target(whole.graph, first.arrangement, target)
    # A Softmax that the target asks for is appended to the graph of every backend.
    pairs = [with_activation(fn, moved) for fn in (first, *others)]
    return [fn for fn, _ in pairs], feeds, pairs[0][1]


def _chosen(backends: Sequence[str] | None, state: dict[str, str]) -> tuple[str, ...]:
    backends = [backends] if isinstance(backends, str) else backends
    chosen = (
        tuple(name for name in dict.fromkeys(backends) if name != FILE)
        if backends is not None
        else tuple(n for n in BACKENDS if not state[n])
    )
    unknown = [name for name in chosen if name not in BACKENDS]
    if unknown:
        raise AnalysisError(f"unknown backend {unknown[0]!r}. Fix: choose from {', '.join(BACKENDS)}")
    if not chosen:
        raise AnalysisError("backends names none. Fix: omit it (--backends) to check all that are installed")
    return chosen


def samples_of(fn: Differentiable) -> str:
    """Whether samples are explained each by itself, or all as one."""
    return INDEPENDENT if fn.arrangement is None else fn.arrangement.samples


def note_of(fn: Differentiable) -> str:
    """What a reader must know of the samples."""
    return "" if fn.arrangement is None else fn.arrangement.note


def _where(backend: str, device: str | None, providers: Sequence[str] | None) -> dict[str, Any]:
    """The settings of one backend: the source runs where its weights are, and providers are ONNX Runtime's."""
    if backend == "source":
        return {}
    own = (
        {"providers": providers} if backend == "onnxruntime" and providers is not None else {"device": device}
    )
    refuse_settings(backend, own.get("device"), own.get("providers"), None)
    return own


def fix_target(fn: Differentiable, feeds: Arrays, target: TargetLike, stated: Graph) -> Target:
    """One target for all: near-equal logits must not be ranked anew by every backend.

    stated: the graph of the file; a Note is given where it explains a probability near 1.
    """
    bound = fn.bind(feeds, target)
    ys = bound.outputs()
    if (classes := bound.seed.chosen(ys[bound.seed.output])) is not None:
        note_saturated(stated, bound.seed.explained(ys), chosen_classes(classes, bound.seed.output))
    (weights,) = bound.seed.cotangents(ys)
    return Target(weights=weights)


def _completeness_row(fn: Differentiable, completeness: Completeness, reason: str, tolerance: float) -> Row:
    """FullGrad must sum to the output on every backend. What IG leaves depends on its steps: no verdict."""
    allowed = _completeness_tolerance(fn, tolerance)
    return {
        "backend": fn.backend,
        "method": "full grad",
        "error": float(completeness.error.max()),
        "tolerance": allowed,
        "passed": bool(completeness.within(allowed).all()),
        "explanation": reason,
    }


def _completeness_tolerance(fn: Differentiable, tolerance: float) -> float:
    """The same for all, but for the source of a half-precision model: it is run in float32, and the constants that
    the exporter worked out in half, such as the root of attention's scale, are not its own.
    """
    kinds = [info.type.tensor_type.elem_type for info in fn.model.light.graph.output]
    half = HALF.intersection(np.dtype(helper.tensor_dtype_to_np_dtype(kind)) for kind in kinds if kind)
    if fn.backend != "source" or not half:
        return tolerance
    return max(tolerance, *(epsilon(dtype) for dtype in half))
