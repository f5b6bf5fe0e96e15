"""Write the page of subgradients from the op classes: `python docs/make_subgradients.py`.

Reads the registry and writes docs/subgradients.md.
"""

from __future__ import annotations

from pathlib import Path

from analyzer.ops import registered
from analyzer.ops.registry import Kind

HEAD = """# Subgradients

At a kink, an op has no derivative, or a different derivative on each side, so the gradient is a choice. onnxplain makes
one choice per op and kink, the same on ONNX Runtime, PyTorch and TensorFlow. The tests evaluate every op exactly at its
kinks and compare every backend with the numbers that follow from this table. `python docs/make_subgradients.py` writes
the table from the classes in `analyzer/ops`.

| op | where | subgradient |
|---|---|---|
"""
CONSTANT = """
## Piecewise constant ops

The derivative of these ops is 0 wherever it exists, and is defined as 0 at their jumps, too. A value that depends only
on such ops is a constant. Ops that return integers or booleans carry no gradient.

"""
QUANTIZING = """
## Quantizing ops

The derivative of these ops is also 0, but the derivative of the network before quantization is not. Between the input
and the target, they raise an error. With `straight_through=True`, they are differentiated as if they did not round: the
derivative is 1 within their range and at its bounds, and 0 outside.

"""
DRAWING = """
## Random draws

A draw from a distribution that is computed from the input has no gradient. Between the input and the target, these ops
raise an error. Noise from a fixed distribution is a constant.

"""


def page() -> str:
    """Return the page as Markdown."""
    ops = sorted(registered().items())
    rows = [f"| {name} | {kink.where} | {kink.choice} |\n" for (_, name), op in ops for kink in op.kinks]
    constant = [name for (_, name), op in ops if op.kind is Kind.CONSTANT and not (op.quantizes or op.draws)]
    quantizing = [name for (_, name), op in ops if op.quantizes]
    drawing = [name for (_, name), op in ops if op.draws]
    parts = ((CONSTANT, constant), (QUANTIZING, quantizing), (DRAWING, drawing))
    return HEAD + "".join(rows) + "".join(f"{text}{', '.join(names)}.\n" for text, names in parts)


if __name__ == "__main__":
    (Path(__file__).parent / "subgradients.md").write_text(page(), encoding="utf-8")
