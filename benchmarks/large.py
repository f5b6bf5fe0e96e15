"""Measure memory and time of a large decoder: `python -m benchmarks.large [--size 1b] [--write PAGE]`.

The network has random weights, in the shape of GPT-2: "124m" or "1b" parameters in float32, float16 or bfloat16. It is
written as an ONNX file with external data, used in one new process for each step, and deleted. The peak is that of the
whole process, as Linux counts it, imports and mapped weights included. Needs 5 GB of disk and 12 GB of memory for "1b".
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from benchmarks.peak import peak
from benchmarks.results import Results, machine, write_section

SIZES = {"tiny": (64, 2, 512), "50m": (512, 12, 12_000), "124m": (768, 12, 50_257), "1b": (2048, 18, 50_257)}
"""Width, layers, vocabulary."""
TOKENS, HEAD = 32, 64
STEPS = ("import", "inspect", "convert", "gradient", "full-grad", "integrated-gradients")
DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16)}
DTYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)


class Decoder:
    """Nodes and initializers of a decoder; the large weights go to a file as they are drawn."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self.path, self.dtype = path, dtype
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.data = path.with_name(f"{path.name}.data").open("wb")

    def op(self, op_type: str, *inputs: str, **attributes: object) -> str:
        """Append a node and return its output."""
        name = f"{op_type}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def small(self, array: object, dtype: object = np.int64) -> str:
        """Store a constant in the model."""
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def weight(self, name: str, *shape: int) -> str:
        """Write a weight, in float32 as the decoder computes."""
        array = self.rng.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        stored = array.astype(self.dtype)
        offset = self.data.tell()
        self.data.write(stored.tobytes())
        self.data.write(bytes(-stored.nbytes % 4096))
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        tensor = TensorProto(name=name, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
        entries = {"location": f"{self.path.name}.data", "offset": offset, "length": stored.nbytes}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        self.initializers.append(tensor)
        return name if self.dtype == np.float32 else self.op("Cast", name, to=TensorProto.FLOAT)

    def vector(self, size: int, value: float) -> str:
        """Store a bias, or a scale around 1."""
        return self.small(value + 0.02 * self.rng.standard_normal(size), np.float32)

    def linear(self, x: str, name: str, inputs: int, outputs: int) -> str:
        """Append a product and a bias."""
        product = self.op("MatMul", x, self.weight(name, inputs, outputs))
        return self.op("Add", product, self.vector(outputs, 0.0))

    def norm(self, x: str, width: int) -> str:
        """Append a LayerNormalization."""
        return self.op("LayerNormalization", x, self.vector(width, 1.0), self.vector(width, 0.0), axis=-1)

    def heads(self, x: str, width: int) -> str:
        """Split into heads: (N, heads, tokens, HEAD)."""
        split = self.op("Reshape", x, self.small([0, 0, width // HEAD, HEAD]))
        return self.op("Transpose", split, perm=[0, 2, 1, 3])

    def attention(self, x: str, mask: str, width: int, name: str) -> str:
        """Append causal attention of heads of HEAD numbers."""
        q, k, v = (
            self.heads(self.linear(x, f"{name}.{one}", width, width), width) for one in ("q", "k", "v")
        )
        scores = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = self.op("Mul", scores, self.small(HEAD**-0.5, np.float32))
        mixed = self.op("MatMul", self.op("Softmax", self.op("Add", scores, mask), axis=-1), v)
        joined = self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), self.small([0, 0, width]))
        return self.linear(joined, f"{name}.out", width, width)


def write_decoder(path: Path, size: str, dtype: np.dtype) -> int:
    """Write a decoder and return its parameters."""
    width, layers, words = SIZES[size]
    net = Decoder(path, dtype)
    x = net.op("Gather", net.weight("embedding", words, width), "tokens")
    x = net.op("Add", x, net.op("Gather", net.weight("positions", TOKENS, width), net.small(range(TOKENS))))
    mask = net.small(np.triu(np.full((TOKENS, TOKENS), -1e9), 1), np.float32)
    for index in range(layers):
        x = net.op("Add", x, net.attention(net.norm(x, width), mask, width, f"{index}.attention"))
        hidden = net.op("Gelu", net.linear(net.norm(x, width), f"{index}.up", width, 4 * width))
        x = net.op("Add", x, net.linear(hidden, f"{index}.down", 4 * width, width))
    last = net.op("Gather", net.norm(x, width), net.small(TOKENS - 1), axis=1)
    net.nodes[-1].output[0] = last = "last"
    net.op("MatMul", last, net.weight("head", width, words))
    net.nodes[-1].output[0] = "logits"
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", TOKENS])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", words])
    graph = helper.make_graph(net.nodes, "decoder", [tokens], [logits], net.initializers)
    net.data.close()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return sum(int(np.prod(tensor.dims)) for tensor in net.initializers)


def measure(path: Path, step: str) -> None:
    """Run one step in this process, and print its seconds and the peak as JSON."""
    began = time.perf_counter()
    call(path, step)
    children = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({"seconds": time.perf_counter() - began, "peak": max(peak(), children)}))


def call(path: Path, step: str) -> None:
    """Run one step."""
    import onnxplain as ox

    if step == "import":
        return
    if step == "inspect":
        subprocess.run(
            [sys.executable, "-m", "onnxplain", "inspect", str(path)], check=True, capture_output=True
        )
        return
    if step == "convert":
        ox.convert(path).save(path.with_name("converted.onnx"))
        return
    tokens = np.random.default_rng(1).integers(0, 500, (1, TOKENS))
    fn = ox.differentiate(path)
    if step == "gradient":
        fn.gradients(tokens, 3, "embedding")
    elif step == "full-grad":
        ox.full_grad(fn, tokens, 3, wrt="embedding")
    else:
        ox.integrated_gradients(fn, tokens, 3, wrt="embedding", steps=8)


def rows(path: Path, weights: int, steps: list[str]) -> Iterator[list[str]]:
    """Measure each step in a new process."""
    for step in steps:
        command = [sys.executable, "-m", "benchmarks.large", "--measure", step, "--file", str(path)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        yield [
            step,
            f"{found['seconds']:.1f} s",
            f"{found['peak'] / 2**30:.2f} GiB",
            f"{found['peak'] / weights:.2f}",
        ]


def main() -> None:
    """Write the network, measure, print, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--steps", default=",".join(STEPS))
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.file, options.measure)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "decoder.onnx"
        parameters = write_decoder(path, options.size, DTYPES[options.dtype])
        weights = path.with_name(f"{path.name}.data").stat().st_size
        title = f"{parameters / 1e6:,.0f} M parameters in {options.dtype}, {weights / 2**30:.2f} GiB"
        found = []
        for row in rows(path, weights, options.steps.split(",")):
            found.append(row)
            print(" | ".join(row), flush=True)
    table = Results(title, ("step", "time", "peak", "peak / weights"), found)
    Console(width=120).print(table.rich())
    if options.write:
        command = "`python -m benchmarks.large --write docs/benchmarks.md`"
        versions = ("numpy", "onnx", "onnxruntime")
        write_section(
            options.write, "Large models", "\n\n".join([command, machine(versions), table.markdown()])
        )


if __name__ == "__main__":
    main()
