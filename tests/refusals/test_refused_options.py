"""Options and methods that do not fit a model are refused: the message names an option that does."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from analyzer import (
    blur_integrated_gradients,
    check,
    compare,
    conductance,
    differentiate,
    expected_gradients,
    full_grad,
    grad_cam,
    gradient,
    guided_integrated_gradients,
    integrated_gradients,
    smooth_grad,
    xrai,
)
from analyzer.errors import AnalysisError
from tests.refusals.setting import (
    CONV,
    DENSE,
    IMAGES,
    TWO,
    Case,
    W,
    X,
    assert_refused,
    floats,
    gradient_of,
    of_class,
)

LOG = floats("y = Log(x)")
OPTIONS = {
    "a backend": Case(lambda: differentiate(DENSE, "jax"), "choose from onnxruntime, torch"),
    "float64 on ONNX Runtime": Case(
        lambda: differentiate(DENSE, precision="float64"),
        'backend="torch"',
        lambda f: gradient_of(DENSE, X, backend="torch", precision="float64"),
        of_class(1),
    ),
    "a precision": Case(
        lambda: differentiate(DENSE, "torch", precision="float8"), 'give "float32" or "float64"'
    ),
    "the source of a file": Case(lambda: differentiate(DENSE, "source"), 'backend="onnxruntime"'),
    "a device": Case(lambda: differentiate(DENSE, "torch", device="cpux"), "omit device"),
    "a provider": Case(lambda: gradient_of(DENSE, X, providers=["Foo"]), "CPUExecutionProvider"),
    "memory": Case(
        lambda: differentiate(DENSE, max_memory="lots"),
        "'2 GiB'",
        lambda f: gradient_of(DENSE, X, max_memory="2 GiB"),
        of_class(1),
    ),
    "too little memory": Case(
        lambda: gradient_of(DENSE, X, max_memory=10),
        "max_memory=",
        lambda f: gradient_of(DENSE, X, max_memory=re.findall('max_memory="(.*?)"', f)[0]),
        of_class(1),
    ),
    "samples": Case(lambda: differentiate(DENSE, samples="all"), "'joint' or 'independent'"),
    "wrt of a near name": Case(lambda: gradient(DENSE, X, 1, wrt="hh"), "try 'h'"),
    "wrt of no name": Case(lambda: gradient(DENSE, X, 1, wrt="nowhere"), "fn.tensors"),
    "wrt of a weight": Case(
        lambda: gradient(DENSE, X, 1, wrt="w"), "a tensor that is computed from the inputs"
    ),
    "wrt of two on one path": Case(lambda: gradient(DENSE, X, 1, wrt=["x", "h"]), "one of them at a time"),
    "no wrt": Case(lambda: gradient(DENSE, X, 1, wrt=[]), "omit it"),
    "an embedding that is not there": Case(
        lambda: gradient(DENSE, X, 1, wrt="embedding"), "a tensor of fn.tensors"
    ),
    "a baseline": Case(lambda: integrated_gradients(DENSE, X, 1, baseline="grey"), "black, white"),
    "a baseline's shape": Case(
        lambda: integrated_gradients(DENSE, X, 1, baseline=np.ones((3, 3))), "of shape (2, 4)"
    ),
    "a baseline of text": Case(lambda: integrated_gradients(DENSE, X, 1, baseline=["a"]), "black, white"),
    "a path from an infinity": Case(
        lambda: integrated_gradients(LOG, X, 1),
        "baseline=data.mean(axis=0)",
        lambda f: integrated_gradients(LOG, X, 1, baseline=X.mean(axis=0)).attributions[:, 1],
        np.log(X[:, 1] / X[:, 1].mean()),
    ),
    "no steps": Case(lambda: integrated_gradients(DENSE, X, 1, steps=0), "steps=1"),
    "a rule": Case(lambda: integrated_gradients(DENSE, X, 1, rule="gauss"), "gauss-legendre"),
    "a tolerance": Case(lambda: integrated_gradients(DENSE, X, 1, tolerance=-1), "tolerance=0.01"),
    "map_tolerance alone": Case(
        lambda: integrated_gradients(DENSE, X, 1, map_tolerance=0.1), "give tolerance="
    ),
    "a batch of none": Case(lambda: integrated_gradients(DENSE, X, 1, batch_size=0), "batch_size=16"),
    "a batch of halves": Case(lambda: integrated_gradients(DENSE, X, 1, batch_size=2.5), "batch_size=16"),
    "a seed": Case(lambda: integrated_gradients(DENSE, X, 1, baseline="random", rng="x"), "rng=0"),
    "threads": Case(lambda: differentiate(DENSE, threads=0), "omit it"),
    "samples of text": Case(lambda: smooth_grad(DENSE, X, 1, samples="a"), "samples=25"),
    "a blur of a table": Case(lambda: blur_integrated_gradients(DENSE, X, 1), "integrated_gradients"),
    "regions of a table": Case(lambda: xrai(DENSE, X, 1), "use integrated_gradients"),
    "a fraction": Case(lambda: guided_integrated_gradients(DENSE, X, 1, fraction=2), "fraction=0.25"),
    "a background": Case(lambda: expected_gradients(DENSE, X, 1, background=np.ones((3, 9))), "M inputs"),
    "one draw": Case(lambda: expected_gradients(DENSE, X, 1, background=X, samples=1), "samples=200"),
    "noise": Case(lambda: smooth_grad(DENSE, X, 1, noise=-1), "noise=0.15"),
    "a conductance of one step": Case(lambda: conductance(DENSE, X, 1, wrt="h", steps=1), "steps=50"),
    "Grad-CAM without a layer": Case(
        lambda: grad_cam(DENSE, X, 1),
        "use full_grad",
        lambda f: full_grad(DENSE, X, 1).completeness.total,
        (X @ W)[:, 1],
    ),
    "Grad-CAM of a class": Case(
        lambda: grad_cam(CONV, IMAGES, 1, layer="y"),
        "omit layer",
        lambda f: grad_cam(CONV, IMAGES, 1).map.shape,
        (2, 8, 8),
    ),
    "terms": Case(lambda: full_grad(DENSE, X, 1, terms="some"), '"all" or "explicit"'),
    "post-processing": Case(lambda: full_grad(CONV, IMAGES, 1, post_processing="mine"), "choose from paper"),
    "no backends": Case(lambda: check(DENSE, X, backends=[]), "omit it"),
    "a quantity": Case(lambda: check(DENSE, X, tolerance={"foo": 1}), "choose from output, layer"),
    "models of other inputs": Case(lambda: compare(DENSE, TWO, X), "two models of as many inputs"),
    "models of one name": Case(lambda: compare(DENSE, DENSE, X, names=("a", "a")), "two names"),
}


@pytest.mark.parametrize("case", OPTIONS.values(), ids=OPTIONS)
def test_an_option_is_refused_with_a_fix_that_works(case):
    assert_refused(case)


@pytest.mark.parametrize(
    ("name", "make", "extra"),
    [
        ("torch", lambda: differentiate(DENSE, "torch"), "torch"),
        ("tensorflow", lambda: differentiate(DENSE, "tensorflow"), "tensorflow"),
        ("skimage", lambda: xrai(CONV, IMAGES, 1), "segments"),
    ],
)
def test_a_missing_extra_is_named(monkeypatch, name, make, extra):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(AnalysisError, match=rf'Fix: pip install "onnxplain\[{extra}\]"'):
        make()
