"""Check networks of every family on all backends: `python -m benchmarks.agreement [--write docs/agreement.md]`.

Each network has one row. The row has the worst relative L2 of every quantity over all pairs of backends, at the
default tolerances. It counts the comparisons that exceed the tolerance for a stated reason, and it has the
completeness error of FullGrad in float32 and float64. The networks are those of tests/zoo, with random weights, and
trained EfficientNet-Lite0 on two photographs. The exit status is 1 if a network fails. Needs `pip install ".[test]"`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from analyzer import check, differentiate, full_grad
from analyzer.checks.report import Report
from analyzer.checks.tolerances import COMPARED, DEFAULT
from analyzer.demo import PREPROCESSING, load_network, photographs
from analyzer.figures import preprocess
from analyzer.graph.graph import Graph
from benchmarks.results import Results, machine
from converters import convert
from tests.zoo import (
    keras_families,
    keras_networks,
    pytorch_networks,
    pytorch_sequences,
    pytorch_transformers,
    pytorch_vision,
)

Built = tuple[Any, tuple[np.ndarray, ...]]
VERSIONS = ("onnx", "onnxruntime", "torch", "tensorflow-cpu", "keras", "numpy")
STEPS = 4

HEAD = f"""# Agreement of the backends

Every network below ran through `check` as a user runs it. It was converted, and then computed on ONNX Runtime, on
PyTorch, on TensorFlow and in the original framework. Every backend was compared with every other, tensor by tensor:
outputs, layers, gradients at the input and at every bias, FullGrad's map, and Integrated Gradients ({STEPS} points of
the path). The numbers are the worst relative L2 of each quantity over all pairs. The tolerance is {DEFAULT:.0e}.

A comparison may exceed the tolerance only for a [reason that is shown](checks.md). The last section lists the reasons:

- Decisions of ReLU, MaxPool, Clip… within rounding of their kink. They are counted, and with equal decisions the
  gradients agree.
- Rounding: the value is zero except for rounding, or both sides are within the tolerance of float64.

*Explained* counts these comparisons. *Completeness* is the relative error of FullGrad's sum against the output, on the
worst backend. *In float64* is the same error on the PyTorch backend in float64.

The small networks have random weights and represent their family. Parameters are those of the converted graph.
EfficientNet-Lite0 is trained on ImageNet and explains two photographs.

