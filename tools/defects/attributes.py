"""Defects of attributes and of the op itself: epsilon, padding, strides, axes, pools, interpolation, activations."""

from __future__ import annotations

import numpy as np
import onnx

from tools.defects.edit import Edit
from tools.defects.kinds import defect

NORMALIZATIONS = (
    "BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization",
)  # fmt: skip
SAME = {"SAME_UPPER": "SAME_LOWER", "SAME_LOWER": "SAME_UPPER"}
REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2", "ReduceLogSumExp")


@defect("wrong epsilon", *NORMALIZATIONS)
def wrong_epsilon(edit: Edit, node: onnx.NodeProto) -> str | None:
    """Another framework's default."""
    right = edit.attribute(node, "epsilon")
    wrong = edit.pick([eps for eps in (1e-2, 1e-3, 1e-5, 1e-6) if abs(eps - right) > 0.5 * right])
    edit.set(node, epsilon=wrong)
    return f"{right:.0e} became {wrong:.0e}"


@defect("padding off by one", "Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")
def padding_off(edit: Edit, node: onnx.NodeProto) -> str | None:
    """ "Same" with the odd pixel on the other side."""
    automatic = edit.attribute(node, "auto_pad")
    if automatic in SAME:
        edit.set(node, auto_pad=SAME[automatic])
        return f"{automatic} became {SAME[automatic]}"
    pads = list(edit.attribute(node, "pads") or ())
    half = len(pads) // 2
    movable = [(a, b) for i in range(half) for a, b in ((i, i + half), (i + half, i)) if pads[a] > 0]
    if not movable:
        return None
    taken, given = edit.pick(movable)
    pads[taken], pads[given] = pads[taken] - 1, pads[given] + 1
    edit.set(node, pads=pads)
    return f"pads became {pads}"


@defect("wrong dilation", "Conv")
def wrong_dilation(edit: Edit, node: onnx.NodeProto) -> str | None:
    """Dilated where it should not be, or the other way round, padded to the same size."""
    w, pads = edit.constant(node, 1), edit.attribute(node, "pads")
    if w is None or edit.attribute(node, "auto_pad") != "NOTSET" or w.shape[2] == 1:
        return None
    dilations, rank = list(edit.attribute(node, "dilations") or [1] * (w.ndim - 2)), w.ndim - 2
    wrong, pads = 3 - dilations[0] if dilations[0] in (1, 2) else 1, list(pads or [0] * (2 * rank))
    reach = (w.shape[2] - 1) * (wrong - dilations[0])
    begin = reach // 2
    pads[0], pads[rank] = pads[0] + begin, pads[rank] + reach - begin
    if min(pads) < 0:
        return None
    dilations[0] = wrong
    edit.set(node, dilations=dilations, pads=pads)
    return f"dilations became {dilations}"


@defect("wrong stride", "Conv", "MaxPool", "AveragePool")
def wrong_stride(edit: Edit, node: onnx.NodeProto) -> str | None:
    """A smaller stride whose extra places are left out at the end: the same number of places, elsewhere."""
    strides = list(edit.attribute(node, "strides") or ())
    pads = list(edit.attribute(node, "pads") or [0] * (2 * len(strides)))
    sizes = [edit.shape(name)[2:] for name in (node.input[0], node.output[0])]
    kernel = edit.attribute(node, "kernel_shape")
    if not strides or strides[0] < 2 or edit.attribute(node, "auto_pad") != "NOTSET" or not kernel:
        return None
    if not all(size and isinstance(size[0], int) for size in sizes):
        return None
    (read, given), dilation = (size[0] for size in sizes), (edit.attribute(node, "dilations") or [1])[0]
    strides[0] -= 1
    end = (given - 1) * strides[0] + (kernel[0] - 1) * dilation + 1 - read - pads[0]
    pads[len(strides)] = end
    edit.set(node, strides=strides, pads=pads)
    return f"strides became {strides}" if end >= 0 else None


