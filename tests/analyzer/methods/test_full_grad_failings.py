"""Networks on which FullGrad by module hooks fails: ours against decompositions by hand, and what theirs gives.

pytorch-grad-cam collects biases from modules in the order of their definition and gradients in the order of
their use, and pairs them by position.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from analyzer import differentiate, full_grad
from converters import convert
from tests.analyzer.methods import written_out
from tests.analyzer.methods.published import grad_cam_saliency, saliency
from tests.analyzer.methods.written_out import Term, Terms
from tests.peers import grad_cam
from tests.zoo.draw import draw

TARGET = 1
NETWORKS = {
    "a module used twice": written_out.Reused,
    "another order": written_out.Reordered,
    "another order, other widths": functools.partial(written_out.Reordered, width=4),
    "functions": written_out.Functional,
    "an unused layer": written_out.Unused,
    "BatchNorm without parameters": written_out.WithoutAffine,
    "ReLU in place": written_out.InPlace,
    "a derived class": written_out.Subclassed,
    "GELU": written_out.Gelu,
    "LayerNorm and attention": written_out.Encoder,
}
# Those whose layers add nothing but biases.
AFFINE = [name for name in NETWORKS if name not in ("GELU", "LayerNorm and attention")]


@functools.cache
def network(name: str):
    net = draw(NETWORKS[name]()).eval()
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    return net, images, convert(net, images, fold_batch_norm=False)


@functools.cache
def by_hand(name: str):
    """Logits (N,), the input's term, every layer's, and which of those are biases, in float64."""
    net, images, _ = network(name)
    net, images, terms = copy.deepcopy(net).double(), images.double().requires_grad_(), Terms()
    logits = net.written_out(images, terms)[:, TARGET]
    torch.testing.assert_close(logits, net(images)[:, TARGET], rtol=1e-10, atol=1e-10)
    found = terms.of(logits)
    gradient = torch.autograd.grad(logits.sum(), images)[0]
    return logits.detach().numpy(), Term(images.detach(), gradient), found, terms.explicit


def relative_l2(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def assert_same_terms(found: Mapping[str, np.ndarray], truth: Mapping[str, Term], bound: float) -> None:
    """Every term by hand is one of ours, and ours has no other but zeros."""
    left = dict(found)
    for name, term in truth.items():
        value = term.value.numpy()
        equal = [t for t, a in left.items() if a.shape == value.shape and relative_l2(a, value) <= bound]
        assert equal, f"no term of ours is that of {name}"
        del left[equal[0]]
    assert not any(array.any() for array in left.values()), f"terms that no layer adds: {[*left]}"


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-4), ("float64", 1e-10)])
def test_every_term_is_that_of_the_decomposition_by_hand(name, precision, bound):
    _, images, model = network(name)
    logits, input_term, terms, _ = by_hand(name)
    fn = (
        differentiate(model) if precision == "float32" else differentiate(model, "torch", precision=precision)
    )
    fg = full_grad(fn, images.numpy().astype(precision), TARGET)
    assert relative_l2(fg.input_term, input_term.value.numpy()) <= bound
    assert_same_terms(fg.bias_terms, terms, bound)
    np.testing.assert_allclose(fg.completeness.total, logits, rtol=bound, atol=bound)
    assert fg.completeness.error.max() <= bound


@pytest.mark.parametrize("name", NETWORKS)
def test_explicit_terms_are_the_biases_of_the_layers(name):
    _, images, model = network(name)
    _, _, terms, explicit = by_hand(name)
    fg = full_grad(model, images.numpy(), TARGET, terms="explicit")
    assert_same_terms(fg.bias_terms, {layer: terms[layer] for layer in explicit}, 1e-4)


@pytest.mark.parametrize("name", AFFINE)
def test_a_network_of_biases_and_relus_is_their_sum(name):
    logits, input_term, terms, explicit = by_hand(name)
    assert explicit == set(terms)
    total = sum(term.value.flatten(1).sum(1) for term in [input_term, *terms.values()])
    np.testing.assert_allclose(total, logits, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "LayerNorm and attention"])
def test_the_map_is_that_of_the_terms_by_hand(name):
    _, images, model = network(name)
    _, input_term, terms, _ = by_hand(name)
    values = [term.value for term in (input_term, *terms.values())]
    assert relative_l2(full_grad(model, images.numpy(), TARGET).map, saliency(values)) <= 1e-4


def their_map(name: str) -> np.ndarray:
    net, images, _ = network(name)
    return grad_cam.full_grad(copy.deepcopy(net))(images, TARGET)


def map_of(name: str, *layers: str) -> np.ndarray:
    """The package's map of the input's term and the terms by hand of some layers."""
    _, input_term, terms, _ = by_hand(name)
    return grad_cam_saliency([input_term.value, *(terms[layer].value for layer in layers)])


@grad_cam.needs_grad_cam
@pytest.mark.parametrize("name", ["a module used twice", "an unused layer"])
def test_theirs_needs_one_gradient_per_layer(name):
    with pytest.raises(AssertionError):
        their_map(name)


@grad_cam.needs_grad_cam
def test_theirs_fails_on_layers_of_other_widths_in_another_order():
    with pytest.raises(ValueError, match="broadcast"):
        their_map("another order, other widths")


def exchanged() -> list[torch.Tensor]:
    """The terms of "another order" with each layer's gradient multiplied by the other's bias."""
    _, input_term, terms, _ = by_hand("another order")
    first, second = terms["first"], terms["second"]
    return [input_term.value, first.gradient * second.added, second.gradient * first.added]


@grad_cam.needs_grad_cam
def test_theirs_exchanges_the_biases_of_layers_of_one_width():
    theirs = their_map("another order")
    assert relative_l2(theirs, grad_cam_saliency(exchanged())) <= 1e-6
    # It rescales every channel by itself, which cancels the bias: the exchange leaves no more than ε in the map.
    assert 1e-6 <= relative_l2(theirs, map_of("another order", "first", "second")) <= 1e-3


def test_an_exchange_of_biases_shows_in_the_papers_map():
    _, images, model = network("another order")
    fg = full_grad(model, images.numpy(), TARGET, terms="explicit")
    assert relative_l2(fg.map, saliency(exchanged())) >= 0.05


@grad_cam.needs_grad_cam
@pytest.mark.parametrize(
    ("name", "seen", "missed"),
    [
        ("functions", ["stem"], ["conv2d", "batch_norm"]),
        ("BatchNorm without parameters", [], ["norm"]),
        ("a derived class", ["stem"], ["last"]),
    ],
)
def test_theirs_misses_what_is_no_layer_with_a_bias(name, seen, missed):
    theirs = their_map(name)
    assert relative_l2(theirs, map_of(name, *seen)) <= 1e-4
    assert relative_l2(theirs, map_of(name, *seen, *missed)) >= 0.05


@grad_cam.needs_grad_cam
@pytest.mark.parametrize(
    ("name", "seen"), [("GELU", ["stem", "last"]), ("LayerNorm and attention", ["patch"])]
)
def test_theirs_does_not_say_what_its_terms_fall_short_by(name, seen):
    logits, input_term, terms, _ = by_hand(name)
    assert relative_l2(their_map(name), map_of(name, *seen)) <= 1e-4
    total = sum(value.flatten(1).sum(1) for value in [input_term.value, *(terms[n].value for n in seen)])
    shortfall = logits - (total + terms["head"].value.sum(1)).numpy()
    assert (np.abs(shortfall) >= 0.05 * np.abs(logits)).all()


@grad_cam.needs_grad_cam
def test_theirs_agrees_where_relus_work_in_place():
    # Since torch 2.0 the hook of a tensor that is overwritten later gets the gradient of what it was.
    assert relative_l2(their_map("ReLU in place"), map_of("ReLU in place", "stem", "norm", "last")) <= 1e-4


def test_module_hooks_refuse_relus_in_place():
    net, images, _ = network("ReLU in place")
    hooked = copy.deepcopy(net)
    hooked.stem.register_full_backward_hook(lambda module, inner, outer: None)
    with pytest.raises(RuntimeError, match="modified inplace"):
        hooked(images)
