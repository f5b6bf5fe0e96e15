"""Grad-CAM and Grad-CAM++: a layer's channels weighed by one number each, taken from the gradient.

Sources: Selvaraju, Cogswell, Das, Vedantam, Parikh & Batra 2017, "Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization"; Chattopadhay, Sarkar, Howlader & Balasubramanian 2018, "Grad-CAM++: Generalized
Gradient-based Visual Explanations for Deep Convolutional Networks".
"""

from __future__ import annotations

from analyzer.backends import Differentiable, ModelLike
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.methods.class_activation import ActivationMap, Options, activation_map, exporter
from analyzer.methods.registry import method
from analyzer.target.target import TargetLike
from analyzer.types import Inputs, Names, Progress


def _mean_weights(op: Builder, values: Tensor, slopes: Tensor) -> Tensor:
    return _weighed(op, values, op.ReduceMean(slopes, [2], keepdims=1))


def _closed_form_weights(op: Builder, values: Tensor, slopes: Tensor) -> Tensor:
    """α = g² / (2g² + Σ_ab A_ab g³): 1 / (2 + g Σ_ab A_ab), which does not lose the squares of small gradients."""
    sums = op.ReduceSum(values, [2], keepdims=1)
    denominator = op.Add(op.Mul(slopes, sums), 2.0)
    # A negative gradient has no weight. Of a positive one the denominator vanishes only beside negative activations:
    # there the quotient has no value, and counts as 0.
    alphas = op.Where(op.Equal(denominator, 0.0), 0.0, op.Reciprocal(denominator))
    return _weighed(op, values, op.ReduceSum(op.Mul(alphas, op.Relu(slopes)), [2], keepdims=1))


def _weighed(op: Builder, values: Tensor, weights: Tensor) -> Tensor:
    return op.ReduceSum(op.Mul(weights, values), [1, 3], keepdims=0)


@method(
    "grad-cam",
    export=exporter("Grad-CAM", _mean_weights),
    line="which places a late layer reacts to",
    caption="Grad-CAM",
    note="a layer's channels by their mean gradient",
    source="Selvaraju et al. 2017, eq. 1 and 2",
    cost="1 gradient, down to the layer",
)
def grad_cam(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    layer: str | None = None,
    wrt: Names | None = None,
    relu: bool = True,
    align_corners: bool = False,
    progress: Progress | None = None,
    verify: bool = True,
) -> ActivationMap:
    """Return the map ReLU(Σ_k α_k A^k) with α_k the mean over positions of ∂y/∂A^k.

    model, inputs, target: as in `gradient`.
    layer: the layer to weigh: an ONNX tensor name, a module's path or a Keras layer. Default: the last tensor that lies
        over the input and through which the target reads all of it; the result's `layer` names it.
    wrt: the tensors over which the map is drawn, such as "embedding" of a text model. Default: the floating inputs.
    relu: keep only what speaks for the class, as published.
    align_corners: align corners in the bilinear resizing to the input. Published code does not.
    progress: called with the samples done and all.
    Returns maps (N, *spatial), not rescaled. Tokens without a place, such as a class token, are neither averaged nor
    shown.
    Raises UnknownTensor for a layer that there is not; AnalysisError for one without places in the input, or where
    there is no such layer; and what `gradient` raises.
    Source: Selvaraju et al. 2017, eq. 1 and 2.
    """
    options = Options("Grad-CAM", _mean_weights, relu, align_corners)
    return activation_map(model, inputs, target, layer, wrt, options, progress)


@method(
    "grad-cam-plus-plus",
    export=exporter("Grad-CAM++", _closed_form_weights),
    line="Grad-CAM that counts several objects",
    caption="Grad-CAM++",
    note="a layer's channels by their positive gradients",
    source="Chattopadhay et al. 2018, eq. 5, 6 and 19",
    cost="1 gradient, down to the layer",
    like=grad_cam,
)
def grad_cam_plus_plus(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    layer: str | None = None,
    wrt: Names | None = None,
    relu: bool = True,
    align_corners: bool = False,
    progress: Progress | None = None,
    verify: bool = True,
) -> ActivationMap:
    """Return the map ReLU(Σ_k w_k A^k) with w_k = Σ_ij α_ij ReLU(∂y/∂A^k_ij), α in closed form for y = exp(score).

    The factor exp(score) of all gradients of a sample is left out, as in the common implementations: it rescales the
    map and overflows. What is explained should be a score before the softmax. The arguments and errors are those of
    `grad_cam`. Source: Chattopadhay et al. 2018, eq. 5, 6 and 19.
    """
    options = Options("Grad-CAM++", _closed_form_weights, relu, align_corners)
    return activation_map(model, inputs, target, layer, wrt, options, progress)
