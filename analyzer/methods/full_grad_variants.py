"""The two variants that the authors of FullGrad publish beside it: Simple FullGrad and Smooth FullGrad.

Both give a saliency map and no decomposition. Source: Srinivas & Fleuret 2019, and the authors' code for what the
paper leaves open.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.backends.batching.micro_batches import split
from analyzer.backends.batching.planning import Call
from analyzer.backends.bound import Bound
from analyzer.backends.onnxruntime import make_session
from analyzer.deprecation import renamed
from analyzer.errors import AnalysisError
from analyzer.graph.batch_axis import Place, batched_inputs
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Tensor
from analyzer.graph.program import assemble
from analyzer.methods.exporting import ExplainerGraph, Exported
from analyzer.methods.full_grad import (
    Psi,
    TermKinds,
    full_grad,
    post_processing_of,
    refuse_merged,
    refuse_terms,
)
from analyzer.methods.full_gradient.decomposition import Plan, Settings, form_of, plan, shown_spots
from analyzer.methods.full_gradient.maps import LaidOutTerm, PostProcessing, saliency_map
from analyzer.methods.full_gradient.term_sums import Laid, lay, term_sums
from analyzer.methods.numbers import refuse_count
from analyzer.methods.paths.noise import Noise, noisy_copies
from analyzer.methods.registry import method
from analyzer.methods.result import SaliencyMap
from analyzer.target.target import TargetLike
from analyzer.types import Arrays, Inputs, Progress, Rng
from converters.system.randomness import seed_from


def _export_simple(
    explainer: ExplainerGraph, *, post_processing: Psi | PostProcessing, align_corners: bool | None
) -> Exported:
    psi = post_processing_of(post_processing, align_corners, None)
    roots = explainer.fn.roots()
    made = plan(
        explainer.bound,
        Settings(explainer.bound.seed.outputs, roots, explicit=True, psi=psi, gradients_alone=True),
    )
    found = explainer.evaluate(made.request)
    maps = {root: found[f"map/{root}"] for root in roots}
    return Exported(maps, maps, signed=False, sized=True)


@method(
    "simple-full-grad",
    export=_export_simple,
    line="FullGrad of gradients alone",
    caption="Simple FullGrad",
    note="the gradients at every layer that has a bias",
    source="Srinivas & Fleuret 2019, the authors' code",
    cost="1 gradient",
    like=full_grad,
)
def simple_full_grad(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    post_processing: Psi | PostProcessing = "paper",
    align_corners: bool | None = None,
    progress: Progress | None = None,
    verify: bool = True,
) -> SaliencyMap:
    """Return FullGrad's map with the gradient at every layer that has a bias in place of gradient times bias.

    The arguments are those of `full_grad`, and so are the errors.
    """
    bound = differentiate(model, verify=verify).bind(inputs, target)
    psi = post_processing_of(post_processing, align_corners, None)
    roots = bound.fn.roots()
    made = plan(bound, Settings(bound.seed.outputs, roots, explicit=True, psi=psi, gradients_alone=True))
    found = bound.evaluate(made.request, progress=progress)
    return SaliencyMap(
        maps=form_of(made.maps(found)),
        output=found.output,
        target=found.target,
        signed=False,
        wrt=roots,
    )


class SmoothFullGrad(SaliencyMap):
    """The result of `smooth_full_grad`."""

    @property
    def detail(self) -> str:
        """The number of copies."""
        return f"{self.settings['samples']} copies" if "samples" in self.settings else ""


def _export_smooth(
    explainer: ExplainerGraph,
    *,
    samples: int,
    noise: float,
    rng: Rng,
    terms: TermKinds,
    post_processing: Psi | PostProcessing,
    align_corners: bool | None,
) -> Exported:
    refuse_count("samples", samples, 1, 25)
    refuse_terms(terms)
    psi = post_processing_of(post_processing, align_corners, None)
    roots = explainer.fn.roots()
    made = plan(
        explainer.bound, Settings(explainer.bound.seed.outputs, roots, terms == "explicit", psi, arrays=True)
    )
    refuse_merged(explainer, made)
    noisy = noisy_copies(explainer, roots, samples, Noise(noise, seed_from(rng, AnalysisError)))
    placed = list(made.layout.placements)

    def finish(op: Builder, numbers: Tensor, found: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {
            name: found[f"input/{name}" if f"input/{name}" in found else f"term/{name}"] for name in placed
        }

    # Copies go as one batch where the samples of every term lie along its first axis.
    first = all(explainer.fn.places.get(name) == Place(0) for name in placed)
    sums = explainer.repeated(samples, noisy, made.request, finish, one_by_one=not first)
    op, graph = explainer.op, explainer.graph
    means = {
        name: replace(op.Div(total, float(samples)), shape=graph.tensors[name].shape)
        for name, total in sums.items()
    }
    maps = _maps_of_terms(op, graph, made, means)
    return Exported(maps, maps, signed=False, row_dependent=True, sized=True)


@renamed(seed="rng")
@method(
    "smooth-full-grad",
    export=_export_smooth,
    line="FullGrad averaged over noisy copies",
    caption="Smooth FullGrad",
    note="FullGrad averaged over noisy copies",
    source="Srinivas & Fleuret 2019, the authors' code",
    cost="{samples} gradients (samples)",
    like=full_grad,
)
def smooth_full_grad(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    samples: int = 25,
    noise: float = 0.15,
    rng: Rng = 0,
    terms: TermKinds = "all",
    post_processing: Psi | PostProcessing = "paper",
    align_corners: bool | None = None,
    progress: Progress | None = None,
    verify: bool = True,
) -> SmoothFullGrad:
    """Return FullGrad's map of terms that are averaged, with their signs, over noisy copies of the inputs.

    samples: noisy copies of each input.
    noise: standard deviation of the Gaussian noise, as a share of the range (maximum − minimum) of each sample.
    rng: a Generator or a seed for the noise; each sample has a stream of its own.
    terms, post_processing, align_corners: as in `full_grad`; the authors' code takes explicit terms.
    progress: called with the copies done and all, counted for each micro-batch.
    Where no target is given, the highest class of the input without noise is explained in all copies.
    Raises AnalysisError for a number of copies below 1 or a negative noise, and what `full_grad` raises.
    """
    refuse_count("samples", samples, 1, 25)
    if not isinstance(noise, (int, float)) or not noise >= 0:
        raise AnalysisError(
            f"expected noise of at least 0, got {noise!r}. Fix: give a share of the range, noise=0.15"
        )
    refuse_terms(terms)
    bound = differentiate(model, verify=verify).bind(inputs, target)
    psi = post_processing_of(post_processing, align_corners, None)
    roots = bound.fn.roots()
    made = plan(bound, Settings(bound.seed.outputs, roots, terms == "explicit", psi, arrays=True))
    clean = bound.gradients(())
    copies = _Copies(bound.holding(clean.target), made, Noise(noise, seed_from(rng, AnalysisError)))
    micro_batches = copies.micro_batches()
    count = itertools.count(1)

    def tell() -> None:
        done = next(count)
        if progress is not None:
            progress(done, samples * len(micro_batches))

    maps = [_map_of(bound.fn.graph, made, copies.averages(rows, samples, tell)) for rows in micro_batches]
    joined = {root: np.concatenate([map_[root] for map_ in maps]) for root in maps[0]}
    return SmoothFullGrad(
        maps=form_of(joined),
        output=clean.output,
        target=clean.target,
        signed=False,
        wrt=roots,
    )


@dataclass(frozen=True)
class _Copies:
    """The noisy copies of some inputs, and FullGrad's terms of them."""

    bound: Bound
    made: Plan
    noise: Noise

    def micro_batches(self) -> list[np.ndarray]:
        """Return the samples of each micro-batch. Memory holds its terms three times: of a copy, and both sums."""
        total = self.bound.samples
        call = Call(self.made.request, (), self.bound.seed)
        size, _ = split(self.bound.fn, call, self.bound.feeds, total, times=3)
        return [np.arange(start, min(start + size, total)) for start in range(0, total, size)]

    def averages(self, rows: np.ndarray, samples: int, tell: Callable[[], None]) -> Arrays:
        """The terms of some samples, averaged over their noisy copies."""
        feeds = self.bound.feeds
        noisy = [name for name in batched_inputs(self.bound.fn.graph) if feeds[name].dtype.kind == "f"]
        totals: Arrays = {}
        for copy in range(samples):
            tensors = self.noise.noisy(feeds, noisy, rows, np.full(len(rows), copy))
            arrays = self.bound.at(tensors, rows).evaluate(self.made.request).arrays
            for name in self.made.layout.placements:
                term = arrays.get(f"term/{name}", arrays.get(f"input/{name}"))
                assert term is not None
                totals[name] = totals[name] + term if name in totals else term
            tell()
        return {name: total / samples for name, total in totals.items()}


