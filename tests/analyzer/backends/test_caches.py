"""Typed caches of a model."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx.parser

from analyzer import Target, differentiate
from analyzer.backends.batching.arranging import _VIEWS
from analyzer.backends.caches import Cache

# The rows depend on one another: the call is explained as one sample, on a view of the model.
FILE = onnx.parser.parse_model(
    '<ir_version: 10, opset_import: ["": 21]> g (float[2,n] x) => (float[2,n] y)'
    " <float[2,2] w = {1, 2, 3, 4}> { y = MatMul(w, x) }"
)


def test_a_value_is_made_once_for_each_model_and_key():
    cache: Cache[int] = Cache("numbers")
    one, other = SimpleNamespace(caches={}), SimpleNamespace(caches={})
    made = iter(range(9))
    assert [cache.get(one, key, lambda: next(made)) for key in "aba"] == [0, 1, 0]
    assert cache.get(other, "a", lambda: next(made)) == 2
    assert cache.of(one) == {"a": 0, "b": 1}


def test_caches_of_one_name_are_apart_and_none_is_a_value():
    first, second = Cache("same"), Cache("same")
    fn = SimpleNamespace(caches={})
    assert first.get(fn, "key", lambda: None) is None
    assert first.get(fn, "key", lambda: 1) is None
    assert second.get(fn, "key", lambda: 2) == 2


def test_release_reaches_the_models_in_caches():
    fn = differentiate(FILE)
    x = np.ones((2, 3), np.float32)
    fn.gradients(x, Target(index=(0, 1)))
    views = list(_VIEWS.of(fn).values())
    assert views and all(view.engine.held for view in views)
    fn.release()
    assert not any(view.engine.held for view in views)
