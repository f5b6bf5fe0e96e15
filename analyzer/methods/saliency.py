"""The gradient of an output, and input × gradient: the two attributions that cost one backward pass.

Sources: Simonyan, Vedaldi & Zisserman 2013, "Deep Inside Convolutional Networks"; Shrikumar, Greenside, Shcherbina &
Kundaje 2016, "Not Just a Black Box", and Ancona, Ceolini, Öztireli & Gross 2018, "Towards Better Understanding of
Gradient-based Attribution Methods".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.autodiff.request import gradient_name, observe
from analyzer.backends import Differentiable, ModelLike, differentiate, explains
from analyzer.graph.channel_axis import channel_axes, input_channel_axis
from analyzer.graph.graph import Graph
from analyzer.methods.arranged import by_sample
from analyzer.methods.saliency_map import SaliencyMap
from analyzer.target.target import TargetLike, one_scalar
from analyzer.types import Arrays, Inputs, Progress


@dataclass(frozen=True, kw_only=True)
class Attribution(SaliencyMap):
    """A number for every element of the inputs, and its map (N, *spatial).

    attributions: like the inputs; {input name: array} for several inputs, or where tensors were named in `wrt`. Over
    channels the map takes the largest size; where it is `signed`, the sum.
    """

    attributions: Any


@explains
@by_sample
def gradient(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    wrt: str | Sequence[str] | None = None,
    progress: Progress | None = None,
    verify: bool = True,
) -> Attribution:
    """The gradient of the explained output, in units of the output per unit of the input.

    model: a model, or `differentiate(model, backend=…)`. inputs: (N, *features), or {input name: array}.
    target: see `Target`; None explains the highest logit of each sample.
    wrt: the tensors that are attributed, such as the embedded tokens of a text model; default the floating inputs.
    progress: called with the samples done and all.
    verify: compare the model's .onnx file with what is explained, as for `differentiate`.
    Returns `attributions` like the inputs, with their sign, and the published map: the largest size over channels.
    Raises InputError, ShapeError, TargetError, UnknownTensor, UnsupportedOp; AnalysisError where the model has no
    floating input.
    Source: Simonyan, Vedaldi & Zisserman 2013, section 3.
    """
    fn = differentiate(model, verify=verify)
    names = fn.roots(wrt)
    found = fn.evaluate(observe((), names), inputs, one_scalar(target), progress=progress)
    gradients = {name: found.arrays[gradient_name(name)] for name in names}
    return Attribution(
        map=_in_form(inputs, wrt, maps_of(fn.graph, gradients)),
        output=found.output,
        target=found.target,
        attributions=_in_form(inputs, wrt, gradients),
    )


@explains
@by_sample
def input_x_gradient(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    wrt: str | Sequence[str] | None = None,
    progress: Progress | None = None,
    verify: bool = True,
) -> Attribution:
    """Each element of the inputs times its gradient, in units of the output: FullGrad's input term.

    The arguments and errors are those of `gradient`. The attributions sum to the output where the network is
    homogeneous, as one of ReLU layers without biases; FullGrad adds what they miss elsewhere. The map is signed.
    Source: Shrikumar et al. 2016; Ancona et al. 2018, section 2.
    """
    fn = differentiate(model, verify=verify)
    names = fn.roots(wrt)
    found = fn.evaluate(observe(names, names), inputs, one_scalar(target), progress=progress)
    # An infinite gradient at an input of 0 has no product: it is NaN, and pictures say so.
    with np.errstate(invalid="ignore"):
        products = {name: found.arrays[f"value/{name}"] * found.arrays[gradient_name(name)] for name in names}
    return Attribution(
        map=_in_form(inputs, wrt, maps_of(fn.graph, products, signed=True)),
        output=found.output,
        target=found.target,
        signed=True,
        attributions=_in_form(inputs, wrt, products),
    )


def maps_of(graph: Graph, attributions: Mapping[str, np.ndarray], *, signed: bool = False) -> Arrays:
    """The map of each tensor, (N, *spatial): the largest size over channels, or signed their sum."""
    axes = channel_axes(graph)
    maps = {}
    for name, array in attributions.items():
        axis = _channel_axis(graph, name, axes)
        if axis is None:
            maps[name] = array if signed else np.abs(array)
        else:
            maps[name] = array.sum(axis=axis) if signed else np.abs(array).max(axis=axis)
    return maps


def _channel_axis(graph: Graph, name: str, known: dict[str, int]) -> int | None:
    """The channel axis of a tensor; None of a table, or of a number a sample."""
    rank = graph.tensors[name].rank
    if rank <= 2:
        return None
    # A sequence that nothing is known of is (N, steps, features).
    return input_channel_axis(graph, name, known) if name in known or rank > 3 else rank - 1


def _in_form(inputs: Inputs, wrt: str | Sequence[str] | None, arrays: Arrays) -> Any:
    """An array where one array was explained, else {name: array}."""
    return arrays if isinstance(inputs, Mapping) or wrt is not None else next(iter(arrays.values()))
