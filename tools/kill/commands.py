"""The commands that write, with the models and the inputs that they read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass(frozen=True)
class Command:
    """A command of onnxplain: its name, and its arguments; "OUT" in them is the folder that it writes into."""

    name: str
    arguments: tuple[str, ...]

    def writing_to(self, folder: Path) -> list[str]:
        """The command line that writes into this folder."""
        return [self.name, *(argument.replace("OUT", str(folder)) for argument in self.arguments)]


def write_models(folder: Path) -> None:
    """Write two equal networks, with weights of some megabytes so that writing takes time, and two images."""
    rng = np.random.default_rng(0)
    weights = (rng.standard_normal((512, 3 * 32 * 32)) / 50).astype(np.float32)
    layers = {"w": weights, "v": (rng.standard_normal((10, 512)) / 20).astype(np.float32)}
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w"], ["hidden"], transB=1),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "v"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(array, name) for name, array in layers.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    for name in ("a", "b"):
        onnx.save_model(proto, folder / f"{name}.onnx")
    np.save(folder / "x.npy", rng.standard_normal((2, 3, 32, 32)).astype(np.float32))


def commands(folder: Path, demo: bool = False) -> list[Command]:
    """Every command that writes. demo: include the one that runs for minutes."""
    a, b, x = (str(folder / name) for name in ("a.onnx", "b.onnx", "x.npy"))
    reports = ("--html", "OUT/report.html", "--junit", "OUT/report.xml")
    found = [
        Command("convert", (a, "-o", "OUT/model.onnx")),
        Command("analyze", (a, x, "-o", "OUT")),
        Command("check", (a, x, "--backends", "onnxruntime", *reports)),
        Command("compare", (a, b, x, *reports)),
    ]
    return [*found, Command("demo", ("-o", "OUT", "--backends", "onnxruntime"))] if demo else found
