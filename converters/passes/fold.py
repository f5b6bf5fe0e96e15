"""Fold BatchNorm, and per-channel constants in its place, into the linear layer before it.

Rewrites a MutableGraph. A per-channel map y = x·factor + shift after a Conv, ConvTranspose, Gemm or MatMul goes
into that layer's weight and bias, if nobody else reads the value between: BatchNormalization, the chain of
Mul and Add that TensorFlow exports for it, and the Add of a bias alone. The layer takes over the name of
the last folded value, which it now computes. Arithmetic is in float64; whatever is folded, each weight and bias is
rounded once, to the weight's dtype of unit u. So an output differs by at most u of the sum of the magnitudes of its
terms, Σ|w·x| + |b|, where the file's own rounding is larger. A fold is not applied where a constant is not finite or
would be lost to overflow or underflow, where the factor exceeds 1/u or the shift is that of a mask, and to integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from converters.graph.mutable import MutableGraph
from converters.graph.nodes import attribute, is_standard
from converters.passes.exactness import is_bias, is_float, largest_factor, rounded

SCOPES_KEY = "pkg.torch.onnx.name_scopes"
OUTPUT_OF_KEY = "onnxplain.output_of"
"""The metadata key of a layer that now computes what another module did: the scopes of that module."""

_CONVOLUTIONS = ("Conv", "ConvTranspose")
# Layers with a bias of their own. A BatchNorm is one: it takes up the scale and shift behind it.
_LAYERS = (*_CONVOLUTIONS, "Gemm", "BatchNormalization")


@dataclass(frozen=True)
class _ChannelMap:
    """y = x·factor + shift along the channels; `stem` names the bias that comes of it."""

    factor: np.ndarray
    shift: np.ndarray
    stem: str


class _Folding:
    """A graph whose layers are folded, and the exact values of the constants that were rounded for it."""

    def __init__(self, graph: MutableGraph) -> None:
        self.graph = graph
        self.folded = 0
        self._exact: dict[str, np.ndarray] = {}

    def array(self, node: onnx.NodeProto, index: int) -> np.ndarray | None:
        """The constant at an input, or None where it is omitted or computed."""
        name = node.input[index] if index < len(node.input) else ""
        return self.graph.constants.get(name)

    def exact(self, node: onnx.NodeProto, index: int) -> np.ndarray:
        """The constant at an input in float64, as it was before it was rounded for an earlier fold."""
        name = node.input[index]
        return self._exact.get(name, self.graph.constants[name].astype(np.float64))

    def layer_before(self, name: str, *op_types: str) -> onnx.NodeProto | None:
        """The node of one of these ops that computes a tensor for its one reader alone."""
        node = self.graph.producer(name)
        once = self.graph.use_count(name) == 1
        return node if node is not None and once and is_standard(node, *op_types) else None

    def replace(self, layer: onnx.NodeProto, last: onnx.NodeProto) -> None:
        """Let `layer` compute the result of `last`, under its name, and remove `last`."""
        self.graph.remove([last])
        layer.output[0] = last.output[0]
        self.graph.relink(layer)
        _note_module(layer, last)
        self.folded += 1

    def rename(self, layer: onnx.NodeProto, reader: onnx.NodeProto, name: str) -> None:
        """Give the output of a layer, with its one reader, a new name: its value is not that of the file."""
        old, new = layer.output[0], self.graph.fresh(name)
        layer.output[0] = new
        self.graph.relink(layer)
        self.graph.set_input(reader, list(reader.input).index(old), new)
        if old in self.graph.types:
            self.graph.types[new] = self.graph.types.pop(old)

    def store(
        self, layer: onnx.NodeProto, index: int, name: str, stored: np.ndarray, exact: np.ndarray
    ) -> None:
        """Put a new constant at an input of a layer, and remember it as it was before rounding."""
        fresh = self.graph.fresh(name)
        self.graph.constants[fresh] = stored
        self._exact[fresh] = exact
        self.graph.set_input(layer, index, fresh)


def _note_module(layer: onnx.NodeProto, last: onnx.NodeProto) -> None:
    """Whose output a layer computes, where that is another module than its own."""
    own, taken = ({entry.key: entry.value for entry in node.metadata_props} for node in (layer, last))
    scopes = taken.get(OUTPUT_OF_KEY, taken.get(SCOPES_KEY))
    # The last scope is the operator's own.
    if scopes is not None and scopes.rpartition(",")[0] != own.get(SCOPES_KEY, "").rpartition(",")[0]:
        kept = [entry for entry in layer.metadata_props if entry.key != OUTPUT_OF_KEY]
        del layer.metadata_props[:]
        layer.metadata_props.extend(kept)
        layer.metadata_props.add(key=OUTPUT_OF_KEY, value=scopes)


def fold_batch_norms(graph: MutableGraph) -> int:
    """Fold wherever it is exact. Returns how many nodes were folded away."""
    folding = _Folding(graph)
    for node in graph.nodes:
        if is_standard(node, "BatchNormalization"):
            _fold_batch_norm(folding, node)
        elif is_standard(node, "Mul", "Div"):
            _fold_scale(folding, node)
        elif is_standard(node, "Add", "Sub"):
            _fold_shift(folding, node)
    return folding.folded


def drop_zero_biases(graph: MutableGraph) -> None:
    """A convolution whose bias is all zeros has none."""
    for node in graph.nodes:
        if is_standard(node, *_CONVOLUTIONS) and len(node.input) > 2:
            bias = graph.constants.get(node.input[2])
            if bias is not None and not bias.any():
                graph.set_inputs(node, node.input[:2])


def _fold_batch_norm(folding: _Folding, node: onnx.NodeProto) -> None:
    if attribute(node, "training_mode", 0) or sum(bool(name) for name in node.output) > 1:
        return
    parameters = [folding.array(node, index) for index in range(1, 5)]
    if any(array is None for array in parameters):
        return
    scale, offset, mean, variance = (np.asarray(array, np.float64) for array in parameters)
    epsilon = attribute(node, "epsilon", 1e-5)
    with np.errstate(all="ignore"):  # a factor that is not finite is refused where it is stored
        factor = scale / np.sqrt(variance + epsilon)
        change = _ChannelMap(factor, offset - mean * factor, _stem(node.input[1]))
    layer = folding.layer_before(node.input[0], *_LAYERS, "MatMul", "Add")
    if layer is None:
        return
    if layer.op_type in ("MatMul", "Add"):
        # BatchNorm's channels are axis 1, a product's are its last axis: one and the same in rank 2 only.
        if len(folding.graph.shape(node.input[0]) or ()) != 2:
            return
        if layer.op_type == "Add" and not _absorb_product(folding, layer, change):
            return
        if layer.op_type == "MatMul" and not _absorb_as_gemm(folding, layer, change):
            return
        folding.replace(layer, node)
    elif _absorb(folding, layer, change):
        folding.replace(layer, node)


def _fold_scale(folding: _Folding, node: onnx.NodeProto) -> None:
    """Mul (or Div) by a constant, where it is the beginning of a BatchNorm: an Add follows."""
    index = _variable_input(folding, node)
    if index is None or not _shift_follows(folding, node):
        return
    constant = np.asarray(folding.array(node, 1 - index), np.float64)
    if node.op_type == "Div":
        if index == 1 or not constant.all():
            return
        with np.errstate(over="ignore"):
            constant = 1.0 / constant
    layer = folding.layer_before(node.input[index], *_LAYERS, "MatMul", "Add")
    if layer is None:
        return
    factor = _along_channels(folding, layer, constant)
    if factor is None:
        return
    change = _ChannelMap(factor, np.zeros_like(factor), _stem(node.output[0]))
    _fold_into(folding, layer, node, change)


def _fold_shift(folding: _Folding, node: onnx.NodeProto) -> None:
    """Add (or Sub) of a per-channel constant: a bias. A product and its Add stay two nodes."""
    index = _variable_input(folding, node)
    if index is None or (node.op_type == "Sub" and index == 1):
        return
    layer = folding.layer_before(node.input[index], *_LAYERS, "Add")
    if layer is None:
        return
    constant = np.asarray(folding.array(node, 1 - index), np.float64)
    shift = _along_channels(folding, layer, constant if node.op_type == "Add" else -constant)
    if shift is None:
        return
    change = _ChannelMap(np.ones_like(shift), shift, _stem(node.output[0]))
    _fold_into(folding, layer, node, change)


def _fold_into(folding: _Folding, layer: onnx.NodeProto, node: onnx.NodeProto, change: _ChannelMap) -> None:
    absorb = _absorb_product if layer.op_type == "Add" else _absorb
    if absorb(folding, layer, change):
        folding.replace(layer, node)


def _variable_input(folding: _Folding, node: onnx.NodeProto) -> int | None:
    """Which of two inputs is computed, where the other is a constant."""
    constant = [folding.array(node, index) is not None for index in (0, 1)]
    return None if constant[0] == constant[1] else constant.index(False)


def _shift_follows(folding: _Folding, node: onnx.NodeProto) -> bool:
    """Whether the one reader of a scaled value adds a constant, further scales between allowed."""
    while node.op_type in ("Mul", "Div"):
        following = folding.graph.only_reader(node.output[0])
        if following is None or not is_standard(following, "Mul", "Div", "Add", "Sub"):
            return False
        if _variable_input(folding, following) is None:
            return False
        node = following
    return True


def _along_channels(folding: _Folding, layer: onnx.NodeProto, constant: np.ndarray) -> np.ndarray | None:
    """A broadcast constant as one number per channel of the layer; None where it is anything else."""
    channels = _channels(folding, layer)
    if channels is None:
        return None
    weight = folding.array(layer, 1)
    if layer.op_type in _CONVOLUTIONS:
        assert weight is not None
        rank, axis = weight.ndim, 1
    elif layer.op_type == "Gemm":
        rank, axis = 2, 1
    elif layer.op_type == "BatchNormalization":
        shape = folding.graph.shape(layer.input[0])
        if shape is None:
            return None
        rank, axis = len(shape), 1
    else:
        # A product has its channels last. Its rank matters only to a constant that may raise it.
        shape = folding.graph.shape(layer.output[0])
        rank = len(shape) if shape is not None else 1
        axis = rank - 1
    if constant.ndim > rank:
        return None
    padded = (1,) * (rank - constant.ndim) + constant.shape
    expected = tuple(size if index == axis else 1 for index, size in enumerate(padded))
    if padded != expected or padded[axis] not in (1, channels):
        return None
    return np.broadcast_to(constant.reshape(-1), (channels,))


def _channels(folding: _Folding, layer: onnx.NodeProto) -> int | None:
    """The number of output channels of a layer with a constant weight."""
    if layer.op_type == "Add":
        product = _product_before(folding, layer)
        return None if product is None else _channels(folding, product)
    weight = folding.array(layer, 1)
    if weight is None:
        return None
    if layer.op_type in ("Conv", "BatchNormalization"):
        return int(weight.shape[0])
    if layer.op_type == "ConvTranspose":
        return int(weight.shape[1] * attribute(layer, "group", 1))
    if layer.op_type == "Gemm":
        return int(weight.shape[0 if attribute(layer, "transB", 0) else 1])
    return int(weight.shape[1]) if weight.ndim == 2 else None


def _product_before(folding: _Folding, add: onnx.NodeProto) -> onnx.NodeProto | None:
    """The MatMul by a constant whose bias an Add is."""
    index = _variable_input(folding, add)
    return None if index is None else folding.layer_before(add.input[index], "MatMul")


def _absorb(folding: _Folding, layer: onnx.NodeProto, change: _ChannelMap) -> bool:
    """Put a channel map into a layer's own weight and bias."""
    weight, channels = folding.array(layer, 1), _channels(folding, layer)
    if weight is None or not is_float(weight) or channels != len(change.factor):
        return False
    if layer.op_type == "BatchNormalization" and (
        attribute(layer, "training_mode", 0) or sum(bool(name) for name in layer.output) > 1
    ):
        return False
    bias = np.zeros(channels)
    bias_name = layer.input[2] if len(layer.input) > 2 else ""
    if bias_name:
        if folding.array(layer, 2) is None:
            return False
        stored = folding.exact(layer, 2)
        padded = (1,) * (2 - stored.ndim) + stored.shape
        if layer.op_type == "Gemm" and (padded[0] != 1 or padded[1] not in (1, channels)):
            return False
        beta = float(attribute(layer, "beta", 1.0)) if layer.op_type == "Gemm" else 1.0
        bias = np.broadcast_to(beta * stored.reshape(-1), (channels,))
    with np.errstate(all="ignore"):
        shift = bias * change.factor + change.shift
    shifted, scaled, weights = rounded(shift, weight.dtype), None, folding.exact(layer, 1)
    if shifted is not None and _is_moderate(change, weight):
        # A small alpha behind large products would hide that these overflow.
        alpha = float(attribute(layer, "alpha", 1.0)) if layer.op_type == "Gemm" else 1.0
        weights = weights * alpha * _spread(layer, change.factor, weights)
        scaled = rounded(weights, weight.dtype, _spread(layer, _largest(layer, weights), weights))
    if scaled is None or shifted is None or (layer.op_type == "MatMul" and shifted.any()):
        return False
    if not np.all(change.factor == 1.0):
        folding.store(layer, 1, f"{_stem(layer.input[1])}.folded_weight", scaled, weights)
        _set_float(layer, "alpha", 1.0)
    if shifted.any() or layer.op_type == "BatchNormalization":
        folding.store(layer, 2, f"{change.stem}.folded_bias", shifted, shift)
        _set_float(layer, "beta", 1.0)
    elif bias_name:
        folding.graph.set_inputs(layer, layer.input[:2])
    return True


