"""Batches planned from the sizes of tensors: how many samples fit, and that splitting changes no result."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, shape_inference

from analyzer import check, compare, differentiate, full_grad, integrated_gradients, smooth_full_grad
from analyzer.autodiff.request import observe
from analyzer.backends.batching.planning import Call, plan_batch
from analyzer.backends.batching.planning import plan as plan_of
from analyzer.errors import AnalysisError, NotEnoughMemory
from analyzer.methods.full_grad import POST_PROCESSING
from analyzer.methods.full_gradient.decomposition import Settings, plan
from analyzer.target.target import Target
from converters import Model, convert
from tests.zoo.pytorch_sequences import Recurrent
from tests.zoo.pytorch_transformers import NETWORKS, VisionTransformer

BACKENDS = ["onnxruntime", "torch", "tensorflow"]
WIDTH = 1000


def model(nodes, inputs, outputs, **weights):
    """A Model taken as it is."""
    info = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)  # noqa: E731
    graph = helper.make_graph(
        nodes,
        "graph",
        [info(*pair) for pair in inputs.items()],
        [info(*pair) for pair in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return Model(shape_inference.infer_shapes(proto))


CHAIN = model(
    [
        helper.make_node("Exp", ["x"], ["a"]),
        helper.make_node("Exp", ["a"], ["b"]),
        helper.make_node("ReduceSum", ["b", "axes"], ["y"]),
    ],
    {"x": ["N", WIDTH]},
    {"y": ["N", 1]},
    axes=np.array([1]),
)


def need_of(fn, x, names=("x",)):
    """Return the estimate for the gradients at tensors."""
    call = Call(observe(names, names), (), fn.bind(x, 0).seed)
    return plan_of(fn, call, {"x": x}).estimate


def test_the_need_of_a_chain_is_counted_by_hand():
    # x, its two exponentials, the gradient at b (expanded) and at a are 4,000 bytes each and a sample.
    need = need_of(differentiate(CHAIN), np.zeros((1, WIDTH), np.float32))
    row = 4 * WIDTH
    assert need.bytes(1000) == pytest.approx(1.75 * 5000 * row, rel=0.3)
    assert need.bytes(2000) - need.bytes(1000) == pytest.approx(need.bytes(1000), rel=0.01)


@pytest.mark.parametrize("backend", BACKENDS)
def test_as_many_samples_as_fit(backend):
    fn, x = differentiate(CHAIN, backend), np.zeros((1, WIDTH), np.float32)
    need = need_of(fn, x)
    fits = plan_batch(fn.bind(x, 0), max_memory=need.bytes(7))
    assert fits == 7
    assert plan_batch(fn.bind(x, 0), ["x"], max_memory=need.bytes(7), at_most=3) == 3
    assert plan_batch(differentiate(CHAIN, backend, max_memory=need.bytes(7)).bind(x, 0)) == 7


def test_a_sample_that_does_not_fit_is_refused():
    x = np.zeros((3, WIDTH), np.float32)
    fn = differentiate(CHAIN, max_memory=5000)
    with pytest.raises(
        NotEnoughMemory, match=r"one sample needs about .* KiB .*4.9 KiB may be used.*max_memory="
    ):
        fn.gradients(x, 0)
    with pytest.raises(NotEnoughMemory, match="--max-memory"):
        plan_batch(fn.bind(x, 0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stated_batch_that_does_not_fit_is_refused(backend):
    stated = model(
        [helper.make_node("Exp", ["x"], ["a"]), helper.make_node("ReduceSum", ["a", "axes"], ["y"])],
        {"x": [4, WIDTH]},
        {"y": [4, 1]},
        axes=np.array([1]),
    )
    x = np.zeros((6, WIDTH), np.float32)
    with pytest.raises(NotEnoughMemory, match=r"the stated batch of 4 needs about .*4.9 KiB may be used"):
        differentiate(stated, backend, max_memory=5000).gradients(x, 0)
    # Two batches, the second filled up: e⁰ at every element.
    found = differentiate(stated, backend, max_memory=2**30).gradients(x, 0)
    np.testing.assert_array_equal(found.gradients["x"], np.ones_like(x))


def counted(fn, monkeypatch):
    """The number of samples in every micro-batch that the backend computes gradients of, in a list that grows."""
    sizes, evaluate = [], fn.engine.evaluate

    def counting(request, feeds, seed):
        sizes.append(len(next(iter(feeds.values()))))
        return evaluate(request, feeds, seed)

    monkeypatch.setattr(fn.engine, "evaluate", counting)
    return sizes


@functools.cache
def network(name):
    """A converted network of the zoo, and five samples."""
    net, inputs = NETWORKS[name]()
    shape = (5, *inputs[0].shape[1:])
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return convert(net.eval(), inputs[0]), x


TARGETS = {
    "highest": None,
    "classes": np.arange(5),
    "weights": Target(weights=np.random.default_rng(0).standard_normal((5, 10)).astype(np.float32)),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_micro_batches_change_no_result(backend, monkeypatch):
    # Its windows merge samples with places.
    converted, x = network("swin")
    whole = differentiate(converted, backend)
    # One of whose rows several make a sample.
    inner = next(
        t for t in whole.places if (whole.graph.tensors[t].shape or ("batch",))[0] not in ("batch", 0)
    )
    wrt = (*whole.differentiable_inputs, inner)
    call = Call(observe(wrt, wrt), (), whole.bind(x).seed)
    need = plan_of(whole, call, whole.check_inputs(x)).estimate
    fn = differentiate(converted, backend, max_memory=need.bytes(2))
    sizes = counted(fn, monkeypatch)
    for target in TARGETS.values():
        expected, found = whole.gradients(x, target, wrt), fn.gradients(x, target, wrt)
        assert_close(found.output, expected.output)
        np.testing.assert_array_equal(found.target, expected.target)
        for tensor in wrt:
            assert_close(found.gradients[tensor], expected.gradients[tensor])
            assert_close(found.values[tensor], expected.values[tensor])
    assert max(sizes) == 2
    assert_close(fn.forward(x)[fn.graph.outputs[0]], whole.forward(x)[fn.graph.outputs[0]])


def full_grad_need(converted, x, *, arrays):
    """The planned need of FullGrad, or of the terms that Smooth FullGrad averages."""
    fn = differentiate(converted)
    settings = Settings(fn.graph.outputs[:1], fn.roots(), False, POST_PROCESSING["paper"], arrays=arrays)
    bound = fn.bind(x)
    return plan_of(fn, Call(plan(bound, settings).request, (), bound.seed), bound.feeds).estimate


def test_micro_batches_change_no_map_and_no_term(monkeypatch):
    converted, x = network("swin")
    whole = full_grad(converted, x)
    fn = differentiate(converted, max_memory=full_grad_need(converted, x, arrays=False).bytes(2))
    sizes, done = counted(fn, monkeypatch), []
    found = full_grad(fn, x, progress=lambda *counts: done.append(counts))
    assert sizes == [2, 2, 2] and done == [(2, 5), (4, 5), (5, 5)]
    for name in ("map", "complete_map", "input_term", "unplaced_total"):
        assert_close(getattr(found, name), getattr(whole, name))
    assert_close(found.completeness.total, whole.completeness.total)
    for name, term in whole.bias_terms.items():
        assert_close(found.bias_terms[name], term)


def test_noise_does_not_depend_on_the_micro_batches():
    converted, x = network("swin")
    x, done = x[:3], []
    whole = smooth_full_grad(converted, x, np.array([1, 2, 3]), samples=2, seed=1)
    fn = differentiate(converted, max_memory=full_grad_need(converted, x, arrays=True).bytes(2))
    found = smooth_full_grad(
        fn, x, np.array([1, 2, 3]), samples=2, seed=1, progress=lambda *counts: done.append(counts)
    )
    assert done == [(count, 6) for count in range(1, 7)]
    assert_close(found.map, whole.map)


def assert_close(found, expected):
    assert found.shape == expected.shape
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=1e-4 * max(np.abs(expected).max(initial=0), 1e-3)
    )


@pytest.mark.parametrize("name", ["vit", "lstm"])
@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_terms_of_all_kinds_of_networks_are_split(name, backend, monkeypatch):
    net, shape = SPLIT[name]()
    x = np.random.default_rng(0).standard_normal((5, *shape)).astype(np.float32)
    converted = convert(net.eval(), torch.from_numpy(x))
    whole, fn = (
        full_grad(differentiate(converted, backend), x),
        differentiate(converted, backend, batch_size=2),
    )
    sizes = counted(fn, monkeypatch)
    found = full_grad(fn, x)
    assert sizes == [2, 2, 2]
    assert_close(found.complete_map, whole.complete_map)
    assert_close(found.completeness.total, whole.completeness.total)
    for one, other in zip(found.contributions, whole.contributions, strict=True):
        assert_close(one.total, other.total)


SPLIT = {
    "vit": lambda: (VisionTransformer(), (3, 16, 16)),
    "lstm": lambda: (Recurrent(torch.nn.LSTM, width=8), (6, 4)),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_size_is_the_number_of_samples_of_a_micro_batch(backend, monkeypatch):
    x = np.random.default_rng(0).standard_normal((7, WIDTH)).astype(np.float32)
    for size, expected in ((1, [1] * 7), (3, [3, 3, 3]), (4, [4, 4]), (7, [7]), (100, [7])):
        fn = differentiate(CHAIN, backend, batch_size=size)
        sizes = counted(fn, monkeypatch)
        found = fn.gradients(x, 0).gradients["x"]
        assert sizes == expected
        # y = Σ exp(exp(x))
        np.testing.assert_allclose(found, np.exp(np.exp(x.astype(np.float64)) + x), rtol=1e-4)


def test_batch_size_and_max_memory_are_both_limits(monkeypatch):
    x = np.zeros((8, WIDTH), np.float32)
    need = need_of(differentiate(CHAIN), x)
    for size, samples, expected in ((4, 2, 2), (2, 4, 2), (None, 4, 4), (100, 100, 8)):
        fn = differentiate(CHAIN, batch_size=size, max_memory=need.bytes(samples))
        assert plan_batch(fn.bind(x, 0), at_most=16) == min(size or 16, samples, 16)
        sizes = counted(fn, monkeypatch)
        fn.gradients(x, 0)
        assert set(sizes) == {expected}
    assert plan_batch(differentiate(CHAIN, batch_size=5).bind(x, 0)) == 5
    # Without max_memory, the caller plans the memory.
    monkeypatch.setattr("analyzer.backends.batching.planning.budget", lambda limit: 1)
    np.testing.assert_allclose(
        differentiate(CHAIN, batch_size=2).gradients(x, 0).output, np.e * WIDTH, rtol=1e-4
    )


def test_paths_are_integrated_in_micro_batches(monkeypatch):
    x = np.random.default_rng(0).standard_normal((2, WIDTH)).astype(np.float32)
    fn = differentiate(CHAIN, batch_size=3)
    sizes = counted(fn, monkeypatch)
    found = integrated_gradients(fn, x, 0, steps=32)
    assert max(sizes) == 3
    ends = np.exp(np.exp(x.astype(np.float64))).sum(1) - np.e * WIDTH
    np.testing.assert_allclose(found.attributions.sum(1), ends, rtol=1e-3)


@pytest.mark.parametrize("size", [0, -1, 2.0, "4", True])
def test_a_batch_size_that_is_no_number_above_0_is_refused(size):
    for call in (lambda: differentiate(CHAIN, batch_size=size), lambda: check(CHAIN, X, 0, batch_size=size)):
        with pytest.raises(AnalysisError, match=r"expected batch_size of at least 1, got .*Fix: omit it"):
            call()


X = np.zeros((3, WIDTH), np.float32)


def test_a_batch_size_other_than_the_stated_batch_is_refused():
    stated = model([helper.make_node("Exp", ["x"], ["y"])], {"x": [4, WIDTH]}, {"y": [4, WIDTH]})
    with pytest.raises(AnalysisError, match=r"expected batch_size=4, .*got 2. Fix: omit batch_size"):
        differentiate(stated, batch_size=2)
    assert differentiate(stated, batch_size=4).gradients(X, 0).output.shape == (3,)


def test_checks_run_in_micro_batches():
    assert check(CHAIN, X, 0, backends=["onnxruntime", "torch"], batch_size=2).passed
    assert compare(CHAIN, CHAIN, X, 0, batch_size=2).passed


MIXING = {
    # Each sample less the mean of all: what one gives depends on the others.
    "mean of the batch": model(
        [
            helper.make_node("ReduceMean", ["x", "axes"], ["m"]),
            helper.make_node("Sub", ["x", "m"], ["d"]),
            helper.make_node("Mul", ["d", "d"], ["y"]),
        ],
        {"x": ["N", WIDTH]},
        {"y": ["N", WIDTH]},
        axes=np.array([0]),
    ),
    # A table that all samples read has one gradient, the sum over the samples.
    "a table": model(
        [helper.make_node("Mul", ["x", "table"], ["y"])],
        {"x": ["N", WIDTH], "table": [1, WIDTH]},
        {"y": ["N", WIDTH]},
    ),
}


@pytest.mark.parametrize("name", MIXING)
def test_batches_that_must_not_be_split_are_left_whole(name, monkeypatch):
    x = np.random.default_rng(0).standard_normal((5, WIDTH)).astype(np.float32)
    whole = differentiate(MIXING[name])
    inputs = {"x": x, "table": x[:1]} if len(whole.graph.inputs) > 1 else x
    fn = differentiate(MIXING[name], max_memory=2 * plan_bytes(whole, inputs))
    sizes = counted(fn, monkeypatch)
    column = np.zeros((5, WIDTH), np.float32)
    column[:, 1] = 1
    target = Target(weights=column)
    expected = whole.gradients(inputs, target)
    if name == "mean of the batch":
        # Samples that depend on one another are one sample, which needs more than two independent ones.
        with pytest.raises(NotEnoughMemory):
            fn.gradients(inputs, target)
        return
    found = fn.gradients(inputs, target)
    assert sizes == [5]
    sized = differentiate(MIXING[name], batch_size=2)
    sizes = counted(sized, monkeypatch)
    sized.gradients(inputs, target)
    assert sizes == [5]
    for tensor in fn.graph.inputs:
        np.testing.assert_array_equal(found.gradients[tensor], expected.gradients[tensor])


def plan_bytes(fn, inputs):
    """The need of one sample."""
    feeds = fn.check_inputs(inputs)
    names = fn.differentiable_inputs
    call = Call(observe(names, names), (), fn.bind(inputs, 0).seed)
    return plan_of(fn, call, feeds).estimate.bytes(1)


def test_a_tensor_of_unknown_size_counts_as_the_largest():
    # Only a run shows how many elements NonZero finds.
    unknown = model(
        [
            helper.make_node("NonZero", ["ones"], ["rows"]),
            helper.make_node("Squeeze", ["rows", "axes"], ["flat"]),
            helper.make_node("Gather", ["x", "flat"], ["g"], axis=1),
            helper.make_node("Exp", ["g"], ["e"]),
            helper.make_node("ReduceSum", ["e", "last"], ["y"]),
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("ReduceSum", ["r", "last"], ["s"]),
            helper.make_node("Add", ["y", "s"], ["z"]),
        ],
        {"x": ["N", WIDTH], "ones": [WIDTH]},
        {"z": ["N", 1]},
        axes=np.array([0]),
        last=np.array([1]),
    )
    inputs = {"x": np.zeros((4, WIDTH), np.float32), "ones": np.ones(WIDTH, np.float32)}
    fn = differentiate(unknown)
    feeds = fn.check_inputs(inputs)
    call = Call(observe(("x",), ("x",)), (), fn.bind(inputs, 0).seed)
    need = plan_of(fn, call, feeds).estimate
    assert need.bytes(101) - need.bytes(1) >= 100 * 5 * 4 * WIDTH
