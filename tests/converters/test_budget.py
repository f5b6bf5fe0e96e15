"""One budget for the whole preparation of a model: seconds, bytes and nodes, stated or by the size of the file."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters import ConversionError, InvalidModel, LimitExceeded, Limits, canonicalise, convert, load
from converters.budget import BYTES, Budget, limited
from converters.errors import UnsupportedModel
from converters.graph.bounds import refuse_oversized
from converters.graph.inference import LONGEST, inferred_of
from tests.converters.helpers import make_model, normal, ops, run


def constant_sums(count: int, size: int = 1000) -> onnx.ModelProto:
    """Sums of the input with constants, each of which a further round of folding would make."""
    nodes, constants = [], {"one": np.ones(1, np.float32)}
    for index in range(count):
        x = f"t{index - 1}" if index else "x"
        # No two have one size, so that none is found twice.
        constants[f"s{index}"] = np.array([size - index, 1], np.int64)
        nodes += [
            helper.make_node("Expand", ["one", f"s{index}"], [f"e{index}"]),
            helper.make_node("ReduceMax", [f"e{index}"], [f"m{index}"], keepdims=0),
            helper.make_node("Mul", [f"e{index}", f"m{index}"], [f"p{index}"]),
            helper.make_node("Gather", [f"p{index}", "ids"], [f"g{index}"]),
            helper.make_node("Add", [x, f"g{index}"], [f"t{index}"]),
        ]
    return make_model(
        nodes, {"x": ("N", 1), "ids": ("N",)}, [f"t{count - 1}"], constants, integers=["ids"], opset=18
    )


def doubling(depth: int) -> onnx.ModelProto:
    """Functions that call the next one twice."""
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    functions = []
    for level in range(depth):
        inner, domain = ("Relu", "") if level == depth - 1 else (f"f{level + 1}", "own")
        body = [
            helper.make_node(inner, ["x"], ["h"], domain=domain),
            helper.make_node(inner, ["h"], ["y"], domain=domain),
        ]
        functions.append(helper.make_function("own", f"f{level}", ["x"], ["y"], body, opsets))
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("f0", ["x"], ["y"], domain="own")], "g", infos[:1], infos[1:])
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10)


def counting(*, doubles: bool) -> onnx.ModelProto:
    """A Loop whose condition depends on a tensor that doubles in size, or on one that is multiplied by itself."""
    kind, shape = TensorProto.FLOAT, [None, 300]
    step = ("Concat", {"axis": 0}) if doubles else ("MatMul", {})
    inner = [
        helper.make_node(step[0], ["c", "c"], ["c_next"], **step[1]),
        helper.make_node("ReduceMax", ["c_next"], ["largest"], keepdims=0),
        helper.make_node("Less", ["largest", "one"], ["on_next"]),
        helper.make_node("Tanh", ["h"], ["h_next"]),
    ]
    body = helper.make_graph(
        inner,
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h", kind, None),
            helper.make_tensor_value_info("c", kind, shape),
        ],
        [
            helper.make_tensor_value_info("on_next", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h_next", kind, None),
            helper.make_tensor_value_info("c_next", kind, shape),
        ],
    )
    loop = helper.make_node("Loop", ["", "true", "x", "start"], ["y", "last"], body=body)
    constants = {
        "true": np.asarray(True),
        "start": np.zeros((300, 300), np.float32),
        "one": np.ones((), np.float32),
    }
    return make_model([loop], {"x": ("N", 3)}, ["y"], constants)


def sparse(count: int) -> onnx.ModelProto:
    """Products with sparse matrices of (4, 4), 64 bytes each."""
    names = ["x", *(f"t{index}" for index in range(count))]
    nodes = [
        helper.make_node("MatMul", [names[index], f"w{index}"], [names[index + 1]]) for index in range(count)
    ]
    model = make_model(nodes, {"x": ("N", 4)}, names[-1:])
    for index in range(count):
        values = numpy_helper.from_array(np.ones(2, np.float32), f"w{index}")
        places = numpy_helper.from_array(np.array([0, 5]), f"w{index}_places")
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4, 4]))
    return model


EXCEEDED = {
    "time of a loop that is counted": (
        counting(doubles=False),
        Limits(seconds=1),
        "seconds",
        "iterations of a loop",
        "'y'",
    ),
    "time of a large graph": (doubling(12), Limits(seconds=0.05), "seconds", "", ""),
    "memory of a loop that is counted": (
        counting(doubles=True),
        Limits(bytes=2**25, seconds=60),
        "bytes",
        "iterations of a loop",
        "'y'",
    ),
    "bytes of sparse constants together": (
        sparse(4),
        Limits(bytes=200),
        "bytes",
        "sparse constant",
        "'w3'; 256 are",
    ),
    "nodes of functions": (
        doubling(8),
        Limits(nodes=254),
        "nodes",
        "functions of the model",
        "255 are needed",
    ),
    "nodes of functions, by default": (doubling(40), None, "100,000 nodes", "functions of the model", ""),
}


@pytest.mark.parametrize("name", EXCEEDED)
def test_a_limit_that_is_reached_is_named_with_its_step_and_its_fix(name: str) -> None:
    model, limits, resource, step, place = EXCEEDED[name]
    load(doubling(1))  # What is imported then takes no time of the limit.
    begun = time.monotonic()
    with pytest.raises(LimitExceeded) as raised:
        load(model, limits=limits, verify=False, run=False)
    assert time.monotonic() - begun < 15
    text = str(raised.value)
    assert "\n" not in text and resource in text and step in text and place in text
    kind = resource.rpartition(" ")[2]
    assert f"Limits({kind}=" in text and f"--limits {kind}=" in text


def test_what_the_error_proposes_is_enough() -> None:
    with pytest.raises(LimitExceeded, match=r"Limits\(nodes=255\)"):
        load(doubling(8), limits=Limits(nodes=254))
    assert ops(load(doubling(8), limits=Limits(nodes=255)).proto) == {"Relu": 1}


def folded(model: onnx.ModelProto, limits: Limits) -> int:
    """The bytes of the constants of a canonical form that have more than two elements."""
    with limited(limits):
        found = canonicalise(model, dynamic_batch=False)
    x, ids = normal(5, 1), np.arange(5)
    np.testing.assert_allclose(*(run(one, {"x": x, "ids": ids})[0] for one in (model, found)), rtol=1e-6)
    return sum(len(t.raw_data) for t in found.graph.initializer if max(t.dims, default=0) > 2)


def test_constants_of_all_rounds_draw_on_one_budget() -> None:
    """Each of 8 constants takes 4 KB, and three intermediate results of that size."""
    model = constant_sums(8)
    whole = folded(model, Limits())
    assert whole > 8 * 3900
    assert 0 < folded(model, Limits(bytes=20_000)) <= 20_000
    assert folded(model, Limits(bytes=3_000)) == 0


def test_a_product_of_constants_that_takes_too_long_is_left_for_run_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("converters.passes.constants.LARGEST_PRODUCT", 8 * 8 * 8 - 1)
    constants = {"a": normal(8, 8), "b": normal(8, 8, seed=1), "small": normal(7, 8, seed=2)}
    for factor, left in (("a", 1), ("small", 0)):
        product = helper.make_node("MatMul", [factor, "b"], ["w"])
        model = make_model(
            [product, helper.make_node("Sub", ["x", "w"], ["y"])], {"x": ("N", 8, 8)}, ["y"], constants
        )
        if factor == "small":
            model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7
        assert ops(canonicalise(model))["MatMul"] == left


def test_time_is_checked_while_constants_are_computed() -> None:
    constants = {"a": normal(1024, 1024), "b": normal(1024, 1024, seed=1)}
    nodes = [helper.make_node("MatMul", [f"m{i - 1}" if i else "a", "b"], [f"m{i}"]) for i in range(400)]
    nodes.append(helper.make_node("Add", ["x", "m399"], ["y"]))
    model = make_model(nodes, {"x": ("N", 1024, 1024)}, ["y"], constants)
    begun = time.monotonic()
    with pytest.raises(LimitExceeded, match=r"computing constants, at node 'm399' .MatMul"):
        load(model, limits=Limits(seconds=0.5, bytes=2**33), verify=False)
    assert time.monotonic() - begun < 10


def test_a_preparation_inside_another_draws_on_the_same_budget() -> None:
    from converters.budget import current, preparing

    with limited(Limits(nodes=10)), preparing(doubling(2)) as outer:
        with preparing(doubling(2)) as inner:
            assert inner is outer is current()
        current().take_nodes(6, "a step")
        with pytest.raises(LimitExceeded, match="10 nodes, which ran out in another step; 11 are needed"):
            current().take_nodes(5, "another step")
    assert current().nodes_left == 100_000


def _work(seconds: float) -> None:
    """Take so many seconds of the processor."""
    begun = time.process_time()
    while time.process_time() < begun + seconds:
        pass


def test_time_in_which_the_model_itself_runs_is_not_counted() -> None:
    budget = Budget(Limits(seconds=0.05), 0, 0)
    with budget.uncounted():
        _work(0.1)
    budget.check("a step")
    # Waiting takes no processor, as on a machine that is busy with other work.
    time.sleep(0.1)
    budget.check("a step")
    _work(0.06)
    with pytest.raises(LimitExceeded, match=r"0\.05 seconds, which ran out in a step"):
        budget.check("a step")


def test_defaults_grow_with_the_file() -> None:
    small, large = Budget(Limits(), 1, 100), Budget(Limits(), 40_000, 2**30)
    assert small.seconds < 11 and large.seconds > 200
    # A transformer of 1 GiB may store every weight once more, transposed.
    assert large.bytes_left - BYTES >= 2**30
    # VGG-19, whose weights are computed by ConstantOfShape in the files of the standard.
    assert small.bytes_left >= 4 * 143_667_240


def test_limits_are_above_zero() -> None:
    for limits in ({"seconds": 0}, {"bytes": -1}, {"nodes": 0}, {"seconds": float("nan")}):
        with pytest.raises(ConversionError, match="above 0"):
            Limits(**limits)


def test_convert_takes_limits() -> None:
    with pytest.raises(LimitExceeded, match="nodes"):
        convert(doubling(8), normal(2, 3), limits=Limits(nodes=10))


def test_values_of_long_vectors_are_not_followed_by_shape_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    followed = []
    infer = onnx.shape_inference.infer_shapes

    def noted(proto: onnx.ModelProto, **options: bool) -> onnx.ModelProto:
        followed.append(options.get("data_prop", False))
        return infer(proto, **options)

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", noted)
    constants = {"one": np.ones(1, np.float32)}
    for size, expected in ((LONGEST + 1, False), (LONGEST, True)):
        followed.clear()
        constants["size"] = np.array([size], np.int64)
        nodes = [
            helper.make_node("Expand", ["one", "size"], ["e"]),
            helper.make_node("Gather", ["e", "ids"], ["g"]),
            helper.make_node("Add", ["x", "g"], ["y"]),
        ]
        model = make_model(nodes, {"x": ("N",), "ids": ("N",)}, ["y"], constants, integers=["ids"])
        with limited(Limits(bytes=1000)):
            canonicalise(model)
        assert any(followed) is expected


def nodes_of_long_vector(maker: str) -> list[onnx.NodeProto]:
    """A vector as long as `large` times the rank of x, which a followed op reads."""
    zero = numpy_helper.from_array(np.zeros(1, np.int64))
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Size", ["shape"], ["rank"]),
        helper.make_node("Mul", ["rank", "large"], ["length"]),
        helper.make_node("Unsqueeze", ["length", "0"], ["size"]),
        helper.make_node(maker, ["1", "size"], ["long"]),
        helper.make_node("Concat", ["long", "0"], ["longer"], axis=0),
        helper.make_node("Reshape", ["x", "longer"], ["y"]),
    ]
    if maker == "ConstantOfShape":
        nodes[4] = helper.make_node(maker, ["size"], ["long"], value=zero)
    return nodes


@pytest.mark.parametrize("maker", ["ConstantOfShape", "Expand"])
@pytest.mark.parametrize("inside", [False, True], ids=["graph", "branch"])
def test_the_length_of_a_vector_is_found_before_its_values_are_followed(maker: str, inside: bool) -> None:
    nodes = nodes_of_long_vector(maker)
    constants = {"large": np.array(2**20), "0": np.array([0]), "1": np.array([1])}
    if inside:
        result = helper.make_empty_tensor_value_info("y")
        other = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "other", [], [result])
        held = [numpy_helper.from_array(array, name) for name, array in constants.items()]
        body = helper.make_graph(nodes, "body", [], [result], held)
        nodes = [helper.make_node("If", ["condition"], ["y"], then_branch=body, else_branch=other)]
    model = make_model(nodes, {"x": ("N", 3), "condition": ()}, ["y"], {} if inside else constants)
    model.graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.BOOL
    graph = inferred_of(model).graph
    graph = graph.node[0].attribute[1].g if inside else graph
    sizes = {info.name: info.type.tensor_type.shape.dim for info in graph.value_info}
    # The length is a value, too, so that a graph without values leaves it open.
    assert not any(dim.dim_value for dim in sizes["longer"])


def test_values_behind_a_vector_of_unknown_length_are_followed() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Size", ["shape"], ["rank"]),
        helper.make_node("Unsqueeze", ["rank", "0"], ["size"]),
        helper.make_node("Expand", ["4", "size"], ["fours"]),
        helper.make_node("Concat", ["fours", "4"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    model = make_model(nodes, {"x": ("N", 3)}, ["y"], {"0": np.array([0]), "4": np.array([4])})
    sizes = {info.name: info.type.tensor_type.shape.dim for info in inferred_of(model).graph.value_info}
    assert [dim.dim_value for dim in sizes["target"]] == [3]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


@pytest.mark.parametrize("make", [pipe, device, listening])
@pytest.mark.parametrize("suffix", [".onnx", ".keras", ".pt2", ".pb"])
def test_a_path_that_is_no_file_is_not_opened(
    make: Callable[[Path], None], suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"m{suffix}"
    make(path)
    with pytest.raises(InvalidModel, match=r"a pipe, a device or a socket\. Fix: write the model to a file"):
        load(path)
    with pytest.raises(InvalidModel, match="a pipe, a device or a socket"):
        convert(path)


def test_a_file_that_is_too_large_for_protobuf_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(InvalidModel, match=r"at most 2 GiB, found 2,147,483,648 bytes. Fix: .*external"):
        load(path)


def test_weights_that_lie_in_one_place_count_each_time(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(np.ones((4, 4), np.float32).tobytes())
    count = 5
    names = ["x", *(f"t{index}" for index in range(count))]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]]) for i in range(count)]
    model = make_model(nodes, {"x": ("N", 4)}, names[-1:])
    for index in range(count):
        tensor = model.graph.initializer.add(name=f"w{index}", data_type=TensorProto.FLOAT, dims=[4, 4])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    x = normal(2, 4)
    expected = x @ np.linalg.matrix_power(np.ones((4, 4), np.float32), count)
    np.testing.assert_allclose(run(load(path).proto, {"x": x})[0], expected, rtol=1e-5)
    with pytest.raises(
        LimitExceeded, match=r"200 bytes, which ran out in reading weights .* at 'w4'; 256 are needed"
    ):
        load(path, limits=Limits(bytes=200))


def test_a_model_that_runs_for_too_long_on_noise_is_loaded_and_compared_when_it_is_explained() -> None:
    """300 products of 600² matrices: the batch stays fixed, and nothing is compared yet."""
    w = helper.make_node("Identity", ["x"], ["h0"])
    nodes = [w, *(helper.make_node("MatMul", [f"h{i}", f"h{i}"], [f"h{i + 1}"]) for i in range(300))]
    model = make_model(nodes, {"x": (1, 600, 600)}, ["h300"])
    load(doubling(1))
    begun = time.monotonic()
    loaded = load(model, limits=Limits(seconds=1))
    assert time.monotonic() - begun < 8
    assert loaded.verification is None
    assert loaded.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


@pytest.mark.parametrize(
    ("held", "weights", "computed", "most"),
    [
        (1, 0, 2**24 + 64, None),
        (1, 0, 2**24 + 65, "0.0625 GiB"),
        (2**20, 0, 2**24 + 2**26, None),
        (2**20, 0, 2**24 + 2**26 + 1, "0.312 GiB"),
        (1, 2**20, 2**24 + 2**26 + 64, None),
        (2**26, 0, 2**30, None),
        (2**26, 0, 2**30 + 1, "4 GiB"),
        (2**27 + 1, 0, 1, "0.5 GiB"),
    ],
)
def test_what_is_run_to_verify_is_bounded_by_what_the_model_holds(
    held: int, weights: int, computed: int, most: str | None
) -> None:
    """A model of little weights and inputs may compute 64 MiB, and a larger one 64 times its bytes, up to 4 GiB."""
    stated = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", held])
    found = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", computed])
    graph = helper.make_graph([], "g", [stated], [found])
    graph.initializer.add(name="w", dims=[weights], data_type=TensorProto.FLOAT)
    if most is None:
        return refuse_oversized(helper.make_model(graph))
    with pytest.raises(UnsupportedModel, match=f"at most {most} .*GiB.*--no-verify"):
        refuse_oversized(helper.make_model(graph))
    return None
