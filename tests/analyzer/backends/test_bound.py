"""A call is bound once: inputs are checked once, a target is resolved once, and other points explain the same class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from onnx import parser

from analyzer import Target, differentiate
from analyzer.backends import bound, explains, inputs
from analyzer.errors import InputError, TargetError
from analyzer.methods.arranged import by_sample
from analyzer.methods.registry import METHODS
from analyzer.methods.result import Attribution

HEADER = '<ir_version: 10, opset_import: ["": 23]> g '
IMAGES = parser.parse_model(
    HEADER
    + "(float[n,2,6,6] x) => (float[n,2] y) <float[2,2,1,1] w = {1, -2, 0.5, 1}, float[2] b = {0.1, -0.2}>"
    " { c = Conv(x, w, b) r = Relu(c) p = GlobalAveragePool(r) y = Flatten(p) }"
)
# f_k = Σ_t tanh x_tk: the samples lie along the second axis, behind the steps.
STEPS = parser.parse_model(
    HEADER + "(float[3,n,2] x) => (float[n,2] y) <int64[1] first = {0}>"
    " { h = Tanh(x) y = ReduceSum<keepdims = 0>(h, first) }"
)
# f = w · (a ⊙ b): the gradient at a is w_c ⊙ b.
TWO = parser.parse_model(
    HEADER + "(float[n,2] a, float[n,2] b, int64[n] i) => (float[n,2] y, float[n,2] z)"
    " <float[2,2] w = {1, 3, 2, -1}> { p = Mul(a, b) y = MatMul(p, w) k = CastLike(i, a)"
    " z0 = Transpose(p) z1 = Mul(z0, k) z = Transpose(z1) }"
)
A = np.array([[1, 2], [3, -1], [0, 1]], np.float32)
B = np.array([[1, 1], [2, 1], [1, -3]], np.float32)
FED = {"a": A, "b": B, "i": np.array([1, 2, 3])}
W = np.array([[1, 3], [2, -1]], np.float32)
CLASS = Target(index=1)
OPTIONS = {
    "conductance": {"wrt": "c", "steps": 2},
    "integrated-gradients": {"steps": 2},
    "blur-ig": {"steps": 2},
    "guided-ig": {"steps": 2},
    "xrai": {"steps": 2, "segments": [np.ones((1, 6, 6), bool)] * 2, "min_pixels": 1},
    "smooth-grad": {"samples": 2},
    "smooth-grad-squared": {"samples": 2},
    "var-grad": {"samples": 2},
    "smooth-full-grad": {"samples": 2},
    "expected-gradients": {"samples": 2},
}


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch, x: np.ndarray) -> Iterator[Counter[str]]:
    """Count the checks of x, and how often the target is resolved."""
    found: Counter[str] = Counter()
    read, resolve = inputs.as_array, bound.resolve

    def checked(value):
        array = read(value)
        # A view moves the samples; the numbers are the same.
        found["checks"] += array.size == x.size and np.array_equal(np.sort(array.ravel()), np.sort(x.ravel()))
        return array

    def resolved(target, *args):
        found["targets"] += target is CLASS
        return resolve(target, *args)

    with monkeypatch.context() as patch:
        patch.setattr(inputs, "as_array", checked)
        patch.setattr(bound, "resolve", resolved)
        yield found


@pytest.mark.parametrize("name", METHODS)
def test_every_method_checks_its_inputs_and_resolves_its_target_once(name, monkeypatch):
    x = np.random.default_rng(0).normal(size=(2, 2, 6, 6)).astype(np.float32)
    options = {**OPTIONS.get(name, {}), **({"background": x[:1]} if name == "expected-gradients" else {})}
    fn = differentiate(IMAGES)
    with counted(monkeypatch, x) as found:
        alone = METHODS[name].run(fn, x, CLASS, **options)
    assert found["checks"] == 1
    # XRAI integrates gradients in a call of its own.
    assert found["targets"] == 1 + (name == "xrai")
    with counted(monkeypatch, x) as found:
        named = METHODS[name].run(fn, {"x": x}, CLASS, **options)
    assert found["checks"] == 1
    # An array was given, so an array is the answer.
    given = "attributions" if alone.attributions is not None else "maps"
    one, by_name = getattr(alone, given), getattr(named, given)
    assert isinstance(one, np.ndarray)
    np.testing.assert_array_equal(by_name["x"] if isinstance(by_name, dict) else by_name, one)


@pytest.mark.parametrize("name", ["full-grad", "integrated-gradients", "smooth-grad", "gradient"])
def test_samples_that_lie_elsewhere_are_checked_once(name, monkeypatch):
    x = np.random.default_rng(1).normal(size=(3, 4, 2)).astype(np.float32)
    with counted(monkeypatch, x) as found:
        result = METHODS[name].run(differentiate(STEPS), x, 0, **OPTIONS.get(name, {}))
    assert found["checks"] == 1
    assert result.attributions.shape == x.shape


def test_gradients_and_outputs_check_their_inputs_once(monkeypatch):
    for model, shape in ((IMAGES, (2, 2, 6, 6)), (STEPS, (3, 4, 2))):
        fn, x = differentiate(model), np.random.default_rng(2).normal(size=shape).astype(np.float32)
        for call in (fn.gradients, fn.forward):
            with counted(monkeypatch, x) as found:
                call(x)
            assert found["checks"] == 1


def test_a_method_of_a_user_is_given_what_the_user_gave():
    seen = []

    def own(model, inputs, target=None, *, verify=True):
        fn = differentiate(model)
        inputs = np.asarray(inputs) if isinstance(inputs, list) else inputs
        seen.append(type(inputs))
        found = fn.gradients(inputs, target)
        inputs[...] = 0
        # In place: other numbers are explained, and nothing is remembered of the first ones.
        assert not any(array.any() for array in fn.forward(inputs).values())
        return Attribution(
            attributions=found.gradients["x"], maps=None, output=found.output, target=found.target, wrt=("x",)
        )

    for x in (np.ones((3, 4, 2)), np.ones((3, 4, 2), np.float32)):
        result = explains(by_sample(own))(STEPS, x, 0)
        expected = np.broadcast_to([1 - np.tanh(1.0) ** 2, 0], (3, 4, 2))
        np.testing.assert_allclose(result.attributions, expected, rtol=1e-6)
    assert seen == [np.ndarray, np.ndarray]


def test_checked_inputs_that_a_user_changes_are_checked_again():
    fn = differentiate(TWO)
    feeds = fn.check_inputs(FED)
    feeds["a"] = np.full((3, 2), np.nan)
    with pytest.raises(InputError, match="'a' holds NaN"):
        fn.gradients(feeds)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_other_points_explain_the_class_that_is_highest_at_the_inputs(backend):
    here = differentiate(TWO, backend).bind(FED)
    found = here.gradients(["a"])
    classes = ((A * B) @ W).argmax(axis=1)
    np.testing.assert_array_equal(found.target, classes)
    assert set(classes) == {0, 1}
    rows, points = np.array([2, 0, 0, 1]), np.array([[5, 5], [-4, 1], [2, 0], [1, 9]], np.float32)
    there = here.holding(found.target).at({"a": points}, rows)
    # The second sample's b, and its class, go with every one of its points.
    np.testing.assert_array_equal(there.feeds["b"], B[rows])
    found = there.gradients(["a"])
    np.testing.assert_array_equal(found.target, classes[rows])
    np.testing.assert_allclose(found.gradients["a"], W[:, classes[rows]].T * B[rows], rtol=1e-6)
    explained = ((points * B[rows]) @ W)[np.arange(4), classes[rows]]
    np.testing.assert_allclose(found.output, explained, rtol=1e-6)
    np.testing.assert_allclose(there.seed.explained(there.outputs()), explained, rtol=1e-6)
    # Without a class that is fixed, the highest one at each point is explained.
    free = here.at({"a": points}, rows).gradients(())
    np.testing.assert_allclose(free.output, ((points * B[rows]) @ W).max(axis=1), rtol=1e-6)


def test_weights_and_several_classes_follow_their_samples():
    fn, rows = differentiate(TWO), np.array([1, 1, 2])
    weights = np.array([[1, 0], [0, 2], [3, -1]], np.float32)
    found = fn.bind(FED, Target(weights=weights)).at({}, rows).gradients(["a"])
    np.testing.assert_allclose(found.gradients["a"], (weights[rows] @ W.T) * B[rows], rtol=1e-6)
    each = np.array([[0, 1], [1, 0], [1, 1]])
    found = fn.bind(FED, Target(each=each), several=True).at({}, rows).gradients(["a"])
    np.testing.assert_array_equal(found.target, each[rows])
    np.testing.assert_allclose(found.gradients["a"], W.T[each[rows]] * B[rows][:, None], rtol=1e-6)
    with pytest.raises(TargetError, match="one scalar of each sample"):
        fn.bind(FED, Target(each=each))


def test_points_that_are_not_finite_are_refused():
    here = differentiate(TWO).bind(FED, 0)
    with pytest.raises(InputError, match="'a' holds NaN or infinity"):
        here.at({"a": np.array([[np.inf, 1]], np.float32)}, np.array([0]))