`python -m benchmarks.agreement --write docs/agreement.md`
"""


@dataclass(frozen=True)
class Row:
    """Hold the results of `check` for one network.

    worst: {quantity: relative L2}. explained: the number of comparisons that exceed the tolerance for a stated reason.
    reasons: these reasons in words.
    """

    network: str
    family: str
    parameters: int
    nodes: int
    backends: tuple[str, ...]
    passed: bool
    reason: str
    comparisons: int
    worst: dict[str, float]
    explained: int
    reasons: str
    completeness: float
    completeness_float64: float
    seconds: float


def _vision(name: str) -> Callable[[], Built]:
    def build() -> Built:
        net, shape = pytorch_networks.NETWORKS[name]()
        return net, (pytorch_networks.example_input(shape).numpy(),)

    return build


def _family(build: Callable[[], tuple[Any, Sequence[Any]]]) -> Callable[[], Built]:
    def built() -> Built:
        net, example = build()
        return net, tuple(np.asarray(array) for array in example)

    return built


def _application(name: str) -> Callable[[], Built]:
    def build() -> Built:
        net, shape = keras_networks.NETWORKS[name]()
        return net, (keras_networks.example_input(name, shape),)

    return build


def _trained() -> Built:
    images = [preprocess(picture, PREPROCESSING) for picture in photographs().values()]
    return load_network(), (np.stack(images),)


PYTORCH: dict[str, Callable[[], Built]] = {
    "EfficientNet-Lite0, trained": _trained,
    "ResNet-50": _vision("resnet50"),
    "DenseNet": _vision("densenet"),
    "MobileNetV3": _vision("mobilenet_v3"),
    "Inception v3": _vision("inception_v3"),
    "ConvNeXt": _family(pytorch_vision.NETWORKS["convnext"]),
    "U-Net": _family(pytorch_vision.NETWORKS["unet"]),
    "MLP-Mixer": _family(pytorch_vision.NETWORKS["mixer"]),
    "ViT": _family(pytorch_transformers.NETWORKS["vit"]),
    "Swin": _family(pytorch_transformers.NETWORKS["swin"]),
    "Llama": _family(pytorch_transformers.NETWORKS["llama"]),
    "LSTM, bidirectional": _family(pytorch_sequences.NETWORKS["lstm_bidirectional"]),
    "text transformer": _family(pytorch_sequences.TEXTS["text_masked"]),
}
KERAS: dict[str, Callable[[], Built]] = {
    "CNN": _application("sequential"),
    "ResNet-18": _application("resnet18"),
    "MobileNetV2": _application("mobilenet_v2"),
    "EfficientNet-B0": _application("efficientnet_b0"),
    "ShuffleNet v2": _application("shufflenet_v2"),
    "ConvNeXt": _family(keras_families.NETWORKS["convnext"]),
    "U-Net": _family(keras_families.NETWORKS["unet"]),
    "encoder": _family(keras_families.NETWORKS["encoder"]),
    "cross-attention": _family(keras_families.NETWORKS["cross_attention"]),
    "LSTM": _family(keras_families.NETWORKS["lstm"]),
    "ConvLSTM": _family(keras_families.NETWORKS["conv_lstm"]),
    "text": _family(keras_families.TEXTS["text"]),
}
FAMILIES = {"PyTorch": PYTORCH, "Keras": KERAS}


def examine(family: str, network: str) -> Row:
    """Build, convert and check one network."""
    began = time.perf_counter()
    net, example = FAMILIES[family][network]()
    model = convert(net, example[0] if len(example) == 1 else example)
    graph = differentiate(model).graph
    feeds = dict(zip(graph.inputs, example, strict=True))
    wrt = embedded(graph)
    report = check(model, feeds, steps=STEPS, wrt=wrt)
    double = full_grad(differentiate(model, "torch", precision="float64"), feeds, wrt=wrt).completeness
    explanations = [row["explanation"] for row in report.rows if row["explanation"]]
    return Row(
        network=network,
        family=family,
        parameters=sum(int(np.prod(weight.dims)) for weight in model.proto.graph.initializer),
        nodes=len(graph.nodes),
        backends=report.backends,
        passed=report.passed,
        reason=report.reason,
        comparisons=len(report.rows),
        worst=worst(report),
        explained=len(explanations),
        reasons=reasons(explanations),
        completeness=max(row["error"] for row in report.completeness),
        completeness_float64=float(double.error.max()),
        seconds=time.perf_counter() - began,
    )


def embedded(graph: Graph) -> list[str] | None:
    """Return the embedding to attribute for token inputs, or None for float inputs."""
    if any(graph.tensors[name].is_float for name in graph.inputs):
        return None
    return [next(node.outputs[0] for node in graph.nodes if node.op_type == "Gather")]


def worst(report: Report) -> dict[str, float]:
    """Return the largest relative L2 of every compared quantity."""
    found: dict[str, float] = {}
    for row in report.rows:
        found[row["quantity"]] = max(row["relative_l2"], found.get(row["quantity"], 0.0))
    return found


def reasons(explanations: Sequence[str]) -> str:
    """Return the number of comparisons waived for kinks and for rounding, each with the first explanation."""
    kinks = [one for one in explanations if "kink" in one or "exact tie" in one]
    rounding = [one for one in explanations if one not in kinks]
    told = {"kinks": kinks, "rounding": rounding}
    return "; ".join(f"{len(found)} by {kind}, first {found[0]}" for kind, found in told.items() if found)


def table(family: str, rows: Sequence[Row]) -> Results:
    """Return the table of one framework's networks."""
    columns = ("network", "parameters", "nodes", "comparisons", *COMPARED)
    columns += ("explained", "completeness", "in float64", "seconds", "verdict")
    return Results(f"{family} networks", columns, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    return [
        row.network,
        f"{row.parameters:,}",
        str(row.nodes),
        f"{row.comparisons:,}",
        *(f"{row.worst[quantity]:.0e}" if quantity in row.worst else "–" for quantity in COMPARED),
        str(row.explained),
        f"{row.completeness:.0e}",
        f"{row.completeness_float64:.0e}",
        f"{row.seconds:.0f}",
        "agree" if row.passed else f"DISAGREE: {row.reason}",
    ]


def page(rows: Sequence[Row]) -> str:
    """Return the page as Markdown."""
    agreed = sum(row.passed for row in rows)
    parts = [HEAD, f"{machine(VERSIONS)}.\n"]
    parts.append(
        f"**{agreed} of {len(rows)} networks agree**, in {sum(row.comparisons for row in rows):,} comparisons, "
        f"{sum(row.explained for row in rows):,} of them above the tolerance for a stated reason.\n"
    )
    for family in FAMILIES:
        mine = [row for row in rows if row.family == family]
        parts.append(f"## {family}\n\n{table(family, mine).markdown()}\n")
    parts.append("## Reasons\n\nThe reasons for comparisons above the tolerance, by network:\n")
    parts += [f"- {row.family} {row.network}: {row.reasons}." for row in rows if row.reasons]
    return "\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the networks, print the results, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", help="check only this network, by its name in the table")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    options = parser.parse_args(arguments)
    chosen = [
        (family, name)
        for family, networks in FAMILIES.items()
        for name in networks
        if options.network in (None, name)
    ]
    if not chosen:
        parser.error(f"there is no network {options.network!r}")
    if options.write and options.network:
        parser.error("the page is of all networks")
    console = Console(width=220)
    rows = []
    for family, name in chosen:
        with console.status(f"{family} {name}"):
            rows.append(examine(family, name))
    if options.json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))
    else:
        for family in dict.fromkeys(row.family for row in rows):
            console.print(table(family, [row for row in rows if row.family == family]).rich())
    if options.write:
        options.write.write_text(page(rows), encoding="utf-8")
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
