"""The logit before the last Softmax or Sigmoid: its gradient is a column of the last matrix, known without a run."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from analyzer import (
    Target,
    check,
    compare,
    differentiate,
    full_grad,
    gradient,
    input_x_gradient,
    integrated_gradients,
    smooth_grad,
)
from analyzer.errors import TargetError
from analyzer.methods import METHODS
from tests.zoo.draw import normal

HEADER = '<ir_version: 10, opset_import: ["": 21]>'
W = np.array([[1, 2, 3], [4, 5, 6], [-1, 2, 3], [0.5, 1, 2]], np.float32)
X = normal(2, 4).numpy()


def model(tail, shape="n,3"):
    """z = x @ W, and what the tail makes of it."""
    numbers = ", ".join(str(float(v)) for v in W.ravel())
    return parser.parse_model(
        f"{HEADER} g (float[n,4] x) => (float[{shape}] y) <float[4,3] w = {{{numbers}}}, "
        "int64[4] wide = {0, 3, 1, 1}, int64[2] flat = {0, 3}, int64[2] minus = {-1, 3}, int64[1] one = {1}, "
        "int64[1] zero = {0}, float unit = {1.0}, float half = {0.5}>"
        f" {{ z = MatMul(x, w) {tail} }}"
    )


FOUND = {
    "softmax": ("softmax", "y = Softmax<axis = 1>(z)"),
    "softmax of the last axis": ("softmax", "y = Softmax(z)"),
    "log softmax": ("softmax", "y = LogSoftmax<axis = 1>(z)"),
    "logarithm of softmax": ("softmax", "p = Softmax(z) y = Log(p)"),
    "stable softmax in primitives": (
        "softmax",
        "m = ReduceMax<keepdims = 1>(z, one) d = Sub(z, m) e = Exp(d) s = ReduceSum<keepdims = 1>(e, one) "
        "y = Div(e, s)",
    ),
    "sigmoid": ("sigmoid", "y = Sigmoid(z)"),
    "sigmoid in primitives": ("sigmoid", "m = Neg(z) e = Exp(m) d = Add(e, unit) y = Div(unit, d)"),
    "a cast and an identity": (
        "softmax",
        "p = Softmax(z) d = Cast<to = 11>(p) f = Cast<to = 1>(d) y = Identity(f)",
    ),
    "pooled maps, flattened": ("softmax", "m = Reshape(z, wide) p = Softmax<axis = 1>(m) y = Flatten(p)"),
    "pooled maps, reshaped": (
        "softmax",
        "m = Reshape(z, wide) p = Softmax<axis = 1>(m) y = Reshape(p, minus)",
    ),
    "sigmoid of pooled maps": ("sigmoid", "m = Reshape(z, wide) p = Sigmoid(m) y = Reshape(p, flat)"),
}


@pytest.mark.parametrize("name", FOUND)
def test_the_gradient_is_that_of_the_logit(name):
    before, tail = FOUND[name]
    fn, z = differentiate(model(tail)), X @ W
    for asked in (before, "activation", True):
        found = fn.gradients(X, Target(1, before=asked))
        np.testing.assert_allclose(found.output, z[:, 1], rtol=1e-5)
        np.testing.assert_allclose(found.gradients["x"], np.tile(W[:, 1], (2, 1)), rtol=1e-5)
    each = fn.gradients(X, Target(index=[2, 0], before=before))
    np.testing.assert_allclose(each.gradients["x"], W[:, [2, 0]].T, rtol=1e-5)
    highest = fn.gradients(X, Target(before=before))
    np.testing.assert_allclose(highest.output, z.max(axis=1), rtol=1e-5)
    ranked = fn.gradients(X, Target(top=2, before=before))
    np.testing.assert_allclose(ranked.output, -np.sort(-z, axis=1)[:, :2], rtol=1e-5)
    given = fn.gradients(X, Target(each=[[0, 2], [1, 1]], before=before))
    np.testing.assert_allclose(given.gradients["x"][0], W[:, [0, 2]].T, rtol=1e-5)
    parts = Target(index=2, before=before) - 0.5 * Target(index=0, before=before)
    summed = fn.gradients(X, parts)
    np.testing.assert_allclose(summed.gradients["x"], np.tile(W[:, 2] - 0.5 * W[:, 0], (2, 1)), rtol=1e-5)
    weights = np.array([1, -2, 0.25], np.float32)
    weighted = fn.gradients(X, Target(weights=weights, before=before))
    np.testing.assert_allclose(weighted.gradients["x"], np.tile(W @ weights, (2, 1)), rtol=1e-5)
    # A result's classes, given back, are those of the logits.
    np.testing.assert_array_equal(fn.gradients(X, found.target).gradients["x"], found.gradients["x"])
    np.testing.assert_array_equal(fn.gradients(X, ranked.target).output, ranked.output)


REFUSED = {
    # Without the largest score subtracted it overflows where a Softmax does not: it is left as it is.
    "e = Exp(z) s = ReduceSum<keepdims = 1>(e, one) y = Div(e, s)": (
        "softmax",
        r"found node.*Div.*Fix: .*Target\(output=…\)",
    ),
    "y = Relu(z)": ("activation", r"computed by Softmax or Sigmoid, found node 'Relu_y'.*omit before"),
    "p = Softmax(z) y = Mul(p, half)": ("softmax", r"found node.*Mul.*Target\(output='z'\)"),
    "y = Sigmoid(z) ": ("softmax", r'found node.*Sigmoid.*before="sigmoid"'),
    "y = Softmax<axis = 0>(z)": ("softmax", r"expected the classes of 'y' .* on the axis of .*axis 0"),
    "p = Softmax(z) t = Transpose<perm = [1, 0]>(p) y = Reshape(t, minus)": (
        "softmax",
        "a node between them",
    ),
    "m = Reshape(z, wide) p = Softmax<axis = 2>(m) y = Reshape(p, flat)": ("softmax", "on the axis of"),
}


@pytest.mark.parametrize("tail", REFUSED)
def test_other_outputs_are_refused_with_a_fix(tail):
    before, message = REFUSED[tail]
    with pytest.raises(TargetError, match=message) as caught:
        differentiate(model(tail)).gradients(X, Target(1, before=before))
    assert "Fix: " in str(caught.value)


def test_axes_may_be_moved_behind_the_activation():
    """Keras's maps: y[n, h, w, c] of logits z[n, c, h, w] = c · x[n, 0, h, w]²."""
    for sizes, tail in (
        ("n,2,3,2", "y = Transpose<perm = [0, 2, 3, 1]>(p)"),
        ("n,6,2", "t = Transpose<perm = [0, 2, 3, 1]>(p) y = Reshape(t, s)"),
    ):
        maps = parser.parse_model(
            f"{HEADER} g (float[n,1,2,3] x) => (float[{sizes}] y) <float[2,1,1] c = {{1.0, 3.0}}, "
            f"int64[3] s = {{0, 6, 2}}> {{ q = Mul(x, x) z = Mul(q, c) p = Softmax<axis = 1>(z) {tail} }}"
        )
        x, fn = normal(2, 1, 2, 3).numpy(), differentiate(maps)
        shape = tuple(int(size) for size in sizes.split(",")[1:])
        mask = normal(*shape[:-1]).numpy()
        masked = fn.gradients(x, Target(index=1, axis=-1, mask=mask, before="softmax")).gradients["x"]
        np.testing.assert_allclose(masked, 6 * x * mask.reshape(2, 3), rtol=1e-5)
        element = (1, 2, 0) if len(shape) == 3 else (5, 0)
        found = fn.gradients(x, Target(index=element, before="softmax"))
        np.testing.assert_allclose(found.output, x[:, 0, 1, 2] ** 2, rtol=1e-5)
        np.testing.assert_array_equal(fn.gradients(x, found.target).output, found.output)
        weights = normal(*shape).numpy()
        logits = (x**2) * np.array([1, 3])[:, None, None]
        expected = (np.moveaxis(logits, 1, -1).reshape(2, *shape) * weights).reshape(2, -1).sum(axis=1)
        found = fn.gradients(x, Target(weights=weights, before="softmax"))
        np.testing.assert_allclose(found.output, expected, rtol=1e-4, atol=1e-5)
        with pytest.raises(TargetError, match="on the axis of"):
            fn.gradients(x, Target(index=1, axis=1, before="softmax"))


