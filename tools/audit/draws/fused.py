"""ONNX Runtime's own ops, and ops that the standard defines by other ops."""

from __future__ import annotations

import numpy as np

from tools.audit.sketch import Sketch

MICROSOFT = "com.microsoft"


def draw(sketch: Sketch) -> None:
    """One fused op, with its optional inputs and attributes or without."""
    sketch.opsets[MICROSOFT] = 1
    x = sketch.input(2, 3, 4)
    kind = sketch.choose(
        *("Gelu", "BiasGelu", "FastGelu", "QuickGelu", "FusedMatMul", "Skip", "SkipSimplified"),
        *("Attention", "MultiHeadAttention"),
    )
    if kind in ("Attention", "MultiHeadAttention"):
        y = _attention(sketch) if kind == "Attention" else _multi_head(sketch)
    elif kind == "Gelu":
        y = sketch.add("Gelu", x, domain=MICROSOFT)
    elif kind in ("BiasGelu", "FastGelu"):
        bias = [sketch.weight(4)] if kind == "BiasGelu" or sketch.chance(50) else []
        y = sketch.add(kind, x, *bias, domain=MICROSOFT)
    elif kind == "QuickGelu":
        y = sketch.add(kind, x, domain=MICROSOFT, alpha=sketch.choose(None, 1.0, 0.5))
    elif kind == "FusedMatMul":
        a, b = sketch.choose(0, 1), sketch.choose(0, 1)
        w = sketch.weight(2, 2, 3 if a else 4) if b else sketch.weight(2, 3 if a else 4, 2)
        y = sketch.add(kind, x, w, domain=MICROSOFT, transA=a, transB=b, alpha=sketch.choose(None, 0.5, -3.0))
    else:
        y = _skip(sketch, x, kind)
    sketch.output(str(y))


def _attention(sketch: Sketch) -> str:
    """Packed projections, with the masks of integers that the op takes; the root of a head's size is exact."""
    x = str(sketch.add("Tanh", sketch.input(2, 3, 4)))
    parts = [x, sketch.weight(4, 24, flavour="ordinary")]
    parts.append(sketch.weight(24, flavour="ordinary") if sketch.chance(70) else "")
    if sketch.chance(50):
        parts.append(sketch.constant(sketch.rng.integers(0, 2, (2, 3)).astype(np.int32)))
    while not parts[-1]:
        parts.pop()
    return str(
        sketch.add(
            "Attention",
            *parts,
            domain=MICROSOFT,
            num_heads=sketch.choose(2, 8),
            unidirectional=sketch.choose(None, 1),
            scale=sketch.choose(None, 0.25),
            mask_filter_value=sketch.choose(None, -64.0),
        )
    )


def _multi_head(sketch: Sketch) -> str:
    """Separate projections, with a bias, a mask of keys and a bias of the scores."""
    parts = [str(sketch.add("Tanh", sketch.input(2, length, 8))) for length in (2, 3)]
    parts.append(str(sketch.add("Tanh", sketch.input(2, 3, 8))))
    parts.append(sketch.weight(24, flavour="ordinary") if sketch.chance(50) else "")
    parts.append(
        sketch.constant(sketch.rng.integers(0, 2, (2, 3)).astype(np.int32)) if sketch.chance(50) else ""
    )
    parts.append(sketch.weight(1, 2, 2, 3, flavour="ordinary") if sketch.chance(50) else "")
    while not parts[-1]:
        parts.pop()
    scale = sketch.choose(None, 0.25)
    return str(sketch.add("MultiHeadAttention", *parts, domain=MICROSOFT, num_heads=2, scale=scale))


def _skip(sketch: Sketch, x: str, kind: str) -> str:
    skip = sketch.choose(x, sketch.input(2, 3, 4))
    parts = [x, skip, sketch.weight(4, flavour="ordinary")]
    bias = [sketch.weight(4, flavour="ordinary")] if sketch.chance(50) else []
    epsilon = sketch.choose(None, 1e-5, 1e-3)
    if kind == "SkipSimplified":
        name = "SkipSimplifiedLayerNormalization"
        return str(sketch.add(name, *parts, *bias, domain=MICROSOFT, epsilon=epsilon))
    if bias or sketch.chance(50):
        parts.append(sketch.weight(4, flavour="ordinary"))
    return str(sketch.add("SkipLayerNormalization", *parts, *bias, domain=MICROSOFT, epsilon=epsilon))


def draw_functions(sketch: Sketch) -> None:
    """An op with a body in the standard, which takes the root of its scale in float32: squares are exact."""
    kind = sketch.choose("Attention", "CenterCropPad")
    if kind == "CenterCropPad":
        axes = sketch.choose([0, 1], [1], [-1, 0])
        target = sketch.integers(*(sketch.number(1, 6) for _ in axes))
        y = sketch.add(kind, sketch.input(3, 4), target, axes=axes)
    else:
        # The evaluator and the body take infinite scores of infinite inputs for different things.
        q, k, v = (str(sketch.add("Tanh", sketch.input(1, 2, 3, 2))) for _ in range(3))
        masked = sketch.choose(None, sketch.dtype, bool)
        mask = () if masked is None else (sketch.input(3, 3, dtype=masked),)
        y = sketch.add(
            kind, q, k, v, *mask, is_causal=sketch.choose(0, 1), scale=sketch.choose(0.25, 1.0, 4.0)
        )
    sketch.output(str(y))
