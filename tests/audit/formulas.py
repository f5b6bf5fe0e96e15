"""NumPy formulas for the ops that ONNX's reference evaluator computes in float32 or does not know."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun


class Dropout(OpRun):
    """Dropout with an omitted ratio, which the evaluator does not take; its random numbers have one seed."""

    def _run(self, x: Any, ratio: Any = 0.5, training_mode: Any = False, seed: Any = None) -> Any:
        ratio = 0.5 if ratio is None else ratio
        kept = np.ones(x.shape, bool)
        if training_mode is not None and training_mode and ratio:
            kept = np.random.default_rng(0).random(x.shape) >= ratio
            x = (np.where(kept, x, 0) / (1 - ratio)).astype(x.dtype)
        return (x, kept)[: len(self.onnx_node.output)]


class LayerNormalization(OpRun):
    """The standard's formula in the type of the input: the evaluator computes it in float32."""

    def _run(
        self,
        x: Any,
        scale: Any,
        bias: Any = None,
        axis: Any = None,
        epsilon: Any = None,
        stash_type: Any = None,
    ) -> Any:
        over = tuple(range(axis % x.ndim, x.ndim))
        mean = x.mean(over, keepdims=True)
        deviation = np.sqrt(((x - mean) ** 2).mean(over, keepdims=True) + epsilon)
        y = (x - mean) / deviation * scale
        y = y if bias is None else y + bias
        return (y.astype(x.dtype), mean, 1 / deviation)[: max(len(self.onnx_node.output), 1)]


class RMSNormalization(OpRun):
    """The standard's formula in the type of the input."""

    def _run(self, x: Any, scale: Any, axis: Any = None, epsilon: Any = None, stash_type: Any = None) -> Any:
        over = tuple(range(axis % x.ndim, x.ndim))
        return ((x / np.sqrt((x**2).mean(over, keepdims=True) + epsilon) * scale).astype(x.dtype),)


class ConvTranspose(OpRun):
    """The transposed convolution with groups, without dilations, pads and strides: the evaluator knows one group."""

    def _run(self, x: Any, w: Any, bias: Any = None, group: int = 1, **others: Any) -> Any:
        if any(value for key, value in others.items() if key not in ("kernel_shape", "auto_pad")):
            raise NotImplementedError(str(others))
        kernel, outputs = w.shape[2:], w.shape[1]
        sizes = [size + extent - 1 for size, extent in zip(x.shape[2:], kernel, strict=True)]
        y = np.zeros((x.shape[0], outputs * group, *sizes), x.dtype)
        for index, (xs, ws) in enumerate(zip(np.split(x, group, 1), np.split(w, group), strict=True)):
            for place in np.ndindex(*kernel):
                product = np.einsum("nc...,co->no...", xs, ws[(slice(None), slice(None), *place)])
                window = tuple(slice(p, p + size) for p, size in zip(place, x.shape[2:], strict=True))
                y[(slice(None), slice(index * outputs, (index + 1) * outputs), *window)] += product
        return (y if bias is None else y + bias.reshape(-1, *(1,) * len(kernel)),)


FORMULAS: list[type[OpRun]] = [ConvTranspose, Dropout, LayerNormalization, RMSNormalization]
"""Classes that take the evaluator's place, for the op of their name."""
