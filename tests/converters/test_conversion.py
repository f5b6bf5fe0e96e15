"""Files: what is read, what survives saving, and one clear line for everything that is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.external_data_helper import convert_model_to_external_data

from converters import (
    ConversionError,
    InvalidModel,
    LimitExceeded,
    MissingFramework,
    Model,
    Preprocessing,
    convert,
    load,
)
from converters.sources.frameworks import import_framework
from tests.converters.helpers import make_model, normal, ops, run

DENSE = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Relu", ["z"], ["y"])]


def dense() -> onnx.ModelProto:
    return make_model(DENSE, {"x": ("n", 4)}, ["y"], {"w": normal(4, 300)})


def test_a_model_is_loaded_from_a_proto_a_path_and_a_model(tmp_path: Path) -> None:
    onnx.save(dense(), tmp_path / "m.onnx")
    model = load(tmp_path / "m.onnx")
    assert load(model) is model
    for other in (load(str(tmp_path / "m.onnx")), load(dense())):
        assert other.proto == model.proto


def test_preprocessing_and_class_names_survive_saving(tmp_path: Path) -> None:
    preprocessing = Preprocessing((8, 9), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "NHWC", 10)
    model = convert(dense(), preprocessing=preprocessing, class_names=["cat", "cüp"])
    again = load(model.save(tmp_path / "m.onnx"))
    assert again.preprocessing == preprocessing
    assert again.class_names == ("cat", "cüp")
    assert again.proto == model.proto


def test_metadata_of_the_given_file_is_kept() -> None:
    model = dense()
    helper.set_model_props(model, {"author": "someone"})
    assert load(model).metadata["author"] == "someone"


def test_a_saved_model_with_layers_kept_apart_is_loaded_so(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"])]
    nodes += [helper.make_node("BatchNormalization", ["z", "one", "one", "one", "one"], ["y"])]
    proto = make_model(
        nodes, {"x": ("n", 4, 3, 3)}, ["y"], {"w": normal(6, 4, 1, 1), "one": np.ones(6, np.float32)}
    )
    apart = load(convert(proto, fold_batch_norm=False).save(tmp_path / "m.onnx")).proto
    assert "BatchNormalization" in ops(apart)
    # A file whose graph was edited after it was marked is brought to the form again, in the same manner.
    apart.graph.node.append(helper.make_node("Identity", ["y"], ["z2"], name="late"))
    apart.graph.output[0].name = "z2"
    edited = load(apart).proto
    assert ops(edited) == {"Conv": 1, "BatchNormalization": 1}
    assert edited.graph.output[0].name == "z2"


def test_weights_beside_the_model_are_loaded(tmp_path: Path) -> None:
    onnx.save(
        dense(), tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    feeds = {"x": normal(2, 4)}
    np.testing.assert_allclose(
        run(load(tmp_path / "m.onnx").proto, feeds)[0], run(dense(), feeds)[0], rtol=1e-6
    )


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "sub/../../secret.bin"])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 4800)
    model = dense()
    convert_model_to_external_data(model, location="weights.bin", size_threshold=0)
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].external_data[0].value = location
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModel, match="outside the model's folder"):
        load(folder / "m.onnx")


def test_a_link_that_leads_outside_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    onnx.save(
        dense(), folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    (folder / "weights.bin").rename(tmp_path / "elsewhere.bin")
    (folder / "weights.bin").symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(InvalidModel, match="outside the model's folder"):
        load(folder / "m.onnx")


def test_weights_that_end_early_are_refused(tmp_path: Path) -> None:
    onnx.save(
        dense(), tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    (tmp_path / "weights.bin").write_bytes(b"\0" * 100)
    with pytest.raises(InvalidModel, match=r"weights\.bin"):
        load(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"this is a text file, and no model\n", "not an ONNX model"),
        (b"", "not an ONNX model"),
        (dense().SerializeToString()[:-700], "truncated"),
    ],
    ids=["text", "empty", "truncated"],
)
def test_a_file_that_is_no_model_is_refused_in_one_line(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    for read in (load, convert):
        with pytest.raises(InvalidModel, match=expected) as caught:
            read(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="does not exist"):
        load(tmp_path / "none.onnx")
    with pytest.raises(InvalidModel, match="folder"):
        load(tmp_path)
    for name in ("none.onnx", "none.pt2", "none.keras", "none"):
        with pytest.raises(InvalidModel, match="does not exist"):
            convert(tmp_path / name)


def test_an_inconsistent_graph_is_refused() -> None:
    model = make_model(DENSE, {"x": ("n", 5)}, ["y"], {"w": normal(4, 3)})
    with pytest.raises(InvalidModel):
        load(model)
    with pytest.raises(InvalidModel):
        convert(model)


def test_things_that_are_no_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="expected a model, got dict"):
        convert({"not": "a model"})
    with pytest.raises(ConversionError, match="neither a file nor a factory"):
        convert("no_such_module:factory")
    (tmp_path / "model.xyz").write_bytes(b"x")
    with pytest.raises(InvalidModel, match="no known kind"):
        convert(tmp_path / "model.xyz")
    (tmp_path / "model.tflite").write_bytes(b"x")
    with pytest.raises(InvalidModel, match="Fix: convert the Keras model or SavedModel"):
        convert(tmp_path / "model.tflite")


def factory() -> tuple[onnx.ModelProto, np.ndarray]:
    return dense(), normal(2, 4)


def test_a_factory_gives_a_model_and_its_example() -> None:
    model = convert("tests.converters.test_conversion:factory")
    assert isinstance(model, Model) and model.verification is not None


def test_an_example_with_wrong_names_is_refused() -> None:
    with pytest.raises(ConversionError, match="inputs are"):
        convert(dense(), {"image": normal(2, 4)})


def test_a_missing_framework_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingFramework, match=r'pip install "onnxplain\[torch\]"'):
        import_framework("torch")


def test_importing_the_package_and_loading_a_file_loads_no_framework(tmp_path: Path) -> None:
    onnx.save(dense(), tmp_path / "m.onnx")
    program = (
        "import sys, converters; converters.convert(sys.argv[1]);"
        "found = {'torch', 'tensorflow', 'keras', 'tf2onnx'} & set(sys.modules);"
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "m.onnx")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def doubling(depth, circle=False):
    """A model whose call stands for 2^depth nodes; in a circle, its last function calls the first."""
    functions = []
    for level in range(depth):
        last = level == depth - 1
        inner = ("f0" if circle else "Relu") if last else f"f{level + 1}"
        domain = "" if last and not circle else "own"
        body = [
            onnx.helper.make_node(inner, ["x"], ["h"], domain=domain),
            onnx.helper.make_node(inner, ["h"], ["y"], domain=domain),
        ]
        opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("own", 1)]
        functions.append(onnx.helper.make_function("own", f"f{level}", ["x"], ["y"], body, opsets))
    infos = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 3]) for name in "xy"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("f0", ["x"], ["y"], domain="own")], "g", infos[:1], infos[1:]
    )
    return onnx.helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10)


def test_functions_that_stand_for_too_many_nodes_are_refused_at_once():
    assert sum(node.op_type == "Relu" for node in load(doubling(5)).proto.graph.node) == 1
    with pytest.raises(
        LimitExceeded, match=r"100,000 nodes, which .* the functions of the model; 1,099,511,627,775"
    ):
        load(doubling(40))
    with pytest.raises(InvalidModel, match="more than 64 deep"):
        load(doubling(80))
    with pytest.raises(InvalidModel, match=r"calls itself|cycl|recurs"):
        load(doubling(3, circle=True))


def relu_with(**changes):
    """A file of one Conv whose fields are changed: attribute, name, data, constant or opset."""
    weight = helper.make_tensor(
        "w", onnx.TensorProto.FLOAT, [1, 1, 1, 1], np.ones(1, np.float32).tobytes(), raw=True
    )
    node = helper.make_node("Conv", ["x", "w"], ["y"], **changes.get("attributes", {}))
    nodes = [node, *([onnx.NodeProto(op_type="Constant", output=["c"])] if changes.get("constant") else [])]
    infos = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 1, 2, 2]) for name in "xy"]
    if "data" in changes:
        weight.raw_data = changes["data"]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    proto.opset_import[0].version = changes.get("opset", 21)
    if "type" in changes:
        proto.graph.node[0].attribute.add(name="group", i=1).type = changes["type"]
    data = proto.SerializeToString()
    return onnx.ModelProto.FromString(data.replace(b"Conv", changes.get("name", b"Conv")))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attributes": {"auto_pad": "sideways"}}, "'auto_pad' to be one of NOTSET, .*, got 'sideways'"),
        ({"attributes": {"auto_pad": b"\xff"}}, "'auto_pad' is not UTF-8"),
        ({"type": onnx.AttributeProto.TENSOR}, "'group' has no value of its type"),
        ({"data": b"123"}, "'w' is damaged .3 bytes of data for 4"),
        ({"constant": True}, "expected one value, got 0"),
        ({"opset": 2**40}, "an opset version of 'ai.onnx' from 1 on"),
        ({"name": b"Co\xffv"}, "is not UTF-8 text"),
    ],
    ids=["word", "text", "kind", "data", "constant", "opset", "name"],
)
def test_a_field_that_is_wrong_is_named(changes, words):
    assert load(relu_with()).proto.graph.node
    with pytest.raises(InvalidModel, match=words) as caught:
        load(relu_with(**changes))
    assert "Fix:" in str(caught.value) and "\n" not in str(caught.value)


def texts_of(proto):
    """Set a text in fields of a model that no op reads; return the texts."""
    graph, info = proto.graph, proto.graph.input[0]
    proto.producer_name, proto.producer_version, proto.domain, proto.doc_string = "@1@", "@2@", "@3@", "@4@"
    proto.metadata_props.add(key="@5@", value="@6@")
    graph.name, graph.doc_string, graph.node[0].doc_string, graph.initializer[0].doc_string = (
        f"@{number}@" for number in range(7, 11)
    )
    info.doc_string, info.type.denotation = "@11@", "@12@"
    info.type.tensor_type.shape.dim[0].denotation = "@13@"
    proto.functions.add(name="@14@", domain="@15@", doc_string="@16@")
    return [f"@{number}@" for number in range(1, 17)]


def test_a_text_that_is_not_utf_8_is_named_in_every_field(tmp_path):
    proto = relu_with()
    for text in texts_of(proto):
        data = proto.SerializeToString().replace(text.encode(), b"\xe5" + text.encode()[1:])
        with pytest.raises(InvalidModel, match=r"the field model\..* is not UTF-8 text, got b'\\xe5"):
            load(onnx.ModelProto.FromString(data))
    graph = proto.graph
    graph.initializer[0].external_data.add(key="location", value="@17@")
    graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString().replace(b"@17@", b"\xe517@"))
    with pytest.raises(InvalidModel, match=r"model\.graph\.initializer.* is not UTF-8 text"):
        load(path)