def _is_moderate(change: _ChannelMap, weight: np.ndarray) -> bool:
    """Return whether neither the factor nor the shift is so large that sums with them lose digits."""
    small = bool((np.abs(change.factor) <= largest_factor(weight.dtype)).all())
    return small and is_bias(change.shift, change.factor, weight.dtype)


def _absorb_product(folding: _Folding, add: onnx.NodeProto, change: _ChannelMap) -> bool:
    """Put a channel map into a product's weight and into the Add that holds its bias."""
    product = _product_before(folding, add)
    if product is None:
        return False
    index = 1 - (_variable_input(folding, add) or 0)
    spread = _along_channels(folding, product, folding.exact(add, index))
    weight = folding.array(product, 1)
    if spread is None or weight is None or not is_float(weight) or len(change.factor) != len(spread):
        return False
    with np.errstate(all="ignore"):
        shift = spread * change.factor + change.shift
    shifted = rounded(shift, weight.dtype)
    only_scale = _ChannelMap(change.factor, np.zeros_like(change.factor), change.stem)
    if shifted is None or not _is_moderate(change, weight) or not _absorb(folding, product, only_scale):
        return False
    folding.store(add, index, f"{change.stem}.folded_bias", shifted, shift)
    if not np.all(change.factor == 1.0):
        folding.rename(product, add, f"{_stem(product.output[0])}.folded")
    return True


