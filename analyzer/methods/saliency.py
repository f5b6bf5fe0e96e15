"""The gradient of an output, and input × gradient: the two attributions that cost one backward pass.

Sources: Simonyan, Vedaldi & Zisserman 2013, "Deep Inside Convolutional Networks"; Shrikumar, Greenside, Shcherbina &
Kundaje 2016, "Not Just a Black Box", and Ancona, Ceolini, Öztireli & Gross 2018, "Towards Better Understanding of
Gradient-based Attribution Methods".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analyzer.autodiff.request import gradient_name, observe
from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.backends.bound import Bound
from analyzer.graph.channel_axis import channel_axes, input_channel_axis
from analyzer.graph.graph import Graph, Tensor
from analyzer.methods.completeness import measure, sample_sums
from analyzer.methods.exporting import ExplainerGraph, Exported, reduced_map, sample_total
from analyzer.methods.registry import method
from analyzer.methods.result import Attribution
from analyzer.target.target import TargetLike
from analyzer.types import Arrays, Inputs, Names, Progress


def _export_gradient(explainer: ExplainerGraph, *, wrt: Names | None) -> Exported:
    names = explainer.fn.roots(wrt)
    found = explainer.evaluate(observe((), names), named=wrt is not None)
    gradients = {name: found[gradient_name(name)] for name in names}
    return Exported(gradients, emitted_maps(explainer, explainer.graph, gradients), signed=False)


@method(
    "gradient",
    export=_export_gradient,
    line="what the output is most sensitive to",
    caption="Gradient",
    note="the largest size over channels",
    source="Simonyan, Vedaldi & Zisserman 2013, section 3",
    cost="1 gradient",
)
def gradient(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    wrt: Names | None = None,
    progress: Progress | None = None,
    verify: bool = True,
) -> Attribution:
    """Return the gradient of the explained output, in units of the output per unit of the input.

    model: a model, or `differentiate(model, backend=…)`.
    inputs: (N, *features), or {input name: array}.
    target: see `Target`; None explains the highest logit of each sample.
    wrt: the tensors to attribute, such as "embedding" of a text model, a module's path or ONNX names. Default: the
        floating inputs.
    progress: called with the samples done and all.
    verify: compare the model's .onnx file with what is explained, as for `differentiate`.
    Returns `attributions` like the inputs, with their sign, and the published map: the largest size over channels.
    Raises InputError, ShapeError, TargetError, UnknownTensor, UnsupportedOp; AnalysisError where the model has no
    floating input.
    Source: Simonyan, Vedaldi & Zisserman 2013, section 3.
    """
    bound = differentiate(model, verify=verify).bind(inputs, target)
    names = bound.fn.roots(wrt)
    found = bound.evaluate(observe((), names), progress=progress)
    gradients = {name: found.arrays[gradient_name(name)] for name in names}
    return Attribution(
        attributions=_in_form(bound, wrt, gradients),
        maps=_in_form(bound, wrt, maps_of(bound.fn.graph, gradients)),
        output=found.output,
        target=found.target,
        signed=False,
        wrt=names,
    )


class InputXGradient(Attribution):
    """The result of `input_x_gradient`. Its sum is stated and not judged: it misses biases and saturation."""

    @property
    def remark(self) -> str:
        """What the sum leaves out."""
        return "biases and saturation, which FullGrad counts"


def _export_product(explainer: ExplainerGraph, *, wrt: Names | None) -> Exported:
    names = explainer.fn.roots(wrt)
    found = explainer.evaluate(observe((), names), named=wrt is not None)
    op = explainer.op
    products = {name: op.Mul(explainer.graph.tensors[name], found[gradient_name(name)]) for name in names}
    parts = list(products.values())
    return Exported(
        products,
        emitted_maps(explainer, explainer.graph, products, signed=True),
        signed=True,
        total=sample_total(op, parts),
        absolute=sample_total(op, parts, sizes=True),
    )


@method(
    "input-x-gradient",
    export=_export_product,
    line="inputs times gradient; biases are left out",
    caption="Input × gradient",
    note="red speaks for the class, blue against it",
    source="Shrikumar et al. 2016; Ancona et al. 2018, section 2",
    cost="1 gradient",
    signed=True,
    like=gradient,
)
def input_x_gradient(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    wrt: Names | None = None,
    progress: Progress | None = None,
    verify: bool = True,
) -> InputXGradient:
    """Return each element of the inputs times its gradient, in units of the output: FullGrad's input term.

    The arguments and errors are those of `gradient`. The attributions sum to the output where the network is
    homogeneous, such as one of ReLU layers without biases; FullGrad adds what they miss elsewhere. `completeness`
    states how much that is. The map is signed.
    Source: Shrikumar et al. 2016; Ancona et al. 2018, section 2.
    """
    bound = differentiate(model, verify=verify).bind(inputs, target)
    names = bound.fn.roots(wrt)
    found = bound.evaluate(observe(names, names), progress=progress)
    # An infinite gradient at an input of 0 has no product: it is NaN, and pictures say so.
    with np.errstate(invalid="ignore"):
        products = {name: found.arrays[f"value/{name}"] * found.arrays[gradient_name(name)] for name in names}
    total = np.sum([sample_sums(array) for array in products.values()], axis=0)
    absolute = np.sum([sample_sums(np.abs(array)) for array in products.values()], axis=0)
    return InputXGradient(
        attributions=_in_form(bound, wrt, products),
        maps=_in_form(bound, wrt, maps_of(bound.fn.graph, products, signed=True)),
        output=found.output,
        target=found.target,
        completeness=measure(np.atleast_1d(found.output).astype(np.float64), total, absolute),
        wrt=names,
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


def emitted_maps(
    explainer: ExplainerGraph, graph: Graph, attributions: Mapping[str, Tensor], *, signed: bool = False
) -> dict[str, Tensor]:
    """Emit `maps_of`. graph: the one that has these tensors."""
    axes = channel_axes(graph)
    return {
        name: reduced_map(explainer.op, tensor, _channel_axis(graph, name, axes), signed=signed)
        for name, tensor in attributions.items()
    }


def _channel_axis(graph: Graph, name: str, known: dict[str, int]) -> int | None:
    """The channel axis of a tensor; None of a table, or of a number a sample."""
    rank = graph.tensors[name].rank
    if rank <= 2:
        return None
    # A sequence that nothing is known of is (N, steps, features).
    return input_channel_axis(graph, name, known) if name in known or rank > 3 else rank - 1


def _in_form(bound: Bound, wrt: Names | None, arrays: Arrays) -> Any:
    """An array where one array was explained, else {name: array}."""
    return bound.feeds.form(arrays) if wrt is None else arrays
