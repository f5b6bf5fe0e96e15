"""A reshape of a reshape is one of the data, unless a size between them counts."""

from __future__ import annotations

import numpy as np
import pytest

from converters.passes.shapes import join_reshapes
from tests.converters.helpers import ops
from tests.converters.passes.rewriting import (
    assert_same,
    assert_untouched,
    graph,
    rewritten,
    whole,
)

# join_reshapes: (the shape of x, nodes, the sizes that are read)
JOINED = {
    "two targets": ("6,4", "a = Reshape(x, one) y = Reshape(a, two)", {"one": [2, 12], "two": [4, 6]}),
    "an open axis": ("N,12", "a = Reshape(x, one) y = Reshape(a, two)", {"one": [0, 3, 4], "two": [-1, 6]}),
    "the batch, twice": (
        "N,12",
        "a = Reshape(x, one) y = Reshape(a, two)",
        {"one": [0, 3, 4], "two": [0, 2, 6]},
    ),
    "an unsqueeze": ("N,12", "a = Unsqueeze(x, one) y = Reshape(a, two)", {"one": [1], "two": [0, 3, 4]}),
    "three": (
        "N,12",
        "a = Reshape(x, one) b = Reshape(a, two) y = Reshape(b, last)",
        {"one": [0, 3, 4], "two": [0, 2, 6], "last": [0, 4, 3]},
    ),
}


@pytest.mark.parametrize("name", JOINED)
def test_a_reshape_of_a_reshape_is_one_of_the_data(name: str) -> None:
    shape, nodes, sizes = JOINED[name]
    more = {name: np.asarray(array) for name, array in sizes.items()}
    file = graph(f"(double[{shape}] x) => (double y) {{ {nodes} }}", more)
    made, found = rewritten(file, join_reshapes)
    assert found and ops(made) == {"Reshape": 1}
    assert made.graph.node[0].input[0] == "x"
    for samples in (2, 6):
        assert_same(
            file, made, {"x": whole(6 if "N" not in shape else samples, 4 if "N" not in shape else 12)}
        )


APART = {
    "a size of what lies between": (
        "a = Reshape(x, one) y = Reshape(a, two)",
        {"one": [0, 3, 4], "two": [2, 0, -1]},
    ),
    "the batch that the first one moves": (
        "a = Reshape(x, one) y = Reshape(a, two)",
        {"one": [-1, 4], "two": [0, 2, 2]},
    ),
    "an unsqueeze before the batch": (
        "a = Unsqueeze(x, one) y = Reshape(a, two)",
        {"one": [0], "two": [0, -1]},
    ),
    "an unsqueeze from the end": ("a = Unsqueeze(x, one) y = Reshape(a, two)", {"one": [-3], "two": [0, -1]}),
    "a value that is read twice": (
        "a = Reshape(x, one) b = Reshape(a, two) c = Reshape(a, one) d = Reshape(b, one) y = Add(c, d)",
        {"one": [0, 3, 4], "two": [0, 4, 3]},
    ),
    "zeros that copy nothing": (
        "a = Reshape(x, one) y = Reshape<allowzero = 1>(a, two)",
        {"one": [0, 3, 4], "two": [-1, 12]},
    ),
    "zeros of the first that copy nothing": (
        "a = Reshape<allowzero = 1>(x, one) y = Reshape(a, two)",
        {"one": [-1, 3, 4], "two": [-1, 12]},
    ),
    "another op": ("a = Transpose<perm = [1, 0]>(x) y = Reshape(a, two)", {"two": [4, -1]}),
}


@pytest.mark.parametrize("name", APART)
def test_reshapes_stay_apart_where_a_size_between_them_counts(name: str) -> None:
    nodes, sizes = APART[name]
    file = graph(
        f"(double[N,12] x) => (double y) {{ {nodes} }}",
        {name: np.asarray(array) for name, array in sizes.items()},
    )
    if name == "a value that is read twice":
        made, _ = rewritten(file, join_reshapes)
        assert ops(made)["Reshape"] == 3
        assert_same(file, made, {"x": whole(2, 12)})
        return
    assert_untouched(file, join_reshapes)


def test_reshapes_of_an_output_stay_apart() -> None:
    file = graph(
        "(double[N,12] x) => (double a, double y) { a = Reshape(x, one) y = Reshape(a, two) }",
        {"one": np.asarray([0, 3, 4]), "two": np.asarray([0, 12])},
    )
    assert_untouched(file, join_reshapes)
