"""Divide a machine between workers: the same explainer, with a share of the processors and of the memory."""

from __future__ import annotations

from copy import copy
from typing import Any

from analyzer.backends import Differentiable
from analyzer.backends.batching.memory import SHARE
from analyzer.backends.pickling import reduced, restored
from analyzer.data.batch_explainer import BatchExplainer
from converters.system.processes import free_memory

_CARDS = ("cuda", "gpu", "tensorrt", "rocm", "migraphx")


def for_workers(explainer: BatchExplainer, workers: int, threads: int) -> BatchExplainer:
    """Return the same work for one of several workers. Settings that were given are kept.

    threads: of the session of each worker. A batch size is a plan of memory, in place of a limit.
    """
    found, memory = copy(explainer), int(SHARE * free_memory() / workers)
    if isinstance(found.model, Differentiable):
        _, (model, options) = reduced(found.model)
        if options["max_memory"] is None and options["batch_size"] is None:
            options["max_memory"] = memory
        if options["threads"] is None and options["backend"] == "onnxruntime":
            options["threads"] = threads
        found.model = restored(model, options)
        return found
    given = {name: value for name, value in explainer.options.items() if value is not None}
    own: dict[str, Any] = {} if "batch_size" in given else {"max_memory": memory}
    if given["backend"] == "onnxruntime":
        own["threads"] = threads
    found.options = {**explainer.options, **own, **given}
    return found


def on_gpu(explainer: BatchExplainer) -> bool:
    """Return whether the options of an explainer name a graphics card."""
    held: Any = explainer.options
    if isinstance(explainer.model, Differentiable):
        _, (_, held) = reduced(explainer.model)
    words = " ".join(str(one).lower() for one in (held.get("device"), *(held.get("providers") or ())))
    return any(card in words for card in _CARDS)
