"""--logit, the note on saturated probabilities, and the words for a completeness that fails."""

from __future__ import annotations

import json
import warnings

import numpy as np
import onnx
import pytest
from onnx import parser

from analyzer import Target, check, differentiate, full_grad, gradient, integrated_gradients, smooth_grad
from analyzer.errors import Note

W = "1.0, 2.0, 3.0, 4.0, 5.0, 6.0"
COLUMNS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


def classifier(tail="y = Softmax(z)"):
    return parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n,2] x) => (float[n,3] y) '
        f"<float[2,3] w = {{{W}}}, float two = {{2.0}}> {{ z = MatMul(x, w) {tail} }}"
    )


# The probability of class 2 is 0.9999 in the first row and 0.51 in the second.
X = np.array([[0, 10], [0.2, 0.3]], np.float32)


@pytest.fixture
def folder(command, tmp_path, monkeypatch):
    onnx.save(classifier(), tmp_path / "softmax.onnx")
    onnx.save(classifier("y = Relu(z)"), tmp_path / "relu.onnx")
    np.save(tmp_path / "x.npy", X)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_logit_explains_what_the_softmax_reads(folder, command):
    status, out, errors = command("analyze", "softmax.onnx", "x.npy", "--logit", "--target", "1", "--json")
    assert status == 0 and "above 0.99" not in errors
    found = [one["methods"]["full-grad"]["output"] for one in json.loads(out)["samples"]]
    np.testing.assert_allclose(found, (X @ COLUMNS)[:, 1], rtol=1e-5)
    _, _, errors = command("analyze", "softmax.onnx", "x.npy", "--logit", "--target", "2 - 1")
    assert "explains 'z', the logits of the output 'y'" in errors
    for arguments in (
        ("check", "softmax.onnx"),
        ("compare", "softmax.onnx", "softmax.onnx", "--names", "a,b"),
    ):
        options = ("--backends", "onnxruntime,torch") if arguments[0] == "check" else ()
        status, _, errors = command(*arguments, "x.npy", "--logit", *options)
        assert status == 0 and "explains 'z'" in errors and "above 0.99" not in errors


def test_logit_of_an_output_without_softmax_is_refused_in_one_line(folder, command):
    status, out, errors = command("analyze", "relu.onnx", "x.npy", "--logit")
    assert status == 2 and not out and errors.count("\n") == 1
    assert "expected 'y' to be computed by Softmax or Sigmoid, found node" in errors and "Fix: omit" in errors
    np.savez(folder / "weights.npz", y=np.ones((2, 3), np.float32), z=np.ones((2, 3), np.float32))
    status, _, errors = command("analyze", "softmax.onnx", "x.npy", "--logit", "--target", "weights.npz")
    assert status == 2 and errors.count("\n") == 1 and "--logit explains the logit of one output" in errors


def test_the_command_line_says_once_that_a_probability_is_saturated(folder, command):
    methods = ("--method", "full-grad", "--method", "integrated-gradients")
    _, _, errors = command("analyze", "softmax.onnx", "x.npy", *methods)
    assert errors.count("above 0.99") == 1
    assert 'Target(2, before="softmax") (--logit)' in errors
    _, _, errors = command("compare", "softmax.onnx", "softmax.onnx", "x.npy", "--names", "a,b")
    assert errors.count("above 0.99") == 1


@pytest.mark.parametrize(
    ("tail", "x", "target", "kind"),
    [
        ("y = Softmax(z)", X, None, "softmax"),
        ("y = LogSoftmax(z)", X, 2, "softmax"),
        ("y = Sigmoid(z)", X, Target("y", index=0), "sigmoid"),
        ("y = Softmax(z)", X, Target(top=2), "softmax"),
        ("y = Softmax(z)", X[1:], None, None),
        ("y = Softmax(z)", X, 0, None),
        ("y = Softmax(z)", X, Target(before="softmax"), None),
        ("p = Softmax(z) y = Mul(p, two)", X, None, None),
        ("y = Identity(z)", X, None, None),
    ],
)
def test_a_saturated_probability_warns_once_at_the_line_of_the_user(tail, x, target, kind):
    fn = differentiate(classifier(tail))
    several = isinstance(target, Target) and target.several
    methods = (integrated_gradients,) if several else (gradient, full_grad, integrated_gradients, smooth_grad)
    calls = [lambda one=one: one(fn, x, target) for one in methods]
    calls += [lambda: fn.gradients(x, target)]
    if not several:
        calls += [lambda: check(fn.model, x, target, backends=["onnxruntime", "torch"])]
    for call in calls:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        notes = [one for one in caught if issubclass(one.category, Note)]
        assert len(notes) == (kind is not None)
        if kind is not None:
            assert f'before="{kind}"' in str(notes[0].message) and notes[0].filename == __file__


def test_a_failing_completeness_says_what_it_means_and_what_to_do(tmp_path, command, monkeypatch):
    """Constant weights: logits of 1e7 that are all equal, of which a softmax makes 1/3; float32 rounds them."""
    constant = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n,64] x) => (float[n,3] y) '
        "<float one = {1.0}, int64[2] s = {64, 3}, int64[2] q = {64, 64}> { w = Expand(one, s) v = Expand(one, q) "
        "h = MatMul(x, v) i = MatMul(h, v) j = Relu(i) z = MatMul(j, w) y = Softmax(z) }"
    )
    x = np.random.default_rng(0).normal(1, 3, (1, 64)).astype(np.float32) * 100
    result = full_grad(constant, x)
    assert result.passed == (False,)
    assert "Do not rely on the maps" in result.remark and "(--logit)" in result.remark
    onnx.save(constant, tmp_path / "constant.onnx")
    np.save(tmp_path / "x.npy", x)
    monkeypatch.chdir(tmp_path)
    status, shown, _ = command("analyze", "constant.onnx", "x.npy")
    assert status == 1 and "Do not rely on the maps" in " ".join(shown.split())
