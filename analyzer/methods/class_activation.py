"""Class activation maps: a layer's channels, weighed by the gradient, summed and laid over the input.

From a Differentiable, inputs, a target and a layer to maps; what the weights are is each paper's own (grad_cam.py,
layer_cam.py). Everything is computed beside the gradients: only maps leave the graph. Works wherever a layer's
elements have places in the input (analyzer/placement): channels first or last, tokens with or without a class token,
one to three axes. Refuses a layer without places, and one whose channels differ from place to place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from analyzer.autodiff.request import Request
from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.backends.bound import Bound
from analyzer.errors import AnalysisError
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Tensor
from analyzer.methods.exporting import ExplainerGraph, Exported
from analyzer.methods.full_gradient.maps import PostProcessing, saliency_map
from analyzer.methods.result import SaliencyMap
from analyzer.placement.fixed_sizes import at_input_sizes, samples_laid_out
from analyzer.placement.last_layer import last_layers, readings
from analyzer.placement.terms import Placement, Placements, Spot, lay_out
from analyzer.target.target import TargetLike
from analyzer.types import Inputs, Names, Progress

_NO_LAYER = "Fix: use full_grad or integrated_gradients (--method full-grad), which need no layer"
_OTHER = "Fix: name another layer (--layer), or use full_grad (--method full-grad)"

Weighing = Callable[[Builder, Tensor, Tensor], Tensor]
"""From activations and their gradients, (N, before, cells, after) with channels along axes 1 and 3, to (N, cells)."""


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ActivationMap(SaliencyMap):
    """The result of a class activation map.

    layer: the tensor that was weighed.
    layer_map: the map before it was resized, on the layer's own grid.
    Of several inputs these are {input name: …}, without the inputs over which no tensor lies.
    """

    layer: Any
    layer_map: Any

    @property
    def detail(self) -> str:
        """The layer, or layers."""
        layers = self.layer.values() if isinstance(self.layer, Mapping) else [self.layer]
        return ", ".join(dict.fromkeys(layers))


@dataclass(frozen=True)
class Options:
    """method: the paper's name. relu: of the sum over channels. align_corners: of the resizing."""

    method: str
    weigh: Weighing
    relu: bool
    align_corners: bool


@dataclass(frozen=True)
class _Shown:
    """layers: {root: tensor}. roots: over which a map could be drawn. shown: over which it is."""

    layers: Mapping[str, str]
    roots: tuple[str, ...]
    shown: tuple[str, ...]
    request: Request

    def form(self, of: Mapping[str, Any]) -> Any:
        """{root: …}, or the one of a single input."""
        return dict(of) if len(self.roots) > 1 else of[self.roots[0]]


def activation_map(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike,
    layer: str | None,
    wrt: Names | None,
    options: Options,
    progress: Progress | None = None,
) -> ActivationMap:
    """A layer's map over every input that it lies over. The arguments are those of `grad_cam`."""
    bound = differentiate(model).bind(inputs, target)
    made = _shown(bound, layer, wrt, options)
    found = bound.evaluate(made.request, progress=progress)
    return ActivationMap(
        maps=made.form({root: found.arrays[f"map/{root}"] for root in made.shown}),
        output=found.output,
        target=found.target,
        signed=not options.relu,
        wrt=made.shown,
        layer=made.form({root: made.layers[root] for root in made.shown}),
        layer_map=made.form({root: found.arrays[f"layer map/{root}"] for root in made.shown}),
    )


def exporter(name: str, weigh: Weighing) -> Callable[..., Exported]:
    """Return the function that emits a class activation map as ONNX. name, weigh: as in `Options`."""

    def export(
        explainer: ExplainerGraph, *, layer: str | None, wrt: Names | None, relu: bool, align_corners: bool
    ) -> Exported:
        made = _shown(explainer.bound, layer, wrt, Options(name, weigh, relu, align_corners))
        found = explainer.evaluate(made.request)
        maps = {root: found[f"map/{root}"] for root in made.shown}
        return Exported(maps, maps, signed=not relu, sized=True)

    return export