@defect("half-pixel shift of a resize", "Resize")
def resize_shift(edit: Edit, node: onnx.NodeProto) -> str | None:
    """Another convention of where a pixel lies."""
    mode = "coordinate_transformation_mode"
    right = edit.attribute(node, mode)
    wrong = edit.pick(sorted({"half_pixel", "asymmetric", "align_corners"} - {right}))
    edit.set(node, **{mode: wrong})
    return f"{right} became {wrong}"


@defect("wrong interpolation of a resize", "Resize")
def resize_mode(edit: Edit, node: onnx.NodeProto) -> str | None:
    """Nearest for linear, or the pixel on the other side."""
    right = edit.attribute(node, "mode")
    if right == "nearest":
        rounding = edit.attribute(node, "nearest_mode")
        wrong = edit.pick(sorted({"floor", "ceil", "round_prefer_floor"} - {rounding}))
        edit.set(node, nearest_mode=wrong)
        return f"{rounding} became {wrong}"
    edit.set(node, mode="nearest")
    return f"{right} became nearest"


@defect("wrong pool", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool")
def wrong_pool(edit: Edit, node: onnx.NodeProto) -> str | None:
    """The average for the maximum, or the other way round."""
    if len([name for name in node.output if name]) > 1:
        return None
    wrong = node.op_type.replace("Max", "?").replace("Average", "Max").replace("?", "Average")
    given = {
        key: edit.attribute(node, key)
        for key in ("kernel_shape", "strides", "pads", "ceil_mode", "auto_pad", "dilations")
        if "Global" not in wrong
    }
    right = node.op_type
    edit.become(node, wrong, **given)
    return f"{right} became {wrong}"


@defect("padding counted in a pool", "AveragePool")
def pool_count(edit: Edit, node: onnx.NodeProto) -> str | None:
    """Whether an average counts the padding."""
    edit.set(node, count_include_pad=1 - edit.attribute(node, "count_include_pad"))
    return "count_include_pad turned"


@defect("pool rounded the other way", "MaxPool", "AveragePool")
def pool_ceil(edit: Edit, node: onnx.NodeProto) -> str | None:
    """ceil_mode for a pixel of padding at the end, or the other way round."""
    ceil, pads = edit.attribute(node, "ceil_mode"), list(edit.attribute(node, "pads") or ())
    if not pads:
        return None
    half = len(pads) // 2
    pads[half:] = [pad + (1 if ceil else -1) for pad in pads[half:]]
    if min(pads) < 0:
        return None
    edit.set(node, ceil_mode=1 - ceil, pads=pads)
    return f"ceil_mode became {1 - ceil}, pads {pads}"


@defect("wrong axis", "Softmax", "LogSoftmax", "CumSum", "LpNormalization", *REDUCTIONS)
def wrong_axis(edit: Edit, node: onnx.NodeProto) -> str | None:
    """The neighbouring axis, where shapes let that pass."""
    rank = len(edit.shape(node.input[0]))
    listed = node.op_type == "CumSum" or node.op_type in REDUCTIONS
    axes = edit.array(node, 1) if listed else edit.attribute(node, "axis")
    if rank < 3 or axes is None or np.size(axes) != 1:
        return None
    right = int(np.reshape(axes, -1)[0]) % rank
    wrong = edit.pick([axis for axis in range(1, rank) if axis != right])
    if listed:
        edit.give(node, 1, np.full(np.shape(axes), wrong, np.int64))
    else:
        edit.set(node, axis=wrong)
    return f"{right} became {wrong}"


@defect("accumulated the other way", "CumSum")
def cumsum_way(edit: Edit, node: onnx.NodeProto) -> str | None:
    """A running sum from the end, or one that leaves out its own element."""
    flag = edit.pick(["reverse", "exclusive"])
    edit.set(node, **{flag: 1 - edit.attribute(node, flag)})
    return f"{flag} turned"


@defect("wrong direction", "LSTM", "GRU", "RNN")
def wrong_direction(edit: Edit, node: onnx.NodeProto) -> str | None:
    """A recurrent layer that reads the sequence from its other end."""
    right = edit.attribute(node, "direction")
    wrong = {"forward": "reverse", "reverse": "forward"}.get(right)
    if wrong is None:
        return None
    edit.set(node, direction=wrong)
    return f"{right} became {wrong}"


@defect("wrong reset gate", "GRU")
def wrong_reset(edit: Edit, node: onnx.NodeProto) -> str | None:
    """The reset gate before the linear map, or after it."""
    edit.set(node, linear_before_reset=1 - edit.attribute(node, "linear_before_reset"))
    return "linear_before_reset turned"


@defect("attention scale missing", "Attention")
def attention_scale(edit: Edit, node: onnx.NodeProto) -> str | None:
    """Scores that are not divided by the root of their width."""
    edit.set(node, scale=1.0)
    return "scale became 1"


@defect("attention mask turned", "Attention")
def attention_mask(edit: Edit, node: onnx.NodeProto) -> str | None:
    """A causal mask that is missing, or one too many."""
    edit.set(node, is_causal=1 - edit.attribute(node, "is_causal"))
    return "is_causal turned"


@defect("wrong activation variant", "Gelu", "LeakyRelu", "Elu", "Celu", "HardSigmoid", "Sigmoid", "HardSwish",
        "Relu", "Tanh", "Softplus", "Selu", "ThresholdedRelu", "Shrink", "Mish")  # fmt: skip
def wrong_activation(edit: Edit, node: onnx.NodeProto) -> str | None:
    """An activation of the same family: tanh for exact, hard for soft, another slope."""
    right = node.op_type
    if right == "Gelu":
        wrong = {"none": "tanh", "tanh": "none"}[edit.attribute(node, "approximate")]
        edit.set(node, approximate=wrong)
        return f"approximate became {wrong}"
    if right in ("LeakyRelu", "Elu", "Celu", "HardSigmoid", "ThresholdedRelu"):
        slope = edit.attribute(node, "alpha")
        edit.set(node, alpha=slope * 1.1 + 0.01)
        return f"alpha {slope:.2f} became {slope * 1.1 + 0.01:.2f}"
    if right == "Shrink":
        edit.set(node, lambd=edit.attribute(node, "lambd") + 0.1)
        return "lambd off by 0.1"
    one = np.float32(1)
    turned = {
        "Sigmoid": ("HardSigmoid", (), {"alpha": 1 / 6, "beta": 0.5}),
        "Tanh": ("Clip", (-one, one), {}),
        "Relu": ("LeakyRelu", (), {"alpha": 0.01}),
        "Softplus": ("Relu", (), {}),
        "Selu": ("Elu", (), {}),
        "HardSwish": ("Mish", (), {}),
        "Mish": ("HardSwish", (), {}),
    }
    wrong, operands, attributes = turned[right]
    edit.become(node, wrong, *(np.asarray(operand) for operand in operands), **attributes)
    return f"{right} became {wrong}"


@defect("operands joined in the wrong order", "Concat")
def concat_order(edit: Edit, node: onnx.NodeProto) -> str | None:
    """The first two operands change places; of other lengths along the axis the shape is none the wiser."""
    if node.input[0] == node.input[1]:
        return None
    node.input[0], node.input[1] = node.input[1], node.input[0]
    return "the first two"


@defect("branch scale missing", "Add")
def branch_scale(edit: Edit, node: onnx.NodeProto) -> str | None:
    """A residual branch that is weighed otherwise than the other model weighs it."""
    if any(edit.array(node, index) is not None for index in (0, 1)):
        return None
    factor = edit.pick([0.5, 0.9, 1.1])
    edit.insert_before(node, 1, "Mul", np.asarray(factor, np.float32))
    return f"the branch times {factor}"
