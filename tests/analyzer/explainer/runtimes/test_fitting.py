"""The kernel tables: missing ops are listed, replaced by plain forms, or refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from analyzer.errors import ExportError
from analyzer.explainer.runtimes import RUNTIMES, fit, missing
from analyzer.explainer.runtimes.kernels import table
from analyzer.explainer.runtimes.opset import checked
from converters.graph.runtime import run

NEWEST = onnx.defs.onnx_opset_version()


def _proto(text: str, opset: int = 21) -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]> g {text}')


def _ops(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


MIXED = _proto("""(float[N, 4] x, float[N, 4] z) => (float[N, 4] y, bool[N, 4] b) {
    s = Sum (x, z, x)
    m = Max (s, z)
    n = Min (m, x)
    g = Sign (n)
    p = Greater (x, z)
    q = Less (x, s)
    b = Or (p, q)
    y = Mul (g, m)
}""")
INT64 = _proto("""(float[2, 3] x, int64[N] t) => (float[6] y, int64[N] u)
    <int64[1] one = {1}> {
        shape = Shape (x)
        size = ReduceProd <keepdims = 1> (shape)
        y = Reshape (x, size)
        u = Add (t, one)
    }""")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_names_a_table_with_its_version_and_source(runtime: str) -> None:
    chosen = RUNTIMES[runtime]
    for name in filter(None, (chosen.table, chosen.accelerated)):
        found = table(name)
        assert found["version"].count(".") == 2 and found["source"]
        for op_type, entries in found["kernels"].items():
            assert onnx.defs.has(op_type) or op_type not in ("Relu", "Conv"), op_type
            assert all(last is None or first <= last for first, last, _ in entries)
        assert {"Conv", "MatMul", "Softmax", "ReduceSum"} <= found["kernels"].keys()


@pytest.mark.parametrize("runtime", ["node", "web", "mobile"])
def test_cpu_runtimes_run_the_model_as_it_is(runtime: str) -> None:
    assert missing(MIXED, runtime) == []
    assert fit(MIXED, runtime).graph.node == MIXED.graph.node


@pytest.mark.parametrize("runtime", ["webgpu", "webgpu-jsep"])
def test_webgpu_gets_plain_forms_of_the_same_values(runtime: str) -> None:
    listed = {one.op: one for one in missing(MIXED, runtime)}
    assert listed.keys() == {"Sum", "Max", "Min", "Sign", "Or"}
    for one in listed.values():
        assert (one.count, one.lowered, one.runs) == (1, True, True)
        assert RUNTIMES[runtime].label in one.why and "on the CPU, with copies" in one.why
    before = MIXED.SerializeToString()
    fitted = fit(MIXED, runtime)
    assert MIXED.SerializeToString() == before
    checked(fitted)
    assert missing(fitted, runtime) == []
    rng = np.random.default_rng(5)
    x, z = (rng.integers(-3, 3, (5, 4)).astype(np.float32) for _ in range(2))
    for one, other in zip(run(MIXED, {"x": x, "z": z}), run(fitted, {"x": x, "z": z}), strict=True):
        np.testing.assert_array_equal(one, other)


def test_sizes_become_constants_and_other_int64_stays_on_the_cpu() -> None:
    fitted = fit(INT64, "webgpu")
    assert sorted(_ops(fitted)) == ["Add", "Constant", "Reshape"]
    (left,) = missing(fitted, "webgpu")
    assert (left.op, left.lowered, left.runs) == ("Add", False, True) and "int64 on the CPU" in left.why
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "t": np.asarray([4, 5])}
    for one, other in zip(run(INT64, feeds), run(fitted, feeds), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_older_table_lacks_scattering_and_the_newer_one_has_it() -> None:
    proto = _proto("""(float[N, 4] x, int64[N, 2] i, float[N, 2] u) => (float[N, 4] y)
        { y = ScatterElements <axis = 1, reduction = "add"> (x, i, u) }""")
    assert missing(proto, "webgpu") == []
    assert [one.op for one in missing(proto, "webgpu-jsep")] == ["ScatterElements"]
    fitted = fit(proto, "webgpu-jsep")
    assert "ScatterElements" not in _ops(fitted) and "ScatterND" in _ops(fitted)
    feeds = {
        "x": np.zeros((2, 4), np.float32),
        "i": np.asarray([[0, -1], [2, 2]]),
        "u": np.asarray([[1, 2], [3, 4]], np.float32),
    }
    assert run(fitted, feeds)[0].tolist() == [[1, 0, 0, 2], [0, 0, 7, 0]]


def test_webgpu_takes_ops_at_the_opset_that_it_knows() -> None:
    """Cos of opset 22 has no WebGPU kernel, though Cos of opset 21 has."""
    proto = _proto("(float[N] x) => (float[N] y) { y = Cos (x) }", opset=23)
    (one,) = missing(proto, "webgpu")
    assert (one.op, one.lowered, one.runs) == ("Cos", True, True)
    fitted = fit(proto, "webgpu")
    assert fitted.opset_import[0].version == 21 and missing(fitted, "webgpu") == []


def test_a_newer_opset_than_the_runtime_knows_comes_down() -> None:
    proto = _proto("(float[N] x) => (float[N] y) { y = Cos (x) }", opset=NEWEST)
    assert fit(proto, "node").opset_import[0].version == min(NEWEST, RUNTIMES["node"].opset)


def test_float64_runs_on_the_cpu_on_webgpu() -> None:
    proto = _proto("(float[N] x) => (double[N] y) { y = Cast <to = 11> (x) }")
    (one,) = missing(proto, "webgpu")
    assert one.runs and not one.lowered and "float64 on the CPU" in one.why


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_what_no_kernel_computes_is_refused(runtime: str) -> None:
    proto = _proto(
        """(int64[3] x, bool c) => (int64[3] y) {
        z = Add (x, x)
        y = If (c) <then_branch = t () => (int64[3] a) { [inner] a = Softmax (z) },
                    else_branch = e () => (int64[3] b) { b = Neg (z) }>
    }""".replace("Softmax", "BitwiseNot")
    )
    assert all(one.runs for one in missing(proto, runtime))
    unknown = _proto(
        "(double[1, 2, 4, 4] x) => (double[1, 2, 2, 2] y) { [pool] y = LpPool <kernel_shape = [3, 3]> (x) }"
    )
    (one,) = (one for one in missing(unknown, runtime) if not one.runs)
    assert (one.op, one.nodes, one.lowered) == ("LpPool", ("pool",), False)
    with pytest.raises(ExportError, match=r"LpPool \(1 node, first 'pool'\).*no kernel.*double.*Fix: "):
        fit(unknown, runtime)


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(ExportError, match=r"expected one of node, web, .*got 'phone'"):
        missing(MIXED, "phone")


def test_volumes_are_convolved_on_webgpu_in_a_form_that_runs() -> None:
    """The provider takes a ConvTranspose of volumes, and fails when it runs; the older one fails on Conv, too."""
    runtime = "webgpu"
    proto = _proto("""(float[N, 2, 3, 3, 3] x, float[2, 1, 2, 2, 2] w) => (float[N, 1, A, B, C] y)
        { y = ConvTranspose <strides = [2, 2, 2]> (x, w) }""")
    (one,) = missing(proto, runtime)
    assert (one.op, one.lowered, one.runs) == (
        "ConvTranspose",
        True,
        False,
    ) and "fails when it runs" in one.why
    fitted = fit(proto, runtime)
    assert "ConvTranspose" not in _ops(fitted) and all(one.runs for one in missing(fitted, runtime))
    rng = np.random.default_rng(4)
    feeds = {"x": rng.normal(size=(2, 2, 3, 3, 3)), "w": rng.normal(size=(2, 1, 2, 2, 2))}
    feeds = {name: array.astype(np.float32) for name, array in feeds.items()}
    np.testing.assert_allclose(run(fitted, feeds)[0], run(proto, feeds)[0], rtol=2e-6, atol=1e-6)
    plane = _proto(
        "(float[N, 2, 3, 3] x, float[2, 1, 2, 2] w) => (float[N, 1, 4, 4] y) { y = ConvTranspose (x, w) }"
    )
    assert missing(plane, runtime) == [] and _ops(fit(plane, runtime)) == ["ConvTranspose"]
    with pytest.raises(ExportError, match=r"JSEP\) cannot run the explainer: Conv \(1 node"):
        fit(proto, "webgpu-jsep")


TRAPS = {
    "MaxPool": """(float[N, 2, 4, 4] x) => (float[N, 2, 2, 2] y, int64[N, 2, 2, 2] i)
        { y, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x) }""",
    "MatMul": "(float[N, 3, 4] x, float[4] v) => (float[N, 3] y) { y = MatMul (x, v) }",
}


@pytest.mark.parametrize("op_type", TRAPS)
def test_a_node_that_webgpu_computes_wrongly_gets_a_form_that_runs(op_type: str) -> None:
    proto = _proto(TRAPS[op_type])
    (one,) = missing(proto, "webgpu")
    assert (one.op, one.lowered, one.runs) == (op_type, True, False)
    fitted = fit(proto, "webgpu")
    assert all(one.runs for one in missing(fitted, "webgpu"))
    assert missing(proto, "web") == []
    shapes = {"x": (2, 2, 4, 4) if op_type == "MaxPool" else (2, 3, 4), "v": (4,)}
    feeds = {
        info.name: np.random.default_rng(6).integers(-2, 3, shapes[info.name]) for info in proto.graph.input
    }
    feeds = {name: array.astype(np.float32) for name, array in feeds.items()}
    for found, expected in zip(run(fitted, feeds), run(proto, feeds), strict=True):
        np.testing.assert_array_equal(found, expected)


REFUSED = {
    "smoothing": """(float[1, 1, 4, 4] x) => (float[1, 1, 2, 2] y) <float[4] s = {1, 1, 0.5, 0.5}>
        { y = Resize <mode = "linear", antialias = 1> (x, , s) }""",
    "a smaller image": """(float[1, 1, 4, 4] x) => (float[1, 1, 2, 2] y) <float[4] s = {1, 1, 0.5, 0.5}>
        { y = Resize <mode = "linear", coordinate_transformation_mode = "align_corners"> (x, , s) }""",
    "an image of unknown size": """(float[1, 1, A, B] x, int64[4] s) => (float[1, 1, C, D] y)
        { y = Resize <mode = "linear", coordinate_transformation_mode = "align_corners"> (x, , , s) }""",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_node_that_webgpu_computes_wrongly_is_refused_without_a_form(name: str) -> None:
    proto = _proto(REFUSED[name])
    with pytest.raises(ExportError, match=r"Resize \(1 node, first .*(aligns corners|antialias=1).*Fix: "):
        fit(proto, "webgpu")
    assert fit(proto, "web").graph.node == proto.graph.node


LARGER = {
    "scales": '<float[4] s = {1, 1, 2, 2}> { y = Resize <mode = "linear", coordinate_transformation_mode = '
    '"align_corners"> (x, , s) }',
    "sizes of two axes, of any number of samples": '<int64[2] s = {8, 8}> { y = Resize <mode = "linear", axes = '
    '[2, -1], coordinate_transformation_mode = "align_corners"> (x, , , s) }',
}


@pytest.mark.parametrize("name", LARGER)
def test_a_larger_image_is_computed_on_webgpu(name: str) -> None:
    proto = _proto(f"(float[N, 1, 4, 8] x) => (float[M, 1, 8, 8] y) {LARGER[name]}".replace("2, 2}", "2, 1}"))
    assert missing(proto, "webgpu") == [] and _ops(fit(proto, "webgpu")) == ["Resize"]


def test_a_type_that_only_the_gpu_computes_stays_there() -> None:
    proto = _proto("(bool[N] c, uint32[N] x, uint32[N] z) => (uint32[N] y) { y = Where (c, x, z) }")
    assert missing(proto, "webgpu") == []
    (one,) = missing(proto, "web")
    assert (one.op, one.runs) == ("Where", False)