def _shown(bound: Bound, layer: str | None, wrt: Names | None, options: Options) -> _Shown:
    outputs, roots = bound.seed.outputs, bound.fn.roots(wrt)
    if layer is None:
        layers = last_layers(bound, roots)
        if not layers:
            raise AnalysisError(
                f"no tensor between {_listed(roots)} and {_listed(outputs)} lies over the input: "
                f"{options.method} has no layer to weigh. {_NO_LAYER}"
            )
    else:
        layers = dict.fromkeys(roots, _stated_layer(bound.fn, layer, outputs))
    layout = _layout(bound, roots, layers)
    spots = {root: _spot(layout.placements[name], root, name) for root, name in layers.items()}
    shown = {root: spot for root, spot in spots.items() if spot is not None}
    if not shown:
        raise AnalysisError(
            f"the elements of {layer!r} belong to no positions in the input, which {options.method} needs. Fix: omit "
            "layer (--layer), or name a convolution or another layer with spatial axes"
        )
    return _Shown(layers, roots, tuple(shown), _request(layers, layout, shown, options))


def _stated_layer(fn: Differentiable, layer: str, outputs: tuple[str, ...]) -> str:
    """The tensor that a layer means. Raises UnknownTensor; AnalysisError where it is not one before the outputs."""
    names = fn.roots(layer)
    if len(names) > 1:
        raise AnalysisError(
            f"{layer!r} has several outputs, {', '.join(names)}. Fix: name one of them in layer (--layer)"
        )
    if names[0] not in fn.graph.ancestors(outputs):
        raise AnalysisError(
            f"{_listed(outputs)} does not depend on {names[0]!r}: its gradient is zero. Fix: omit "
            "layer (--layer), or name one that the target is computed from"
        )
    return names[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _layout(bound: Bound, roots: Sequence[str], layers: Mapping[str, str]) -> Placements:
    fn = bound.fn
    fixed = at_input_sizes(fn, bound.feeds, (*bound.seed.outputs, *roots))
    known = {root: spatial for root, (spatial, _) in readings(bound, roots).items()}
    tensors = tuple(dict.fromkeys((*roots, *layers.values())))
    return lay_out(fn.graph, fixed, fn.places, samples_laid_out(fn), roots, tensors, known)


def _spot(place: Placement, root: str, name: str) -> Spot | None:
    """Where the layer stands in a root, None where it does not."""
    if not place.separable:
        raise AnalysisError(f"it is not known which part of {name!r} belongs to which sample. {_OTHER}")
    for spot in place.spots:
        if spot.root == root:
            if spot.members is not None and spot.members.max() == place.elements:
                raise AnalysisError(
                    f"some places have more elements of {name!r} than others: it has no channels. {_OTHER}"
                )
            # An element that stands in several inputs counts in each with all its value.
            return replace(spot, share=None)
    return None


def _request(
    layers: Mapping[str, str], layout: Placements, spots: Mapping[str, Spot], options: Options
) -> Request:
    psi = PostProcessing(align_corners=options.align_corners)

    def emit(op: Builder, graph: Graph, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        results = {}
        for root, spot in spots.items():
            name = layers[root]
            place = layout.placements[name]
            values, slopes = (place.by_cell(op, one, spot) for one in (graph.tensors[name], gradients[name]))
            cells = options.weigh(op, values, slopes)
            cells = op.Relu(cells) if options.relu else cells
            one_grid = len(spot.grids) == 1
            results[f"layer map/{root}"] = (
                op.Reshape(cells, [-1, *spot.grids[0].sizes]) if one_grid else cells
            )
            results[f"map/{root}"] = saliency_map(op, [(spot.grids, cells)], layout.sizes[root], psi)
        return results

    key = (
        ("class activation", options.method, options.relu, options.align_corners),
        tuple((root, layers[root]) for root in spots),
        tuple(layout.sizes.items()),
    )
    return Request(key, tuple(dict.fromkeys(layers[root] for root in spots)), emit)
