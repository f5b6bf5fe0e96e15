"""Classes by name in Python: the same gradient as by index, whatever the spelling; near and unknown names."""

from __future__ import annotations

import numpy as np
import pytest

import onnxplain as ox
from analyzer.cli.targets import parse_target
from analyzer.cli.terminal import UserError
from analyzer.errors import TargetError
from analyzer.graph.graph import Graph
from analyzer.target.class_names import find_class, near_classes
from tests.refusals.setting import DENSE, W, X, model_of, of_class

NAMED = ox.convert(DENSE, class_names=["tabby, tabby cat", "Tiger-cat", "dog"])
FN = ox.differentiate(NAMED)
GRID = model_of(
    "g (float[N,4] x) => (float[N,5,3] y) { h = MatMul(x, w) y = Reshape(h, s) }",
    w=np.arange(60, dtype=np.float32).reshape(4, 15),
    s=np.int64([-1, 5, 3]),
)


def gradient(target) -> np.ndarray:
    return FN.gradients(X, target).gradients["x"]


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        ("dog", [2, 2]),
        (" DOG ", [2, 2]),
        ("tabby cat", [0, 0]),
        ("tabby, tabby cat", [0, 0]),
        ("tiger_cat", [1, 1]),
        ("2", [2, 2]),
        ("-1", [2, 2]),
        (-1, [2, 2]),
        (["dog", "tabby"], [2, 0]),
        (["dog", 1], [2, 1]),
        (np.array(["tabby", "tiger cat"]), [0, 1]),
        (ox.Target(index="dog"), [2, 2]),
        (ox.Target("y", index=["dog", "tabby"]), [2, 0]),
        (ox.Target("dog"), [2, 2]),
    ],
)
def test_a_name_is_the_index_of_its_class(target, classes):
    np.testing.assert_array_equal(gradient(target), [W[:, one] for one in classes])


def test_names_are_taken_in_sums_by_methods_and_by_checks():
    sums = ox.Target(index="dog") - 0.5 * ox.Target(index="tabby")
    np.testing.assert_allclose(gradient(sums), of_class(2) - 0.5 * of_class(0))
    both = ox.Target(index=np.array(["dog", "tabby"])) - ox.Target(index=np.array([1, 1]))
    np.testing.assert_allclose(gradient(both), [W[:, 2] - W[:, 1], W[:, 0] - W[:, 1]])
    np.testing.assert_array_equal(ox.full_grad(NAMED, X, "dog").target, [2, 2])
    each = ox.integrated_gradients(NAMED, X, ox.Target(each=[["dog", "tabby"]] * 2), steps=1)
    np.testing.assert_array_equal(each.target, [[2, 0]] * 2)
    assert ox.check(NAMED, X, "dog", backends=["onnxruntime", "torch"]).passed
    assert ox.compare(NAMED, DENSE, X, "tiger cat").passed


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("cat", r"'tabby, tabby cat' \(0\), 'Tiger-cat' \(1\)\? Fix: give one"),
        ("dgo", r"did you mean 'dog' \(2\)"),
        ("zebra", "such as 'tabby, tabby cat'"),
        ("", "such as 'tabby, tabby cat'"),
        (["dog", "cat"], "target 'cat'"),
        (["dog", ["tabby"]], "rows of different lengths"),
        (["dog"], "a class for each sample"),
        (ox.Target("cat"), "no output 'cat'"),
        ("7", "from 0 to 2"),
    ],
)
def test_an_unknown_name_lists_the_classes_with_that_word(target, words):
    with pytest.raises(TargetError, match=words):
        gradient(target)


def test_a_model_without_names_says_how_to_store_them():
    with pytest.raises(TargetError, match="--class-names"):
        ox.full_grad(DENSE, X, "dog")


def test_an_exact_name_goes_first_and_two_alike_are_refused():
    assert find_class("Crane", ["crane", "Crane"]) == 1
    assert find_class("cup", ["tea, cup", "cup"]) == 1
    with pytest.raises(TargetError, match=r"several classes have that name, 0 \(crane\), 2 \(crane\)"):
        find_class("crane", ["crane", "owl", "crane"])
    with pytest.raises(UserError, match=r"--target crane: several classes"):
        parse_target("crane", 1, 3, ["crane", "owl", "crane"])
    assert near_classes("cats", ["tabby cat", "catamaran", "dog"]) == []


def test_names_that_are_not_those_of_the_output_are_refused():
    """As of a detector, whose boxes have coordinates before the scores of the classes."""
    detector = ox.convert(GRID, class_names=["a", "b"])
    graph = Graph.from_proto(detector.proto)
    words = "the 2 class names .* do not name the elements of 'y'"
    with pytest.raises(TargetError, match=words):
        ox.full_grad(detector, X, "a")
    with pytest.raises(UserError, match=words):
        parse_target("a", 2, 5, detector.class_names, graph)
    found = ox.full_grad(detector, X)
    assert found.class_names is None
    assert ox.full_grad(NAMED, X).class_names == NAMED.class_names


def test_names_find_the_axis_that_has_as_many_classes():
    scored = ox.convert(GRID, class_names=["a", "b", "c"])
    # By hand: the sum over the 5 positions of class b.
    truth = (X @ np.arange(60).reshape(4, 15)).reshape(2, 5, 3)[..., 1].sum(axis=1)
    np.testing.assert_allclose(ox.full_grad(scored, X, "b").output, truth)


def test_minus_one_is_the_last_class_on_the_command_line_too():
    assert parse_target("-1", 2, 3, None) == -1
    with pytest.raises(UserError, match="out of range"):
        parse_target("-4", 2, 3, None)
