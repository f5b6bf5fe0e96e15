"""Inputs and targets that are refused: the message says how to give them, and so given they are explained."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer import full_grad, gradient, integrated_gradients
from analyzer.target.target import Target
from tests.refusals.setting import (
    CONV,
    DENSE,
    FIRST,
    IDS,
    LAST,
    NAN,
    TOKENS,
    TWO,
    Case,
    W,
    X,
    assert_refused,
    evaluated,
    gradient_of,
    model_of,
    of_class,
)

CHOSEN = model_of(
    "g (float[N,4] x) => (int64[N,1] i, float[N,4] y) { i = ArgMax<axis=1>(x) y = Identity(x) }"
)

INPUTS = {
    "NaN": Case(
        lambda: gradient(DENSE, NAN),
        "numpy.nan_to_num",
        lambda f: gradient_of(DENSE, np.nan_to_num(NAN, posinf=0, neginf=0)),
        of_class(1),
    ),
    "infinity": Case(lambda: full_grad(DENSE, X * np.inf), "finite numbers"),
    "no batch axis": Case(
        lambda: gradient(DENSE, X[0]),
        "inputs[None]",
        lambda f: gradient_of(DENSE, evaluated(f, inputs=X[0])),
        of_class(1)[:1],
    ),
    "channels last": Case(
        lambda: gradient(CONV, LAST),
        "inputs.transpose(0, 3, 1, 2)",
        lambda f: evaluated(f, inputs=LAST),
        FIRST,
    ),
    "one image, channels last": Case(
        lambda: gradient(CONV, LAST[0]),
        "inputs.transpose(2, 0, 1)[None]",
        lambda f: evaluated(f, inputs=LAST[0]),
        FIRST[:1],
    ),
    "a size": Case(lambda: gradient(DENSE, np.ones((2, 7))), "to the shape (N, 4)"),
    "an unknown name": Case(
        lambda: gradient(DENSE, {"z": X}),
        "a dict {'x': array}",
        lambda f: gradient_of(DENSE, {"x": X}),
        of_class(1),
    ),
    "a missing name": Case(lambda: gradient(TWO, {"a": X}), "a dict {'a': array, 'b': array}"),
    "one array for two inputs": Case(
        lambda: gradient(TWO, X),
        "a dict {'a': array, 'b': array}",
        lambda f: gradient_of(TWO, {"a": X, "b": X * 2}, 0)[:, 0],
        [2, 8],
    ),
    "no samples": Case(lambda: gradient(DENSE, X[:0]), "at least one"),
    "other numbers of samples": Case(lambda: gradient(TWO, {"a": X, "b": X[:1]}), "as many rows"),
    "floats for ids": Case(
        lambda: gradient(TOKENS, IDS.astype("f"), wrt="embedding"),
        "x.astype('int64')",
        lambda f: evaluated(f, x=IDS.astype("f")),
        IDS,
    ),
    "text": Case(lambda: gradient(DENSE, "cat.jpg"), "an array of numbers"),
    "rows of two lengths": Case(lambda: gradient(DENSE, [[1.0, 2.0], [3.0]]), "rows of one length"),
    "None": Case(lambda: gradient(DENSE, None), "an array of numbers"),
    "complex numbers": Case(lambda: gradient(DENSE, X + 1j), "real and imaginary parts as real numbers"),
}

TARGETS = {
    "out of range": Case(
        lambda: gradient(DENSE, X, 7), "from 0 to 2", lambda f: gradient_of(DENSE, X, 2), of_class(2)
    ),
    "a float": Case(
        lambda: gradient(DENSE, X, 1.0), "an int", lambda f: gradient_of(DENSE, X, 1), of_class(1)
    ),
    "a name": Case(lambda: gradient(DENSE, X, "cat"), "an int"),
    "a dict": Case(
        lambda: gradient(DENSE, X, {"y": 1}),
        "Target(weights={output: array})",
        lambda f: gradient_of(DENSE, X, Target(weights={"y": np.float32([0, 1, 0])})),
        of_class(1),
    ),
    "a class too many": Case(
        lambda: gradient(DENSE, X, [0, 1, 2]),
        "a class for each sample",
        lambda f: gradient_of(DENSE, X, [1, 1]),
        of_class(1),
    ),
    "an unknown output": Case(
        lambda: gradient(DENSE, X, Target("z", index=1)),
        "choose from y",
        lambda f: gradient_of(DENSE, X, Target("y", index=1)),
        of_class(1),
    ),
    "weights of another shape": Case(
        lambda: gradient(DENSE, X, Target(weights=np.ones((2, 5)))), "of shape (2, 3)"
    ),
    "weights with NaN": Case(
        lambda: gradient(DENSE, X, Target(weights=np.full((2, 3), np.nan))), "finite numbers"
    ),
    "two sayings": Case(lambda: Target(index=1, weights=W), "one of them"),
    "two readings": Case(
        lambda: gradient(DENSE, X, np.zeros((2, 2), int)),
        "Target(each=array)",
        lambda f: gradient_of(DENSE, X, Target(each=np.ones((2, 1), int)))[:, 0],
        of_class(1),
    ),
    "too many coordinates": Case(
        lambda: gradient(DENSE, X, Target(position=(0, 1))), "give 1, one for each axis"
    ),
    "a mask of nothing": Case(lambda: gradient(DENSE, X, Target(index=0, mask=np.ones((2, 2)))), "omit mask"),
    "several where one is explained": Case(
        lambda: full_grad(DENSE, X, Target(top=2)), "one class, or use fn.gradients"
    ),
    "more than there are": Case(lambda: integrated_gradients(DENSE, X, Target(top=9)), "top=3 or less"),
    "integers": Case(
        lambda: gradient(CHOSEN, X, Target("i")),
        "a float tensor",
        lambda f: gradient_of(CHOSEN, X, Target("y", index=1))[:, 1],
        [1, 1],
    ),
}


CASES = {f"input: {name}": case for name, case in INPUTS.items()}
CASES |= {f"target: {name}": case for name, case in TARGETS.items()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_call_is_refused_with_a_fix_that_works(case):
    assert_refused(case)
