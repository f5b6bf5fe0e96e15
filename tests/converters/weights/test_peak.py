"""The peak memory of a gradient is a small multiple of the weights, measured in a new process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

WIDTH = 2048
SCRIPT = """
import json, sys
import numpy as np
import onnxplain as ox
from benchmarks.peak import growth
from converters.graph import runtime

runtime.FED = 2**26
x, found = np.ones((2, {width}), np.float32), []

def explain():
    fn = ox.differentiate(sys.argv[1])
    found.append(fn.gradients(x, 3).gradients["x"])
    found.append(ox.full_grad(fn, x, 3).completeness.error)

print(json.dumps([growth(explain), float(np.abs(found[0]).max()), float(np.abs(found[1]).max())]))
"""


def deep(path: Path, dtype: type, layers: int) -> int:
    """Write x ↦ tanh(… tanh(x W₁) … Wₙ) with its weights as external data, and return their bytes."""
    rng, nodes, x, weights = np.random.default_rng(0), list[onnx.NodeProto](), "x", list[onnx.TensorProto]()
    for i in range(layers):
        array = (rng.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(dtype)
        weights.append(numpy_helper.from_array(array, f"w{i}"))
        name = f"w{i}"
        if dtype != np.float32:
            name = f"wide{i}"
            nodes.append(helper.make_node("Cast", [f"w{i}"], [name], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("MatMul", [x, name], [f"m{i}"]))
        x = "y" if i == layers - 1 else f"t{i}"
        nodes.append(helper.make_node("Tanh", [f"m{i}"], [x]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in "xy"]
    graph = helper.make_graph(nodes, "deep", ends[:1], ends[1:], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save_model(proto, path, save_as_external_data=True, location="weights.bin")
    return path.with_name("weights.bin").stat().st_size


@pytest.mark.parametrize(("dtype", "layers", "most"), [(np.float32, 6, 1.8), (np.float16, 12, 3.2)])
def test_a_gradient_and_full_grad_share_one_copy_of_the_weights(
    tmp_path: Path, dtype: type, layers: int, most: float
) -> None:
    """Of 96 MiB of weights: their own copy, one or two that are widened, and what graphs and sessions take."""
    size = deep(tmp_path / "deep.onnx", dtype, layers)
    command = [sys.executable, "-c", SCRIPT.format(width=WIDTH), str(tmp_path / "deep.onnx")]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    peak, largest, error = json.loads(result.stdout.splitlines()[-1])
    assert largest > 0 and error < 1e-3

    assert peak <= most * size, f"{peak / 2**20:.0f} MiB for {size / 2**20:.0f} MiB of weights"
