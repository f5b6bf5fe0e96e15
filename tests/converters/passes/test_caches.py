"""Caches of keys and values are left out of decoders, and what remains is the first run of the file."""

import contextlib
import io

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import parser

import onnxplain as ox
from tests.zoo.language import HEADS, VOCABULARY, WIDTH, Cached, Decoder

CACHES = [f"past_key_values.{layer}.{kind}" for layer in range(2) for kind in ("key", "value")]


def exported(path, *, gated):
    """A decoder as optimum exports it, with its caches as inputs and outputs."""
    torch.manual_seed(3)
    net = Decoder(gated=gated).eval()
    past = [torch.randn(2, 1 if gated else HEADS, 4, WIDTH // HEADS) for _ in CACHES]
    ids, mask = torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64)
    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in ("input_ids", "position_ids", "logits")}
    axes |= {name: {0: "batch_size", 2: "past_sequence_length"} for name in CACHES}
    presents = [name.replace("past_key_values", "present") for name in CACHES]
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(
            Cached(net),
            (ids, mask, torch.arange(4, 7)[None].repeat(2, 1), *past),
            path,
            dynamo=False,
            input_names=["input_ids", "attention_mask", "position_ids", *CACHES],
            output_names=["logits", *presents],
            dynamic_axes={**axes, "attention_mask": {0: "batch_size", 1: "past_sequence_length + 1"}},
        )
    return net


@pytest.mark.parametrize("gated", [False, True])
def test_a_decoder_with_caches_is_that_of_its_first_run(tmp_path, gated):
    path = tmp_path / "model.onnx"
    net = exported(path, gated=gated)
    with pytest.warns(Warning, match="caches of an earlier run"):
        model = ox.load(path)
    assert [info.name for info in model.proto.graph.output] == ["logits"]
    shapes = {
        info.name: [axis.dim_param for axis in info.type.tensor_type.shape.dim]
        for info in model.proto.graph.input
    }
    assert set(shapes) == {"input_ids", "attention_mask", "position_ids"}
    assert all(axes == ["batch", "sequence_length"] for axes in shapes.values())
    assert not any(node.op_type == "ConstantOfShape" for node in model.proto.graph.node)
    ids = np.random.default_rng(0).integers(3, VOCABULARY, (2, 6))
    mask = np.array([[1] * 6, [1] * 4 + [0] * 2])
    feeds = {"input_ids": ids, "attention_mask": mask, "position_ids": np.maximum(mask.cumsum(1) - 1, 0)}
    with torch.no_grad():
        expected = net(torch.tensor(ids), torch.tensor(mask)).numpy()
    np.testing.assert_allclose(ox.differentiate(model).forward(feeds)["logits"], expected, atol=1e-5)


MERGED = """
<ir_version: 8, opset_import: ["" : 17]>
merged (int64[batch, length] input_ids, float[batch, 2, past_length, 3] past_key_values_0_key,
        bool[1] use_cache_branch) => (float[batch, length, 6] logits, float[batch, 2, total, 3] present_0_key)
<int64[4] apart = {0, 0, 2, 3}, int64[3] whole = {0, 0, 6}, int64 two = {2}>
{
    rows = Gather(table, input_ids)
    four = Reshape(rows, apart)
    keys = Transpose<perm = [0, 2, 1, 3]>(four)
    present_0_key = If (use_cache_branch) <
        then_branch = with_past () => (then_keys) { then_keys = Concat<axis = -2>(past_key_values_0_key, keys) },
        else_branch = without () => (else_keys) { else_keys = Mul(keys, keys) }
    >
    sizes = Shape(past_key_values_0_key)
    before = Gather(sizes, two)
    shift = Cast<to = 1>(before)
    moved = Add(present_0_key, shift)
    back = Transpose<perm = [0, 2, 1, 3]>(moved)
    logits = Reshape(back, whole)
}
"""


def test_a_merged_decoder_takes_the_branch_without_caches():
    proto = parser.parse_model(MERGED)
    table = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    ids = np.array([[1, 4, 2], [0, 3, 3]])
    with pytest.warns(Warning, match="caches of an earlier run"):
        fn = ox.differentiate(proto)
    assert fn.graph.inputs == ("input_ids",) and fn.graph.outputs == ("logits",)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    empty = {
        "past_key_values_0_key": np.zeros((2, 2, 0, 3), np.float32),
        "use_cache_branch": np.zeros(1, bool),
    }
    (expected,) = session.run(["logits"], {"input_ids": ids, **empty})
    np.testing.assert_allclose(fn.forward({"input_ids": ids})["logits"], expected, atol=1e-6)
    found = fn.gradients({"input_ids": ids}, ox.Target(index=(1, 2)))
    gradient = np.zeros((2, 3, 6), np.float32)
    gradient[:, 1, 2] = 2 * table[ids[:, 1], 2]
    np.testing.assert_allclose(next(iter(found.gradients.values())), gradient, atol=1e-6)


def counted():
    """A decoder of ONNX Runtime's own attention, which is told the number of tokens and continues caches."""
    rng = np.random.default_rng(0)
    make, kinds = onnx.helper.make_tensor_value_info, onnx.TensorProto
    cache = ["batch_size", 1, "past_sequence_length", 8]
    nodes = [
        ("Gather", ["table", "input_ids"], ["x"], {}),
        *(("MatMul", ["x", name], [f"{name}.x"], {}) for name in "qkv"),
        ("Cast", ["attention_mask"], ["kept"], {"to": kinds.INT32}),
        ("ReduceSum", ["kept", "last"], ["count"], {"keepdims": 0}),
        ("Sub", ["count", "one"], ["ends"], {}),
        ("Shape", ["attention_mask"], ["sizes"], {"start": 1}),
        ("Cast", ["sizes"], ["total"], {"to": kinds.INT32}),
        (
            "GroupQueryAttention",
            ["q.x", "k.x", "v.x", "past_key_values.0.key", "past_key_values.0.value", "ends", "total"],
            ["attended", "present.0.key", "present.0.value"],
            {"domain": "com.microsoft", "num_heads": 2, "kv_num_heads": 1},
        ),
        ("MatMul", ["attended", "head"], ["logits"], {}),
    ]
    shapes = {"table": (11, 16), "q": (16, 16), "k": (16, 8), "v": (16, 8), "head": (16, 11)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights |= {"last": np.array([1]), "one": np.array(1, np.int32)}
    rows = ["batch_size", "sequence_length"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(kind, read, made, **own) for kind, read, made, own in nodes],
        "counted",
        [
            make("input_ids", kinds.INT64, rows),
            make("attention_mask", kinds.INT64, ["batch_size", "total_sequence_length"]),
            *(make(f"past_key_values.0.{kind}", kinds.FLOAT, cache) for kind in ("key", "value")),
        ],
        [
            make("logits", kinds.FLOAT, [*rows, 11]),
            *(make(f"present.0.{kind}", kinds.FLOAT, cache) for kind in ("key", "value")),
        ],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)


def test_attention_of_the_runtime_with_empty_caches_is_the_standard_one():
    proto, ids = counted(), np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    mask = np.ones_like(ids)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    empty = {f"past_key_values.0.{kind}": np.zeros((2, 1, 0, 8), np.float32) for kind in ("key", "value")}
    (expected,) = session.run(["logits"], {"input_ids": ids, "attention_mask": mask, **empty})
    with pytest.warns(Warning, match="caches of an earlier run"):
        model = ox.load(proto)
    assert model.verification is not None
    found = ox.differentiate(model).forward({"input_ids": ids, "attention_mask": mask})
    np.testing.assert_allclose(found["logits"], expected, atol=1e-4)