def test_classes_of_maps_and_sequences_keep_their_places():
    """y[n, t, c] is a softmax over the last axis; the logits are z[n, t, c] = x[n, t]·x[n, t]·c."""
    squares = parser.parse_model(
        f"{HEADER} g (float[n,3,1] x) => (float[n,3,2] y) <float[2] c = {{1.0, 3.0}}>"
        " { s = Mul(x, x) z = Mul(s, c) y = Softmax<axis = -1>(z) }"
    )
    x = normal(2, 3, 1).numpy()
    fn = differentiate(squares)
    found = fn.gradients(x, Target(index=1, axis=-1, before="softmax"))
    np.testing.assert_allclose(found.gradients["x"], 6 * x, rtol=1e-5)
    element = fn.gradients(x, Target(index=(2, 0), before="softmax")).gradients["x"]
    np.testing.assert_allclose(element, 2 * x * np.array([0, 0, 1])[:, None], rtol=1e-5, atol=1e-7)
    last = fn.gradients(x, Target(position=-1, before="softmax")).output
    np.testing.assert_allclose(last, 3 * x[:, 2, 0] ** 2, rtol=1e-5)
    masked = fn.gradients(x, Target(index=0, axis=-1, mask=np.array([1, 0, 2]), before="softmax"))
    np.testing.assert_allclose(masked.gradients["x"], 2 * x * np.array([1, 0, 2])[:, None], rtol=1e-5)
    with pytest.raises(TargetError, match="on the axis of"):
        fn.gradients(x, Target(index=1, axis=1, before="softmax"))


