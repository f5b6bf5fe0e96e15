"""Write the page of subgradient choices from what the op classes state: `python docs/make_subgradients.py`.

Reads the registry, writes docs/subgradients.md.
"""

from __future__ import annotations

from pathlib import Path

from analyzer.ops import registered
from analyzer.ops.registry import Kind

HEAD = """# Subgradients

Where an op has no derivative, or a different one on every side, a gradient is a choice. onnxplain makes one choice an
op, the same on ONNX Runtime, PyTorch and TensorFlow. The tests plant each of these places exactly and compare every
backend with the numbers that follow from this table, which `python docs/make_subgradients.py` makes from the classes in
`analyzer/ops`.

| op | where | subgradient |
|---|---|---|
"""
CONSTANT = """
## Piecewise constant ops

Their derivative is 0 wherever they have one, and is taken as 0 at their jumps too: what follows from them alone is a
constant. Those that return integers or booleans carry no gradient at all.

"""
QUANTIZING = """
## Quantizing ops

Their derivative is 0 too, but that of the network they stand for is not: between the input and the target they are
refused, or with `straight_through=True` differentiated as if they did not round: 1 within their range and at its
bounds, 0 outside.

"""
DRAWING = """
## Draws

What is drawn by a distribution that is computed from the input has no gradient: between the input and the target these
are refused. Noise of a fixed distribution is a constant.

"""


def page() -> str:
    """The page as Markdown."""
    ops = sorted(registered().items())
    rows = [f"| {name} | {kink.where} | {kink.choice} |\n" for (_, name), op in ops for kink in op.kinks]
    constant = [name for (_, name), op in ops if op.kind is Kind.CONSTANT and not (op.quantizes or op.draws)]
    quantizing = [name for (_, name), op in ops if op.quantizes]
    drawing = [name for (_, name), op in ops if op.draws]
    parts = ((CONSTANT, constant), (QUANTIZING, quantizing), (DRAWING, drawing))
    return HEAD + "".join(rows) + "".join(f"{text}{', '.join(names)}.\n" for text, names in parts)


if __name__ == "__main__":
    (Path(__file__).parent / "subgradients.md").write_text(page(), encoding="utf-8")
