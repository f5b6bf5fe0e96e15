"""Which axis of a tensor holds its channels: 1 in ONNX's convolutions, the last in recurrent ops' inputs.

Reads a Graph; follows the axis from these, pooling and normalisation through Transposes and ops that keep
their axes, forwards and backwards, until nothing changes. A tensor that nothing reaches is not guessed.
"""

from __future__ import annotations

from analyzer.graph.graph import Graph, Node
from converters.types import Shape

CHANNELS_FIRST = frozenset(
    [
        "Conv",
        "ConvTranspose",
        "MaxPool",
        "AveragePool",
        "LpPool",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "GlobalLpPool",
        "BatchNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "LRN",
        "DepthToSpace",
        "SpaceToDepth",
    ]
)
# Their input is (sequence, batch, features).
RECURRENT = frozenset(["LSTM", "GRU", "RNN"])
MIXES_AXES = RECURRENT | frozenset(
    [
        "Reshape",
        "Flatten",
        "MatMul",
        "Gemm",
        "Einsum",
        "Gather",
        "GatherND",
        "GatherElements",
        "ScatterND",
        "Squeeze",
        "Unsqueeze",
        "Expand",
        "Tile",
    ]
)


def channel_axes(graph: Graph) -> dict[str, int]:
    """The channel axis of every tensor that it can be told of."""
    axes: dict[str, int] = {}
    while True:
        before = len(axes)
        for node in graph.nodes:
            _spread(graph, node, axes)
        for node in reversed(graph.nodes):
            _spread(graph, node, axes)
        if len(axes) == before:
            return axes


def input_channel_axis(graph: Graph, name: str, axes: dict[str, int]) -> int:
    """The channel axis of a graph input; where no layer tells, the last axis if it is short (grey, RGB, RGBA)."""
    if name in axes:
        return axes[name]
    shape = graph.tensors[name].shape or ()
    last = shape[-1] if shape else None
    first = shape[1] if len(shape) > 1 else None
    short = (1, 3, 4)
    return len(shape) - 1 if len(shape) > 2 and last in short and first not in short else 1


def _spread(graph: Graph, node: Node, axes: dict[str, int]) -> None:
    if node.op_type in RECURRENT:
        _learn(graph, axes, node.inputs[0], 2)
    if node.op_type == "Reshape":
        _through_reshape(graph, node, axes)
    if node.op_type in MIXES_AXES or not node.inputs:
        return
    data = node.inputs[0]
    if node.op_type in CHANNELS_FIRST:
        _learn(graph, axes, data, 1)
        _learn(graph, axes, node.outputs[0], 1)
    elif node.op_type == "Transpose":
        _through_transpose(graph, node, axes)
    else:
        _same_axes(graph, node, axes)


def _through_transpose(graph: Graph, node: Node, axes: dict[str, int]) -> None:
    data, output = node.inputs[0], node.outputs[0]
    shape = graph.tensors[data].shape
    if shape is None:
        return
    order = node.attributes["perm"] or list(reversed(range(len(shape))))
    if data in axes:
        _learn(graph, axes, output, order.index(axes[data]))
    elif output in axes:
        _learn(graph, axes, data, order[axes[output]])


def _through_reshape(graph: Graph, node: Node, axes: dict[str, int]) -> None:
    """One channel is moved by a Reshape as well as by a Transpose: (N, H, W, 1) to (N, 1, H, W)."""
    data, output = (graph.tensors[name] for name in (node.inputs[0], node.outputs[0]))
    if data.shape is None or output.shape is None or data.shape.count(1) != 1 or output.shape.count(1) != 1:
        return
    if [axis for axis in data.shape if axis != 1] != [axis for axis in output.shape if axis != 1]:
        return
    for known, other in ((data, output), (output, data)):
        assert known.shape is not None and other.shape is not None
        if known.name in axes and known.shape[axes[known.name]] == 1:
            _learn(graph, axes, other.name, other.shape.index(1))


def _same_axes(graph: Graph, node: Node, axes: dict[str, int]) -> None:
    """Tensors of equal rank around an op that keeps its axes share the channel axis."""
    output = graph.tensors[node.outputs[0]]
    if output.shape is None:
        return
    peers = [
        name
        for name in (*node.inputs, *node.outputs)
        if name and (shape := graph.tensors[name].shape) is not None and len(shape) == len(output.shape)
    ]
    known = {axes[name] for name in peers if name in axes}
    if len(known) == 1:
        axis = known.pop()
        for name in peers:
            _learn(graph, axes, name, axis)


def _learn(graph: Graph, axes: dict[str, int], name: str, axis: int) -> None:
    shape = graph.tensors[name].shape
    if name not in axes and shape is not None and axis < len(shape) and len(shape) >= 3:
        axes[name] = axis


# They keep the axes of their first input and the number of its channels, where all other inputs are constants.
_KEEP_CHANNELS = frozenset(
    ["Cast", "Identity", "Neg", "Sub", "Add", "Mul", "Div", "Clip", "BatchNormalization"]
)


def shape_with_channels(graph: Graph, name: str) -> Shape | None:
    """Return the shape of an input, its channels stated where the first convolution tells what the file leaves open."""
    shape = graph.tensors[name].shape
    if shape is None or len(shape) < 3 or all(isinstance(axis, int) for axis in shape[1:]):
        return shape
    order, tensor = list(range(len(shape))), name
    while len(readers := graph.consumers.get(tensor, ())) == 1:
        node = readers[0]
        constants = [one for one in node.inputs if one and graph.tensors[one].constant is not None]
        if node.op_type == "Conv" and node.inputs[0] == tensor:
            kernel = graph.tensors[node.inputs[1]].shape
            channels = kernel[1] if kernel is not None and len(kernel) == len(shape) else None
            if not isinstance(channels, int) or isinstance(shape[order[1]], int) or order[1] == 0:
                return shape
            return (*shape[: order[1]], channels * node.attributes["group"], *shape[order[1] + 1 :])
        if node.op_type == "Transpose":
            order = [order[axis] for axis in node.attributes["perm"] or reversed(range(len(shape)))]
        elif (
            node.op_type not in _KEEP_CHANNELS
            or len(constants) != len([one for one in node.inputs if one]) - 1
        ):
            return shape
        tensor = node.outputs[0]
    return shape
