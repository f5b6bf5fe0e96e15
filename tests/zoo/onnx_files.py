"""The light models that the onnx package ships (opset 9, real structures), with weights that say something.

They carry no weights: each is a ConstantOfShape of one number, so that all classes tie and every gradient is
rounding. `network(name)` draws them instead, scaled so that signals keep their size, and makes the dense layers of
4,096 units narrow: their half a gigabyte of numbers would test memory alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
NAMES = tuple(sorted(path.stem.removeprefix("light_") for path in FOLDER.glob("*.onnx")))


WIDE, NARROW = 4096, 128


def path(name: str) -> Path:
    """The file as it ships."""
    return FOLDER / f"light_{name}.onnx"


def network(name: str, seed: int = 0) -> onnx.ModelProto:
    """The model with random weights in place of its constants, before any conversion."""
    model = onnx.load(path(name))
    model.ir_version = 8  # Before 4, every initializer had to be an input as well.
    rng = np.random.default_rng(seed)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    roles = {
        tensor: (node.op_type, position)
        for node in model.graph.node
        for position, tensor in enumerate(node.input)
        if position
    }
    kept = []
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            shape = tuple(NARROW if size == WIDE else int(size) for size in values[node.input[0]])
            array = _drawn(rng, shape, *roles.get(node.output[0], ("", 0)))
            model.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def _drawn(rng: np.random.Generator, shape: tuple[int, ...], op_type: str, position: int) -> np.ndarray:
    if op_type in ("Conv", "Gemm", "MatMul") and position == 1:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        return (rng.standard_normal(shape, dtype=np.float32) * np.sqrt(2 / fan_in)).astype(np.float32)
    if op_type == "BatchNormalization" and position in (1, 4):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    return (rng.standard_normal(shape) * 0.1).astype(np.float32)
