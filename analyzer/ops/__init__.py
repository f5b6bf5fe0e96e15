"""Everything known of each op, a file per family. Importing this package fills the registry."""

from analyzer.ops import (
    activation,
    contraction,
    convolution,
    elementwise,
    indexing,
    layout,
    linear,
    logic,
    normalization,
    pooling,
    reduction,
    resize,
    shape,
    transcendental,
)
from analyzer.ops.registry import Kind, Op, find, register, registered

__all__ = [
    "Kind",
    "Op",
    "activation",
    "contraction",
    "convolution",
    "elementwise",
    "find",
    "indexing",
    "layout",
    "linear",
    "logic",
    "normalization",
    "pooling",
    "reduction",
    "register",
    "registered",
    "resize",
    "shape",
    "transcendental",
]
