"""LayerCAM: a layer's activations weighed place by place by their own positive gradients.

Source: Jiang, Zhang, Hou, Cheng & Wei 2021, "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization".
"""

from __future__ import annotations

from analyzer.backends import Differentiable, ModelLike
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.methods.class_activation import ActivationMap, Options, activation_map, exporter
from analyzer.methods.grad_cam import grad_cam
from analyzer.methods.registry import method
from analyzer.target.target import TargetLike
from analyzer.types import Inputs, Names, Progress


def _own_weights(op: Builder, values: Tensor, slopes: Tensor) -> Tensor:
    return op.ReduceSum(op.Mul(op.Relu(slopes), values), [1, 3], keepdims=0)


@method(
    "layer-cam",
    export=exporter("LayerCAM", _own_weights),
    line="Grad-CAM that is fine enough for early layers",
    caption="LayerCAM",
    note="a layer's activations by their own positive gradients",
    source="Jiang et al. 2021, eq. 5 to 7",
    cost="1 gradient, down to the layer",
    like=grad_cam,
)
def layer_cam(
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
    """Return the map ReLU(Σ_k ReLU(∂y/∂A^k) ⊙ A^k), which is fine enough for early layers, too.

    The arguments are those of `grad_cam`.

    Source: Jiang et al. 2021, eq. 5 to 7.
    """
    return activation_map(
        model, inputs, target, layer, wrt, Options("LayerCAM", _own_weights, relu, align_corners), progress
    )
