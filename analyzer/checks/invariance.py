"""Compare two models that should be one function: implementation invariance, shown layer by layer.

A PyTorch network and its Keras twin, a model before and after an optimizer, an old and a new export: paired by value
(pairing.py), then held against each other like two backends of one model (twin.py, comparison.py), everything in the
layout of the first. For models that are *not* the same, a quantized or pruned copy, the drift of every sample says how
far the reasons moved. Source: Sundararajan, Taly & Yan 2017, section 2.2 (implementation invariance).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal

import numpy as np

from analyzer.backends import Differentiable, ModelLike, differentiate, explaining, for_inputs
from analyzer.backends.at_sizes import depends_on_sizes
from analyzer.backends.batching.arranging import arranged, moved_target
from analyzer.backends.networks import model_for, model_in_layout_of
from analyzer.backends.source.matching import TOLERANCE, closest
from analyzer.backends.unfolded import unfolded
from analyzer.checks.agreement import fix_target, note_of, samples_of
from analyzer.checks.announce import announces
from analyzer.checks.comparison import STEPS, Comparison
from analyzer.checks.drift import drift_rows
from analyzer.checks.explain.differences import differences
from analyzer.checks.explain.localize import Origin
from analyzer.checks.explain.reference import judge_models
from analyzer.checks.match.pairing import (
    ComparedModel,
    Layers,
    Pairing,
    channels_kept,
    distance_of_outputs,
    fed,
    pair_inputs,
    pair_layers,
    pair_outputs,
    settled,
)
from analyzer.checks.read.attributions import worst_attributions
from analyzer.checks.read.nonfinite import not_finite
from analyzer.checks.read.reading import Reader, Reading, refuse_noise, weights_of
from analyzer.checks.read.twin import Twin
from analyzer.checks.report import Report
from analyzer.checks.tolerances import COMPLETENESS, Tolerance, tolerances
from analyzer.errors import AnalysisError, ShapeError, TargetError
from analyzer.graph.batch_axis import batched_inputs
from analyzer.graph.graph import Graph
from analyzer.graph.layer_names import in_layer
from analyzer.methods.saliency import maps_of
from analyzer.target.after import refuse_after
from analyzer.target.before import logit_of, logits
from analyzer.target.target import Target, TargetLike, one_scalar
from analyzer.types import Announce, Arrays, Inputs, Row
from converters import Model
from converters.errors import ExampleNeeded

# Enough to tell layers apart; an axis of samples from one of length 1.
MATCHED_SAMPLES = 2


@announces("comparing")
@explaining()
def compare(
    a: ModelLike | Differentiable,
    b: ModelLike | Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    wrt: Sequence[str] | None = None,
    inputs_of_b: Mapping[str, str] | None = None,
    backend: str = "onnxruntime",
    tolerance: Tolerance | None = None,
    steps: int = STEPS,
    names: tuple[str, str] = ("a", "b"),
    straight_through: bool = False,
    referee: bool | None = None,
    max_memory: int | str | None = None,
    batch_size: int | None = None,
    progress: Announce | Literal[False] | None = None,
    verify: bool = True,
    trust: bool = False,
    providers: Sequence[str] | None = None,
    device: str | None = None,
    fold_batch_norm: bool = True,
) -> Report:
    """Compare two models that should be the same function, and their reasons.

    a, b: as for `check`, or bound to a backend. A network is traced from the inputs, b in the first layout that runs.
    inputs, target, wrt: of a, as for `check`. b is fed the same numbers, its axes in the order that its inputs take;
        where several orders fit, that which makes the outputs equal, or most layers. inputs_of_b: {input of a: input
        of b} where neither names nor shapes tell.
    backend: what computes both; a model may also come bound to one, `differentiate(model, …)`.
    tolerance, steps, straight_through, max_memory, batch_size, progress: as for `check`. verify: compare both with
        their files, as for `differentiate`. names: of the two models in the report.
    trust: load files that can run code, as for `convert`. providers, device: as for `differentiate`.
    fold_batch_norm: False compares BatchNorm layers apart from the layer before them, so that a wrong epsilon is found
        in the BatchNormalization.
    referee: whether both are run in float64 on torch as well, to say whether an excess is rounding or the models'; by
        default where something is in excess and torch is there.
    Rows name tensors of a, and those of b under `tensor_b`; `matched`, `near`, `unmatched` and `inner` say which
    layers were found, `drift` how far each sample's output and attributions moved.
    Raises InputError or ShapeError where the inputs of b cannot be fed, AnalysisError where the explained output or a
    tensor of `wrt` has no counterpart, UnsupportedOp.
    """
    allowed = tolerances(tolerance)
    if names[0] == names[1]:
        raise AnalysisError(
            f"the two models are both called {names[0]!r}. Fix: give two names, names=('before', 'after')"
        )
    tell = progress or (lambda what: None)
    if not isinstance(b, Differentiable):
        b = _second(b, inputs, inputs_of_b, verify, trust)
    mine, other = (
        differentiate(
            model if fold_batch_norm else unfolded(model, inputs, verify=verify, trust=trust),
            backend,
            straight_through=straight_through,
            max_memory=max_memory,
            batch_size=batch_size,
            verify=verify,
            trust=trust,
            example=inputs,
            providers=providers,
            device=device,
        )
        for model in (a, b)
    )
    mine = for_inputs(mine, inputs)
    feeds, target = mine.check_inputs(inputs), mine.indexed(target)
    if depends_on_sizes(other.model, other.graph):
        other = _at_sizes_of(other, feeds, inputs_of_b)
    asked = logits(mine.graph, one_scalar(target))
    refuse_after(one_scalar(target))
    stated = mine.graph, other.graph
    mine, other, feeds, target = _arranged(mine, other, feeds, target, inputs_of_b)
    wrt = mine.default_wrt if wrt is None else wrt
    fixed, roots = fix_target(mine, feeds, target, stated[0]), mine.roots(wrt)
    refuse_noise(mine)
    refuse_noise(other)
    tell("pairing inputs, outputs and layers")
    inputs_b, outputs, layers = _paired(
        mine, other, feeds, inputs_of_b, weights_of(fixed), min(TOLERANCE, allowed["output"])
    )
    theirs = _logits_of(names[1], stated[1], asked, outputs)
    layers = _with_logits(layers, theirs, (mine, feeds), (other, fed(inputs_b, feeds)))
    _verify_file(mine, feeds)
    _verify_file(other, other.check_inputs(fed(inputs_b, feeds)))
    reader = Reader(mine, fixed, roots, names[0])
    spatial = reader.plan(feeds).layout.spatial
    twin = Twin(names[1], mine.graph, other, fixed, roots, inputs_b, outputs, layers.all, spatial)
    comparison = Comparison([reader, twin], feeds, fixed, allowed, tell)
    readings = comparison.readings()
    rows = comparison.rows_of((0, 1), readings)
    origin = comparison.origin((0, 1), readings, rows)
    judged = judge_models(comparison, readings, rows, referee)
    if wrt is None:
        rows += comparison.integrated_rows(steps)
    for row in rows:
        row["tensor_b"] = twin.tensors[row["tensor"]].name if row["tensor"] in twin.tensors else ""
    return Report(
        rows=rows,
        completeness=[_completeness(n, r, allowed) for n, r in zip(names, readings, strict=True)],
        backends=names,
        seconds=dict(zip(names, comparison.seconds, strict=True)),
        origins={names: _described(origin, twin)} if origin else {},
        suspects={names: origin.names} if origin else {},
        differences={names: differences(origin, twin, names)} if origin else {},
        referee=judged,
        matched={name: one.name for name, one in layers.matched.items()},
        near={name: one.name for name, one in layers.near.items()},
        unmatched=dict(zip(names, layers.unmatched, strict=True)),
        inner=dict(zip(names, layers.inner, strict=True)),
        drift=_drift(mine.graph, roots, readings, comparison.integrated),
        attributions=worst_attributions(
            names, readings, comparison.integrated, roots, mine.model.preprocessing
        ),
        samples=samples_of(mine),
        note=note_of(mine),
        not_finite=_not_finite(reader, twin, feeds, readings),
    )


def _second(
    model: ModelLike, inputs: Inputs, inputs_of_b: Mapping[str, str] | None, verify: bool, trust: bool
) -> Model:
    """The second model; a network is traced in the first layout of the inputs that it takes."""
    try:
        return model_for(model, verify=verify, trust=trust)
    except ExampleNeeded:
        return model_in_layout_of(model, inputs, inputs_of_b, trust)


def _not_finite(reader: Reader, twin: Twin, feeds: Arrays, readings: Sequence[Reading]) -> dict[str, str]:
    """Return {model: a phrase that names its NaN or infinite tensors}."""
    theirs, their_feeds = twin.as_reader(feeds)
    found = {
        side.name: not_finite(side.fn, given, side.target, reading.completeness)
        for side, given, reading in zip((reader, theirs), (feeds, their_feeds), readings, strict=True)
    }
    return {name: lost for name, lost in found.items() if lost}


def _logits_of(
    name: str, graph: Graph, asked: Mapping[str, tuple[str, str]], outputs: Pairing
) -> dict[str, str]:
    """Return {logits of a: logits of b, before the same activation of the paired output}. name, graph: of b.

    asked: {logits of a: (output of a, activation)}. Raises TargetError where an output of b is not computed by it.
    """
    try:
        return {
            ours: logit_of(graph, outputs[output].name, before).tensor
            for ours, (output, before) in asked.items()
            if output in outputs
        }
    except AnalysisError as error:
        raise TargetError(f"in {name!r}, {error}") from error


def _with_logits(
    layers: Layers,
    logits_of_b: Mapping[str, str],
    a: tuple[Differentiable, Arrays],
    b: tuple[Differentiable, Arrays],
) -> Layers:
    """The layers with the logits of a paired with those of b."""
    found = dict(layers.matched)
    for name, theirs in logits_of_b.items():
        if name in layers.all and layers.all[name].name == theirs:
            continue
        ours, own = (fn.forward(feeds, [of])[of] for (fn, feeds), of in ((a, name), (b, theirs)))
        if (near := closest(theirs, own, ours)) is not None:
            found[name] = near[0]
    return replace(layers, matched=found)


def _verify_file(fn: Differentiable, feeds: Arrays) -> None:
    """Compare the outputs of a model with those of its file. Raises VerificationError."""
    if fn.file is not None and not fn.file.drawn:
        fn.file.compare_values(feeds, fn.forward(feeds))
        fn.file.release()


def _at_sizes_of(b: Differentiable, feeds: Arrays, given: Mapping[str, str] | None) -> Differentiable:
    """The second model at the sizes of the inputs, in the first layout that it takes."""
    for pairing in pair_inputs(feeds, b.graph, given):
        with suppress(ShapeError):
            return for_inputs(b, fed(pairing, feeds))
    return b


def _arranged(
    a: Differentiable,
    b: Differentiable,
    inputs: Inputs,
    target: TargetLike,
    inputs_of_b: Mapping[str, str] | None,
) -> tuple[Differentiable, Differentiable, Arrays, TargetLike]:
    """Both models with the samples along axis 0, each as it holds them, the feeds of a, and the target."""
    raw = a.check_inputs(inputs)
    first = arranged(a, raw, target)
    assert first.arrangement is not None
    for pairing in pair_inputs(raw, b.graph, inputs_of_b):
        try:
            theirs = b.check_inputs(fed(pairing, raw))
            second = arranged(b, theirs)
        except AnalysisError:
            continue
        if second.arrangement is not None and (
            not second.arrangement.plain or first.arrangement.samples == second.arrangement.samples
        ):
            b = second
            break
    wanted = moved_target(a.graph, first.arrangement, target)
    return first, b, first.arrangement.all_first(raw), wanted


def _paired(
    a: Differentiable,
    b: Differentiable,
    feeds: Arrays,
    given: Mapping[str, str] | None,
    explained: Collection[str],
    tolerance: float,
) -> tuple[Pairing, Pairing, Layers]:
    """Inputs, outputs and layers, in the layout that makes the outputs equal; else in that which matches most layers,
    then in that which keeps the channels. The outputs of a model that went wrong may come nearer in a wrong layout.
    """
    ours = _float_outputs(a, feeds)
    found = []
    for pairing in pair_inputs(feeds, b.graph, given):
        theirs = b.check_inputs(fed(pairing, feeds))
        outputs, apart = pair_outputs(ours, _float_outputs(b, theirs))
        equal = apart <= tolerance
        sides = _sides((a, _few(a, feeds)), (b, _few(b, theirs)), explained, outputs)
        layers = pair_layers(*sides, pairing, equal=equal)
        layers, outputs = settled(*sides, pairing, layers, outputs)
        if equal:
            return pairing, outputs, layers
        apart = distance_of_outputs(*sides, outputs)
        agreeing = channels_kept(a.graph, b.graph, pairing)
        found.append((len(layers.matched), agreeing, -apart, pairing, outputs, layers))
    return max(found, key=lambda one: one[:3])[3:]


def _float_outputs(fn: Differentiable, feeds: Arrays) -> Arrays:
    return fn.forward(feeds, [name for name in fn.graph.outputs if fn.graph.tensors[name].is_float])


def _sides(
    a: tuple[Differentiable, Arrays],
    b: tuple[Differentiable, Arrays],
    explained: Collection[str],
    outputs: Pairing,
) -> tuple[ComparedModel, ComparedModel]:
    """Both models on a few samples. What is explained of them is drawn: it only tells tensors of equal values apart."""
    # An inner tensor may be explained, whose counterpart is yet to be found.
    known = [name for name in explained if name in outputs] or [*outputs][:1]
    if not known:
        raise AnalysisError(
            "no output of the second model has the shape of one of the first. Fix: give models whose outputs have "
            "one shape, or explain a tensor that both have, Target('name')"
        )
    rng, ours, theirs = np.random.default_rng(0), {}, {}
    for name in known:
        one = outputs[name]
        y, z = (fn.forward(feeds, [of])[of] for (fn, feeds), of in ((a, name), (b, one.name)))
        ours[name] = rng.standard_normal(y.shape).astype(y.dtype)
        theirs[one.name] = one.from_onnx(ours[name], z.shape)
    return ComparedModel(*a, Target(weights=ours)), ComparedModel(*b, Target(weights=theirs))


def _few(fn: Differentiable, feeds: Arrays) -> Arrays:
    """The first samples; where there is one alone, it stands twice. All, where the file fixes their number."""
    if fn.engine.batch is not None:
        return feeds
    free = batched_inputs(fn.graph)
    return {
        name: np.take(array, np.arange(MATCHED_SAMPLES), axis=0, mode="clip") if name in free else array
        for name, array in feeds.items()
    }


def _described(origin: Origin, twin: Twin) -> str:
    """The node at fault, and the node of b that computes the counterpart."""
    theirs = twin.fn.graph.producer.get(twin.tensors[origin.tensor].name)
    if theirs is None:
        return str(origin)
    return f"{origin}; in {twin.name} that is {theirs.op_type} {theirs.name!r}{in_layer(theirs)}"


def _completeness(name: str, reading: Reading, allowed: Mapping[str, float]) -> Row:
    tolerance = allowed[COMPLETENESS]
    return {
        "backend": name,
        "method": "full grad",
        "error": float(reading.completeness.error.max()),
        "tolerance": tolerance,
        "passed": bool(reading.completeness.within(tolerance).all()),
    }


def _drift(
    graph: Graph, roots: Sequence[str], readings: Sequence[Reading], integrated: Sequence[Arrays]
) -> list[Row]:
    """The drift of every sample; of the explained output's model outputs, the first one stands for all."""
    a, b = readings
    shared = next((name for name in a.outputs if name in b.outputs), None)
    if shared is None:
        return []
    kinds, maps = {"full grad": (a.maps, b.maps)}, {}
    # Where a root has spatial axes its maps have a structure; a table has none.
    wide = [name for name in roots if graph.tensors[name].rank > 2]
    drawn = [name for name, root in zip(a.maps, roots, strict=True) if root in wide]
    maps["full grad"] = ({n: a.maps[n] for n in drawn}, {n: b.maps[n] for n in drawn})
    if integrated:
        ours, theirs = integrated[0], integrated[1]
        kinds["integrated gradients"] = (ours, theirs)
        maps["integrated gradients"] = (
            maps_of(graph, {name: ours[name] for name in wide}, signed=True),
            maps_of(graph, {name: theirs[name] for name in wide}, signed=True),
        )
    return drift_rows((a.outputs[shared], b.outputs[shared]), kinds, maps)
