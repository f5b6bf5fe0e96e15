"""NumPy formulas for the ops that ONNX's reference evaluator computes in float32 or does not know."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_loop, op_scan

from tools.audit.contrib import CONTRIB, normal_gelu
from tools.audit.standard import STANDARD


class Dropout(OpRun):
    """Dropout with an omitted ratio, which the evaluator does not take; its random numbers have one seed."""

    def _run(self, x: Any, ratio: Any = 0.5, training_mode: Any = False, seed: Any = None) -> Any:
        ratio = 0.5 if ratio is None else ratio
        kept = np.ones(x.shape, bool)
        if training_mode is not None and training_mode and ratio:
            kept = np.random.default_rng(0).random(x.shape) >= ratio
            x = (np.where(kept, x, 0) / (1 - ratio)).astype(x.dtype)
        return (x, kept)[: len(self.onnx_node.output)]


class Erf(OpRun):
    """The error function in the type of the input: the evaluator rounds it to float32."""

    def _run(self, x: Any) -> Any:
        return (np.vectorize(math.erf, otypes=[x.dtype])(x),)


class Gelu(OpRun):
    """x · Φ(x), or its approximation by tanh: the evaluator rounds the formula's constants to float32."""

    def _run(self, x: Any, approximate: str = "none") -> Any:
        return (normal_gelu(x, approximate == "tanh"),)


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


class LogSoftmax(OpRun):
    """x less the logarithm of the sum of exponentials: the evaluator takes the logarithm of what may be 0."""

    def _run(self, x: Any, axis: int = -1) -> Any:
        shifted = x - x.max(axis=axis, keepdims=True)
        return ((shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))).astype(x.dtype),)


class Loop(op_loop.Loop):
    """A loop as the standard states it: the evaluator ends one without a condition before it begins."""

    def _run(self, most: Any, alive: Any, *states: Any, context: Any = None, **others: Any) -> Any:
        names, count = self.body.input_names, len(states)
        collected: list[list[Any]] = [[] for _ in self.body.output_names[1 + count :]]
        step, alive = 0, True if alive is None else bool(np.all(alive))
        while alive and (most is None or step < int(np.asarray(most).item())):
            given = [np.asarray(step, np.int64), np.asarray(alive), *states]
            results = self._run_body(dict(context or {}) | dict(zip(names, given, strict=True)))
            alive, states = bool(np.all(results[0])), tuple(results[1 : 1 + count])
            for items, item in zip(collected, results[1 + count :], strict=True):
                items.append(item)
            step += 1
        return (*states, *(np.stack(items) if items else np.zeros(0) for items in collected))


class Scan(op_scan.Scan):
    """A scan along any axis, in both directions: the evaluator knows the first axis, forwards."""

    def __init__(self, node: Any, run_params: Any) -> None:
        OpRun.__init__(self, node, run_params)

    def _run(self, *given: Any, context: Any = None, **others: Any) -> Any:
        count = len(given) - self.num_scan_inputs
        states, names = list(given[:count]), self.body.input_names
        scanned = [
            np.moveaxis(array, axis, 0)[:: -1 if reverse else 1]
            for array, axis, reverse in zip(
                given[count:],
                self.scan_input_axes or [0] * self.num_scan_inputs,
                self.scan_input_directions or [0] * self.num_scan_inputs,
                strict=True,
            )
        ]
        collected: list[list[Any]] = [[] for _ in self.body.output_names[count:]]
        for items in zip(*scanned, strict=True):
            inner = dict(zip(names, [*states, *items], strict=True))
            results = self._run_body(dict(context or {}) | inner)
            states = results[:count]
            for found, item in zip(collected, results[count:], strict=True):
                found.append(item)
        axes = self.scan_output_axes or [0] * len(collected)
        backwards = self.scan_output_directions or [0] * len(collected)
        joined = [
            np.stack(items[:: -1 if reverse else 1], axis)
            for items, axis, reverse in zip(collected, axes, backwards, strict=True)
        ]
        return (*states, *joined)


class _Pool(OpRun):
    """A pool with pads and strides of one: the evaluator drops NaN, and fails on small images."""

    def _windows(self, x: Any, kernel: Any, pads: Any, auto_pad: Any, filler: float) -> Any:
        axes = len(kernel)
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            less, more = [(k - 1) // 2 for k in kernel], [k // 2 for k in kernel]
            pads = [*less, *more] if auto_pad == "SAME_UPPER" else [*more, *less]
        pads = pads or [0] * 2 * axes
        around = [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)]
        padded = np.pad(x, around, constant_values=filler)
        return np.lib.stride_tricks.sliding_window_view(padded, kernel, tuple(range(2, 2 + axes)))


class MaxPool(_Pool):
    """The largest number of every window, NaN where there is one."""

    def _run(
        self, x: Any, kernel_shape: Any = None, pads: Any = None, auto_pad: Any = None, **others: Any
    ) -> Any:
        windows = self._windows(x, kernel_shape, pads, auto_pad, -np.inf)
        return (windows.max(tuple(range(-len(kernel_shape), 0))),)


class AveragePool(_Pool):
    """The mean of every window, with or without its pads."""

    def _run(
        self,
        x: Any,
        kernel_shape: Any = None,
        pads: Any = None,
        auto_pad: Any = None,
        count_include_pad: int = 0,
        **others: Any,
    ) -> Any:
        over = tuple(range(-len(kernel_shape), 0))
        total = self._windows(x, kernel_shape, pads, auto_pad, 0.0).sum(over)
        ones = np.ones_like(x)
        count = self._windows(ones, kernel_shape, pads, auto_pad, float(count_include_pad or 0)).sum(over)
        return ((total / count).astype(x.dtype),)


class GlobalMaxPool(OpRun):
    """The largest number of every channel, for images of any rank."""

    def _run(self, x: Any) -> Any:
        return (x.max(tuple(range(2, x.ndim)), keepdims=True),)


class GlobalAveragePool(OpRun):
    """The mean of every channel."""

    def _run(self, x: Any) -> Any:
        return (x.mean(tuple(range(2, x.ndim)), keepdims=True).astype(x.dtype),)


class SequenceInsert(OpRun):
    """An insertion at any place: the evaluator takes the place behind the last item for the first one."""

    def _run(self, items: Any, item: Any, place: Any = None) -> Any:
        found = list(items)
        found.insert(len(found) if place is None else int(np.asarray(place).item()), item)
        return (found,)


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


FORMULAS: list[type[OpRun]] = [
    *CONTRIB,
    *STANDARD,
    AveragePool,
    ConvTranspose,
    Dropout,
    Erf,
    Gelu,
    GlobalAveragePool,
    GlobalMaxPool,
    LayerNormalization,
    LogSoftmax,
    Loop,
    MaxPool,
    RMSNormalization,
    Scan,
    SequenceInsert,
]
"""Classes that take the evaluator's place, for the op of their name."""