def _map_of(graph: Graph, made: Plan, terms: Arrays) -> Arrays:
    """ψ and the sum over layers, of terms that are known: a map for every root."""
    op = Builder(graph.opset, prefix="map/")
    given = {name: Tensor(f"term/{name}", array.dtype, array.shape) for name, array in terms.items()}
    results = _maps_of_terms(op, graph, made, given)
    extra = {tensor.name: tensor for tensor in given.values()}
    program = assemble(graph, op, results, extra_inputs=extra)
    session = make_session(program.proto, ["CPUExecutionProvider"])
    feeds = {tensor.name: terms[name] for name, tensor in given.items() if tensor.name in program.inputs}
    found = session.run([program.outputs[root] for root in results], feeds)
    return dict(zip(results, found, strict=True))


def _maps_of_terms(op: Builder, graph: Graph, made: Plan, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ψ and the sum over layers, of the terms {tensor: term}, as ONNX."""
    layers: dict[str, list[LaidOutTerm]] = {root: [] for root in made.settings.roots}
    for name, term in terms.items():
        for spot in shown_spots(graph, made.layout, name, made.settings):
            sums = term_sums(op, lay(op, made.layout.placements[name], spot, term), made.settings.psi)
            if name in made.settings.roots:
                # The authors add up an image's channels before ψ here, and only here.
                summed = Laid(op.Unsqueeze(sums.signed, [1, 3]), 1, 1)
                sums = term_sums(op, summed, made.settings.psi)
            layers[spot.root].append((spot.grids, sums.salient))
    return {
        root: saliency_map(op, layers[root], sizes, made.settings.psi)
        for root, sizes in made.layout.sizes.items()
    }