def _absorb_as_gemm(folding: _Folding, product: onnx.NodeProto, change: _ChannelMap) -> bool:
    """A rank-2 product without a bias becomes a Gemm, which has one."""
    channels, weight = _channels(folding, product), folding.array(product, 1)
    if weight is None or channels != len(change.factor):
        return False
    product.op_type = "Gemm"
    if _absorb(folding, product, change):
        return True
    product.op_type = "MatMul"
    return False


def _spread(layer: onnx.NodeProto, values: np.ndarray, w: np.ndarray) -> np.ndarray:
    """One value per output channel, shaped to broadcast to the layer's weight."""
    if layer.op_type == "Conv":
        return values.reshape(-1, *(1,) * (w.ndim - 1))
    if layer.op_type == "ConvTranspose":
        # Weight axes are (inputs of all groups, outputs of one group, *kernel).
        groups = int(attribute(layer, "group", 1))
        of_inputs = np.repeat(values.reshape(groups, -1), w.shape[0] // groups, axis=0)
        return of_inputs.reshape(*of_inputs.shape, *(1,) * (w.ndim - 2))
    if layer.op_type == "Gemm" and attribute(layer, "transB", 0):
        return values[:, None]
    return values


def _largest(layer: onnx.NodeProto, w: np.ndarray) -> np.ndarray:
    """The largest magnitude among the weights of each output channel."""
    if layer.op_type == "ConvTranspose":
        groups = int(attribute(layer, "group", 1))
        grouped = w.reshape(groups, w.shape[0] // groups, w.shape[1], -1).swapaxes(1, 2)
        rows = grouped.reshape(groups * w.shape[1], -1)
    elif layer.op_type in ("Conv", "BatchNormalization") or attribute(layer, "transB", 0):
        rows = w.reshape(w.shape[0], -1)
    else:
        rows = w.T
    found: np.ndarray = np.abs(rows).max(axis=1, initial=0.0)
    return found


def _set_float(node: onnx.NodeProto, name: str, value: float) -> None:
    for entry in node.attribute:
        if entry.name == name:
            entry.f = value


def _stem(name: str) -> str:
    """A tensor's name without its role: "layer1.bn.weight" and "layer1/bn:0" name the layer."""
    name = name.removesuffix(":0")
    for role in (".weight", ".scale", ".gamma", "_scale", "_gamma", ".bias"):
        name = name.removesuffix(role)
    return name
