"""Compare the planned memory of a call with the measured peak: `python -m benchmarks.memory [--write PAGE]`.

Each row has a network, a backend and a batch. The need is the value that batches are planned with
(analyzer/backends/batching/planning.py). The peak is that of a separate process in three calls, in addition to the
loaded model, as Linux counts it. Needs `pip install ".[test]"`.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import nn

from analyzer import differentiate, full_grad
from analyzer.autodiff.request import observe
from analyzer.backends import Differentiable
from analyzer.backends.batching.planning import Call
from analyzer.backends.batching.planning import plan as plan_of
from analyzer.methods.full_grad import POST_PROCESSING
from analyzer.methods.full_gradient.decomposition import Settings, plan
from benchmarks.peak import growth
from benchmarks.results import Results, machine, write_section
from converters import convert
from tests.zoo.pytorch_networks import resnet50, vgg16
from tests.zoo.pytorch_sequences import Recurrent
from tests.zoo.pytorch_transformers import VisionTransformer

VERSIONS = ("numpy", "onnxruntime", "torch", "tensorflow-cpu")
IMAGE = (3, 224, 224)
NETWORKS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "ResNet-50": resnet50,
    "VGG-16": vgg16,
    "ViT": lambda: (VisionTransformer(size=224, patch=8, width=256), IMAGE),
    "LSTM": lambda: (Recurrent(nn.LSTM, width=512), (256, 4)),
}
METHODS = ("gradient", "full-grad")
BACKENDS = ("onnxruntime", "torch", "tensorflow", "source")
CALLS = 3


def case(fn: Differentiable, x: np.ndarray, method: str) -> tuple[Call, Callable[[], object]]:
    """Return the planned call, and the call to measure."""
    bound = fn.bind(x, 0)
    if method == "gradient":
        names = fn.differentiable_inputs
        return Call(observe(names, names), (), bound.seed), lambda: fn.gradients(x, 0)
    settings = Settings(bound.seed.outputs, fn.roots(), explicit=False, psi=POST_PROCESSING["paper"])
    request = plan(bound, settings).request
    return Call(request, (), bound.seed), lambda: full_grad(fn, x, 0)


def measure(name: str, backend: str, method: str, batch: int) -> None:
    """Print the need and the peak as JSON, both without the results that a caller keeps."""
    torch.manual_seed(0)
    net, shape = NETWORKS[name]()
    x = np.random.default_rng(0).standard_normal((batch, *shape)).astype(np.float32)
    fn = differentiate(convert(net.eval(), torch.zeros(2, *shape)), backend, max_memory=2**50)
    call, run = case(fn, x, method)
    found = plan_of(fn, call, {fn.graph.inputs[0]: x})
    assert found is not None
    need = found.estimate.bytes(batch)
    # A small call loads the framework's libraries before the measurement.
    differentiate(convert(nn.Linear(2, 2), torch.zeros(2, 2)), backend).gradients(
        np.zeros((1, 2), np.float32), 0
    )
    gc.collect()
    print(json.dumps({"need": need, "peak": growth(lambda: [run() for _ in range(CALLS)])}))


def row(name: str, backend: str, method: str, batch: int) -> list[str]:
    """Return need and peak in MiB, and their ratio."""
    command = [sys.executable, "-m", "benchmarks.memory", "--measure", f"{name}/{backend}/{method}/{batch}"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(result.stdout.splitlines()[-1])
    need, peak = (found[key] / 2**20 for key in ("need", "peak"))
    return [f"{name}, {method}, batch {batch}", backend, f"{need:.0f}", f"{peak:.0f}", f"{need / peak:.2f}"]


def main() -> None:
    """Measure, print, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, backend, method, batch = options.measure.split("/")
        measure(name, backend, method, int(batch))
        return
    rows = []
    for name in options.networks.split(","):
        for backend in options.backends.split(","):
            for method in options.methods.split(","):
                for batch in options.batches.split(","):
                    rows.append(row(name, backend, method, int(batch)))
                    print(" | ".join(rows[-1]), flush=True)
    columns = ("", "backend", "need, MiB", "peak, MiB", "need / peak")
    table = Results(f"Planned need and measured peak of {CALLS} calls", columns, rows)
    Console(width=160).print(table.rich())
    if options.write:
        command = "`python -m benchmarks.memory --write docs/benchmarks.md`"
        write_section(options.write, "Memory", "\n\n".join([command, machine(VERSIONS), table.markdown()]))


if __name__ == "__main__":
    main()
