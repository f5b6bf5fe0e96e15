"""Networks of every family on all backends under `check`: `python -m benchmarks.agreement [--write docs/agreement.md]`.

One row a network: the worst relative L2 of every quantity over all pairs of backends, at the default tolerances; how
many comparisons exceed theirs for a reason that is named; how far FullGrad's sum is from the output, in float32 and in
float64. Networks of tests/zoo with random weights, and EfficientNet-Lite0 with its
trained ones on two photographs. Exits with 1 where a network fails. Needs `pip install ".[test]"`.
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

Every network below went through `check` as a user runs it: converted, then read on ONNX Runtime, PyTorch, TensorFlow
and in the original framework, every backend against every other, and compared tensor by tensor: outputs, layers,
gradients at the input and at every bias, FullGrad's map, Integrated Gradients ({STEPS} points of the path). The numbers
are the worst relative L2 of each quantity over all pairs; the tolerance is {DEFAULT:.0e}.

A comparison in excess of it is accepted only for a [reason that is shown](checks.md), and the reason is named below:
decisions of ReLU, MaxPool, Clip… within rounding of their kink, which are counted, and with which held equal the
gradients agree; or rounding, of what is zero but for it, or of two sides that are each within the tolerance of
float64. *Completeness* is the relative error of FullGrad's sum against the output on the worst backend, and that of the
PyTorch backend in float64.

The small networks have random weights and stand for their family; parameters are those of the converted graph.
EfficientNet-Lite0 is trained on ImageNet and explains two photographs.

`python -m benchmarks.agreement --write docs/agreement.md`
"""


@dataclass(frozen=True)
class Row:
    """What `check` found of one network. worst: {quantity: relative L2}; explained: how many comparisons are in excess
    for a named reason; reasons: which, in words.
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
    """What stands for tokens in the attribution: their embedding. None where the inputs are numbers."""
    if any(graph.tensors[name].is_float for name in graph.inputs):
        return None
    return [next(node.outputs[0] for node in graph.nodes if node.op_type == "Gather")]


def worst(report: Report) -> dict[str, float]:
    """The largest relative L2 of every quantity that was compared."""
    found: dict[str, float] = {}
    for row in report.rows:
        found[row["quantity"]] = max(row["relative_l2"], found.get(row["quantity"], 0.0))
    return found


def reasons(explanations: Sequence[str]) -> str:
    """How many comparisons are accepted for kinks, and how many for rounding, each with the first explanation."""
    kinks = [one for one in explanations if "kink" in one or "exact tie" in one]
    rounding = [one for one in explanations if one not in kinks]
    told = {"kinks": kinks, "rounding": rounding}
    return "; ".join(f"{len(found)} by {kind}, first {found[0]}" for kind, found in told.items() if found)


def table(family: str, rows: Sequence[Row]) -> Results:
    """The rows of one framework's networks."""
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
    """The page as Markdown."""
    agreed = sum(row.passed for row in rows)
    parts = [HEAD, f"{machine(VERSIONS)}.\n"]
    parts.append(
        f"**{agreed} of {len(rows)} networks agree**, in {sum(row.comparisons for row in rows):,} comparisons, "
        f"{sum(row.explained for row in rows):,} of them in excess for a named reason.\n"
    )
    for family in FAMILIES:
        mine = [row for row in rows if row.family == family]
        parts.append(f"## {family}\n\n{table(family, mine).markdown()}\n")
    parts.append("## Reasons\n\nWhy comparisons in excess of the tolerance are accepted, by network:\n")
    parts += [f"- {row.family} {row.network}: {row.reasons}." for row in rows if row.reasons]
    return "\n".join(parts) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", help="one alone, by its name in the table")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--json", action="store_true", help="rows for machines instead of tables")
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
