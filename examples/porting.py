"""Copy the weights of a PyTorch network into its Keras port, layer by layer.

    copy_weights([(net.conv1, conv1), (net.bn1, bn1), (net.lstm, lstm), (net.head, head)])

The input is a list of pairs of a PyTorch module and its Keras layer. Each Keras layer gets the weights of the module,
in the layout of Keras. There are rules for convolutions (grouped, depthwise and transposed ones, too), dense layers,
embeddings, normalizations, LSTM, GRU and multi-head attention. A pair with weights of different number or shape, or a
module without a rule, raises WeightMismatch before anything is overwritten. Settings that are not weights, such as an
epsilon, a padding or an activation, are not compared: use `analyzer.compare` to prove the port.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import singledispatch
from typing import Any

import keras
import numpy as np
import torch
from torch import nn

Arrays = list[np.ndarray]


class WeightMismatch(ValueError):
    """The weights of a module do not fit its Keras layer."""


def copy_weights(pairs: Iterable[tuple[nn.Module, Any]]) -> None:
    """Give every Keras layer the weights of its PyTorch module.

    A recurrent module of several layers is paired with a list of Keras layers; a bidirectional one with
    keras.layers.Bidirectional. For a Linear that reads a flattened feature map, see `copy_flattened`.
    Raises WeightMismatch with the first pair that does not fit. In that case no layer changes.
    """
    fitting = [entry for module, layer in pairs for entry in _fitted(module, layer)]
    for layer, weights in fitting:
        layer.set_weights(weights)


def copy_flattened(source: nn.Linear, layer: keras.layers.Dense, features: Sequence[int]) -> None:
    """Copy a Linear that reads flattened `features` = (C, *spatial): channels first in PyTorch, last in Keras."""
    if source.in_features != np.prod(features):
        raise WeightMismatch(f"{source} reads {source.in_features} features, not {tuple(features)} flattened")
    weight, *bias = _parameters(source, "weight", "bias")
    rows = np.moveaxis(weight.reshape(-1, *features), 1, -1).reshape(len(weight), -1)
    _check(source, layer, [rows.T, *bias])
    layer.set_weights([rows.T, *bias])


def _fitted(module: nn.Module, layer: Any) -> list[tuple[Any, Arrays]]:
    """Return the Keras layers of one pair with their new weights."""
    if isinstance(module, nn.LSTM | nn.GRU):
        return _recurrent(module, layer if isinstance(layer, list | tuple) else [layer])
    weights = weights_of(module)
    if isinstance(layer, keras.layers.DepthwiseConv2D | keras.layers.DepthwiseConv1D):
        weights[0] = _depthwise(module, weights[0])
    if isinstance(layer, keras.layers.PReLU) and layer.built:
        # One slope per channel, with the axes that share it.
        weights[0] = weights[0].reshape(*(1,) * (len(layer.weights[0].shape) - 1), -1)
    if isinstance(layer, keras.layers.MultiHeadAttention):
        weights = _by_head(module, weights)
    _check(module, layer, weights)
    return [(layer, weights)]


def _check(module: nn.Module, layer: Any, weights: Arrays) -> None:
    have, want = [w.shape for w in weights], [tuple(variable.shape) for variable in layer.weights]
    if not layer.built:
        raise WeightMismatch(f"{layer.name!r} is not built: call the Keras network on an input first")
    if have != want:
        raise WeightMismatch(f"{module} has weights {have} in Keras' layout, and {layer.name!r} takes {want}")


@singledispatch
def weights_of(module: nn.Module) -> Arrays:
    """Return the weights of the module in the order and layout of its Keras layer."""
    raise WeightMismatch(f"no rule copies the weights of {module}")


@weights_of.register(nn.Conv1d)
@weights_of.register(nn.Conv2d)
@weights_of.register(nn.Conv3d)
@weights_of.register(nn.ConvTranspose1d)
@weights_of.register(nn.ConvTranspose2d)
@weights_of.register(nn.ConvTranspose3d)
def _convolution(module: nn.Module) -> Arrays:
    """Turn (O, I, *kernel) into (*kernel, I, O), and a transposed (I, O, *kernel) into (*kernel, O, I)."""
    weight, *bias = _parameters(module, "weight", "bias")
    if getattr(module, "transposed", False) and module.groups != 1:
        raise WeightMismatch(f"Keras has no transposed convolution in groups for {module}")
    return [np.moveaxis(weight, (1, 0), (-2, -1)), *bias]


@weights_of.register
def _linear(module: nn.Linear) -> Arrays:
    weight, *bias = _parameters(module, "weight", "bias")
    return [weight.T, *bias]


@weights_of.register(nn.Embedding)
@weights_of.register(nn.LayerNorm)
@weights_of.register(nn.GroupNorm)
@weights_of.register(nn.PReLU)
def _as_they_are(module: nn.Module) -> Arrays:
    return _parameters(module, "weight", "bias")


@weights_of.register(nn.BatchNorm1d)
@weights_of.register(nn.BatchNorm2d)
@weights_of.register(nn.BatchNorm3d)
def _batch_norm(module: nn.Module) -> Arrays:
    return _parameters(module, "weight", "bias", "running_mean", "running_var")


@weights_of.register
def _attention(module: nn.MultiheadAttention) -> Arrays:
    """Return query, key, value and output: a (features, E) matrix each, followed by its bias if it has one."""
    if module.bias_k is not None or module.add_zero_attn:
        raise WeightMismatch(f"Keras' attention has no bias_k and no added zeros, but {module} has")
    if module.in_proj_weight is not None:
        matrices = np.split(_array(module.in_proj_weight), 3)
    else:
        matrices = _parameters(module, "q_proj_weight", "k_proj_weight", "v_proj_weight")
    matrices.append(_array(module.out_proj.weight))
    if module.in_proj_bias is None:
        return [matrix.T for matrix in matrices]
    biases = [*np.split(_array(module.in_proj_bias), 3), _array(module.out_proj.bias)]
    return [array for matrix, bias in zip(matrices, biases, strict=True) for array in (matrix.T, bias)]


def _by_head(module: nn.Module, weights: Arrays) -> Arrays:
    """Split the heads as in Keras: (E, heads, size) for input matrices, (heads, size, E) for the output matrix."""
    assert isinstance(module, nn.MultiheadAttention)
    shape = (module.num_heads, module.head_dim)
    going_in = len(weights) * 3 // 4
    apart = [w.reshape(*w.shape[:-1], *shape) for w in weights[:going_in]]
    matrix, *bias = weights[going_in:]
    return [*apart, matrix.reshape(*shape, -1), *bias]


def _depthwise(module: nn.Module, kernel: np.ndarray) -> np.ndarray:
    """Turn (*kernel, 1, channels · multiplier) into (*kernel, channels, multiplier)."""
    groups = getattr(module, "groups", 0)
    if kernel.shape[-2] != 1 or kernel.shape[-1] % groups:
        raise WeightMismatch(f"{module} is not a depthwise convolution")
    return kernel.reshape(*kernel.shape[:-2], groups, -1)


def _recurrent(module: nn.LSTM | nn.GRU, layers: Sequence[Any]) -> list[tuple[Any, Arrays]]:
    """Pair each layer of the module with a Keras layer. Forward weights come before those of the reverse direction."""
    if len(layers) != module.num_layers:
        raise WeightMismatch(f"{module} has {module.num_layers} layers, but is paired with {len(layers)}")
    directions = ("", "_reverse") if module.bidirectional else ("",)
    found = []
    for number, layer in enumerate(layers):
        weights = [w for direction in directions for w in _cell(module, f"l{number}{direction}")]
        _check(module, layer, weights)
        found.append((layer, weights))
    return found


def _cell(module: nn.LSTM | nn.GRU, suffix: str) -> Arrays:
    """Return kernel (I, gates · H), recurrent kernel (H, gates · H) and bias of one direction, in Keras' gate order."""
    if getattr(module, "proj_size", 0):
        raise WeightMismatch(f"Keras' LSTM has no projection, but {module} has")
    arrays = _parameters(
        module, *(f"{name}_{suffix}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    )
    if isinstance(module, nn.GRU):
        # PyTorch's gate order is reset, update, new; Keras' order is update, reset, new.
        arrays = [
            np.concatenate([update, reset, new]) for reset, update, new in (np.split(a, 3) for a in arrays)
        ]
    kernel, recurrent, *biases = arrays
    if not biases:
        return [kernel.T, recurrent.T]
    # An LSTM adds both biases. A GRU's reset gate acts on the recurrent bias, so reset_after needs both.
    bias = np.stack(biases) if isinstance(module, nn.GRU) else biases[0] + biases[1]
    return [kernel.T, recurrent.T, bias]


def _parameters(module: nn.Module, *names: str) -> Arrays:
    """Return the tensors with these names that the module has."""
    return [_array(tensor) for name in names if (tensor := getattr(module, name, None)) is not None]


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
