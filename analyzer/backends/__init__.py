"""Backends: what computes values and gradients of a canonical graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from analyzer.backends.at_sizes import at_sizes, depends_on_sizes
from analyzer.backends.batching.arranging import SAMPLES
from analyzer.backends.batching.memory import as_batch_size, as_bytes, as_checkpoint
from analyzer.backends.bound import Gradients
from analyzer.backends.call import explaining, explains
from analyzer.backends.devices import as_device, providers_of, refuse_settings
from analyzer.backends.differentiable import Backend, Differentiable
from analyzer.backends.networks import model_for
from analyzer.errors import AnalysisError
from analyzer.graph.graph import Graph
from analyzer.graph.precision import FLOAT64, at_least_float32, in_precision
from analyzer.types import Inputs
from converters import Model
from converters.straight_through import straight_through as pass_rounding
from converters.system.arguments import named_arguments

BACKENDS = ("onnxruntime", "torch", "tensorflow", "source")

ModelLike = Any
"""What `convert` takes or returns."""


@named_arguments
def differentiate(
    model: ModelLike | Differentiable,
    backend: str = "onnxruntime",
    *,
    precision: str | None = None,
    providers: Sequence[str] | None = None,
    device: str | None = None,
    threads: int | None = None,
    straight_through: bool = False,
    max_memory: int | str | None = None,
    batch_size: int | None = None,
    verify: bool = True,
    samples: str | None = None,
    checkpoint: str = "auto",
    trust: bool = False,
    example: Any = None,
) -> Differentiable:
    """Bind a model to a backend that computes values and gradients at any of its tensors.

    model: what `convert` takes or returned; a Differentiable is returned as it is.
    example: the inputs from which a network is traced that does not state its own, such as an nn.Module.
    backend: "onnxruntime" (the gradient graph), "torch" or "tensorflow" (the ONNX graph executed there),
        "source" (the network that was converted).
    precision: "float64" runs the torch or tensorflow backend in double precision, whatever the model's own.
        By default a float16 or bfloat16 model is computed, and answered, in float32; any other in its own.
    straight_through: differentiate a quantized model straight through its rounding: as the identity inside the
        range of a quantizer, zero outside (Bengio, Léonard & Courville 2013; Jacob et al. 2018).
    providers, threads: ONNX Runtime's execution providers (default CPU) and threads.
    device: "cpu", "cuda", "cuda:1", or another one that the backend can use; not of the source, which runs on the
        device of its weights.
    max_memory: the memory that a call may take without its results, in bytes or as "2 GiB". Larger batches are split
        into micro-batches. Default: half of the free memory.
    batch_size: the samples of a micro-batch. There is then no limit of memory, unless max_memory is given too.
        Samples that depend on one another are not split. Default: as many samples as fit into the memory.
    samples: "joint" explains the whole call as one sample, as the nodes of a graph; "independent" raises AnalysisError
        where samples depend on one another. Default: found out for every model and shape of inputs.
    checkpoint: "auto" computes the activations of a deep network again in the backward pass, segment by segment, where
        one sample does not fit into the memory otherwise; "always" and "never" decide it. The results are the same to
        the last bit, but for sums that ONNX Runtime fuses into convolutions. Only for "onnxruntime".
    verify: compare an .onnx file with the canonical graph made of it, when it is loaded and on all inputs that are
        explained. False explains the graph unseen.
    trust: load a file that can run code, as for `convert`; only for files whose origin you trust.
    Raises VerificationFailed or VerificationError where the explained graph is not the file; AnalysisError for an
    unknown backend or an option that it does not have, BackendError for a device or provider that is not here,
    MissingDependency where its framework is not installed, ConversionError where the file is not a usable model.
    """
    if isinstance(model, Differentiable):
        return model
    if backend not in BACKENDS:
        raise AnalysisError(f"unknown backend {backend!r}. Fix: choose from {', '.join(BACKENDS)}")
    if samples not in (None, *SAMPLES):
        raise AnalysisError(
            f"unknown samples={samples!r}. Fix: give {' or '.join(map(repr, SAMPLES))}, or omit it"
        )
    if precision not in (None, "float32", "float64"):
        raise AnalysisError(f'unknown precision {precision!r}. Fix: give "float32" or "float64", or omit it')
    precision = None if precision == "float32" else precision
    if precision and backend not in ("torch", "tensorflow"):
        raise AnalysisError(
            f'backend={backend!r} runs in the precision of the model, not in float64. Fix: use backend="torch" or '
            '"tensorflow" (--backend)'
        )
    if straight_through and backend == "source":
        raise AnalysisError(
            "the source rounds by its own rules, which straight_through=True cannot change. Fix: use "
            'backend="onnxruntime", "torch" or "tensorflow"'
        )
    checkpoint = as_checkpoint(checkpoint, backend)
    device = as_device(device)
    refuse_settings(backend, device, providers, threads)
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise AnalysisError(
            f"expected threads of at least 1, got {threads!r}. Fix: omit it, or give a whole number"
        )
    loaded = model_for(model, example, verify=verify, trust=trust)
    loaded = pass_rounding(loaded) if straight_through else loaded
    bound = on_backend(
        loaded,
        Graph.from_proto(loaded.light),
        backend,
        precision=precision,
        providers=providers,
        device=device,
        threads=threads,
        max_memory=as_bytes(max_memory),
        batch_size=as_batch_size(batch_size),
        verify=verify,
    )
    # A pickle makes the backend again with these. Rounding that is passed straight through is in the model already.
    bound.engine.options = {
        "backend": backend,
        "precision": precision,
        "providers": providers,
        "device": device,
        "threads": threads,
    }
    return replace(bound, samples=samples, checkpoint=checkpoint)


def for_inputs(model: ModelLike | Differentiable, inputs: Inputs) -> Differentiable:
    """A model on its backend, ONNX Runtime by default, for inputs of these sizes: loops that depend on sizes are
    written out for them.

    Raises InputError or ShapeError where the inputs are not the model's.
    """
    fn = differentiate(model, example=inputs)
    return at_sizes(fn, fn.check_inputs(inputs)) if depends_on_sizes(fn.model, fn.graph) else fn


def on_backend(
    loaded: Model,
    stated: Graph,
    backend: str,
    *,
    precision: str | None = None,
    providers: Sequence[str] | None = None,
    device: str | None = None,
    threads: int | None = None,
    max_memory: int | None = None,
    batch_size: int | None = None,
    verify: bool = True,
) -> Differentiable:
    """Return a loaded model on a backend. stated: its graph, which several backends may share: it holds the weights.

    Raises AnalysisError where the model states a batch of another size than batch_size.
    """
    graph = in_precision(stated, FLOAT64) if precision else at_least_float32(stated)
    engine: Backend
    if backend == "onnxruntime":
        from analyzer.backends.onnxruntime import OnnxRuntime

        engine = OnnxRuntime(graph, providers_of(device, providers), threads, max_memory)
    elif backend == "torch":
        from analyzer.backends.torch import TorchBackend

        engine = TorchBackend(graph, device)
    elif backend == "tensorflow":
        from analyzer.backends.tensorflow import TensorFlowBackend

        engine = TensorFlowBackend(graph, device)
    else:
        from analyzer.backends.source.source import source_backend

        engine = source_backend(loaded, graph, half=graph is not stated)
    if batch_size is not None and engine.batch not in (None, batch_size):
        raise AnalysisError(
            f"expected batch_size={engine.batch}, the batch that the model states, got {batch_size}. Fix: omit "
            "batch_size (--batch-size)"
        )
    return Differentiable(loaded, engine, max_memory, batch_size, verify=verify)


__all__ = [
    "BACKENDS",
    "Differentiable",
    "Gradients",
    "ModelLike",
    "differentiate",
    "explaining",
    "explains",
    "for_inputs",
]