def test_samples_of_another_axis_and_samples_that_depend_on_one_another():
    """The samples last, (3, n): the class of each is found. Rows that share their mean are one sample."""
    last = model("t = Transpose<perm = [1, 0]>(z) y = Softmax<axis = 0>(t)", "3,n")
    found = differentiate(last).gradients(X, Target(2, before="softmax"))
    np.testing.assert_allclose(found.output, (X @ W)[:, 2], rtol=1e-5)
    mixed = model("m = ReduceMean<keepdims = 1>(z, zero) c = Add(z, m) y = Softmax(c)")
    joint = differentiate(mixed).gradients(X, Target(index=(1, 2), before="softmax"))
    np.testing.assert_allclose(joint.output, ((X + X.mean(axis=0)) @ W)[1, 2], rtol=1e-5)
    expected = np.array([0.5, 1.5])[:, None] * W[:, 2]
    np.testing.assert_allclose(joint.gradients["x"], expected, rtol=1e-5)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
def test_every_method_and_backend_explains_the_logit(backend):
    fn = differentiate(model(FOUND["pooled maps, flattened"][1]), backend)
    target, logit = Target(2, before="softmax"), (X @ W)[:, 2]
    for method in (gradient, full_grad, input_x_gradient, integrated_gradients, smooth_grad):
        np.testing.assert_allclose(method(fn, X, target).output, logit, rtol=1e-5)
    # The logits are linear: both are x times the column.
    for exact in (full_grad, integrated_gradients):
        np.testing.assert_allclose(exact(fn, X, target).completeness.total, logit, rtol=1e-4)


def image_classifier(tail):
    """Two convolutions with weights drawn from a seed, their mean, and what a tail makes of it."""
    rng = np.random.default_rng(0)
    first, second = (", ".join(f"{v:.3f}" for v in rng.normal(size=size)) for size in (4 * 3 * 9, 5 * 4 * 9))
    return parser.parse_model(
        f"{HEADER} g (float[n,3,12,12] x) => (float[n,5] y) <float[4,3,3,3] k = {{{first}}}, "
        f"float[5,4,3,3] l = {{{second}}}> {{ a = Conv(x, k) b = Relu(a) c = Conv(b, l) d = Relu(c) "
        f"e = GlobalAveragePool(d) z = Flatten(e) {tail} }}"
    )


def test_every_registered_method_gives_what_it_gives_for_the_network_without_its_softmax():
    x = normal(2, 3, 12, 12).numpy()
    plain, soft = (differentiate(image_classifier(tail)) for tail in ("y = Identity(z)", "y = Softmax(z)"))
    few = {"samples": 4, "steps": 4, "background": x[::-1].copy()}
    for name, entry in METHODS.items():
        options = {key: value for key, value in few.items() if key in entry.parameters}
        options |= {"wrt": "a"} if name == "conductance" else {}
        draws = "rng" in entry.parameters
        found = [
            entry.run(fn, x, target, **options, **({"rng": np.random.default_rng(0)} if draws else {}))
            for fn, target in ((plain, 2), (soft, Target(2, before="softmax")))
        ]
        np.testing.assert_allclose(found[1].output, found[0].output, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(found[1].map, found[0].map, rtol=1e-4, atol=1e-6, err_msg=name)


def test_check_and_compare_find_the_logit_of_each_model():
    target = Target(1, before="activation")
    mine, other = model("y = Softmax(z)"), model(FOUND["stable softmax in primitives"][1])
    assert check(mine, X, target, backends=["onnxruntime", "torch"]).passed
    report = compare(mine, other, X, target)
    assert report.passed, report
    (row,) = [row for row in report.rows if row["quantity"] == "input gradient"]
    assert row["relative_l2"] < 1e-6
    # The port misses a term of the logits alone: the softmax does not see it, the gradients do not, and the logits do.
    shifted = model("s = Add(z, half) y = Softmax(s)")
    apart = [row for row in compare(mine, shifted, X, target).rows if not row["passed"]]
    assert [row["quantity"] for row in apart] == ["layer"]
    with pytest.raises(TargetError, match="in 'b', before"):
        compare(mine, model("p = Softmax(z) q = Add(p, half) y = Sub(q, half)"), X, target)


def test_the_target_says_what_it_does_not_take():
    assert Target(285, before="softmax") == Target(index=285, before="softmax")
    assert Target(3, before="LogSoftmax").before == "softmax" and Target(3, before=False).before is None
    for bad, message in (
        ({"before": "relu"}, "unknown before='relu'"),
        ({"weights": {"y": np.ones(3)}, "before": "softmax"}, "before= goes with one output"),
        ({"parts": ((1.0, Target()),), "before": "softmax"}, "before= goes with one output"),
        ({"output": 3, "index": 4}, "expected the name of an output, got 3"),
    ):
        with pytest.raises(TargetError, match=message):
            Target(**bad)
