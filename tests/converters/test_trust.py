"""A file of a stranger runs no code and touches no other file, unless the user says `trust=True`.

Every attack creates a marker file in the folder of the test. `trust=True` shows that the attack works.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
import torch
from keras import layers
from onnx import TensorProto, helper
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from analyzer import check, compare, differentiate
from analyzer.testing import assert_equivalent
from converters import ConversionError, InvalidModel, UntrustedModel, convert, load
from converters.trust import refuse_saved_model
from converters.trust.pure_ops import is_pure

X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


def attempt(path: Path, marker: Path, *, works: bool = True) -> None:
    """Convert a hostile file: it is refused and leaves no marker; with trust, the attack leaves one."""
    marker.unlink(missing_ok=True)
    with pytest.raises(
        UntrustedModel, match=r"Fix: if you trust .* trust=True\), or pass --trust"
    ) as refused:
        convert(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)
    assert not marker.exists()
    if works:
        with suppress(Exception):  # What follows the attack may fail.
            convert(path, trust=True)
        assert marker.exists()


# Programs of PyTorch


class Touch:
    """An object whose unpickling creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


class Linear(torch.nn.Module):
    """A linear layer with a constant, so that every part of a .pt2 file is there."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.constant = torch.ones(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.constant


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    shapes = {"x": {0: torch.export.Dim("n")}}
    torch.export.save(torch.export.export(Linear(), (torch.zeros(2, 4),), dynamic_shapes=shapes), path)
    return path


def _pickled(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Touch(marker), buffer)
    return buffer.getvalue()


def _rewritten(program: Path, target: Path, part: str, change: Callable[[bytes], bytes]) -> None:
    with zipfile.ZipFile(program) as source, zipfile.ZipFile(target, "w") as copy:
        assert any(part in name for name in source.namelist())
        for name in source.namelist():
            content = source.read(name)
            copy.writestr(name, change(content) if part in name else content)


def _all_pickles(config: bytes) -> bytes:
    parsed = json.loads(config)
    for entry in parsed["config"].values():
        entry["use_pickle"] = True
    return json.dumps(parsed).encode()


@pytest.mark.parametrize("part", ["weights", "constants"])
def test_a_pickle_in_a_program_is_not_loaded(program: Path, tmp_path: Path, part: str) -> None:
    marker = tmp_path / "marker"
    config = json.loads(zipfile.ZipFile(program).read(f"net/data/{part}/model_{part}_config.json"))
    first = next(iter(config["config"].values()))["path_name"]
    _rewritten(program, tmp_path / "half.pt2", f"data/{part}/model_{part}_config", _all_pickles)
    _rewritten(
        tmp_path / "half.pt2", tmp_path / "net.pt2", f"data/{part}/{first}", lambda _: _pickled(marker)
    )
    attempt(tmp_path / "net.pt2", marker)


def test_example_inputs_of_a_program_are_not_loaded(program: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    _rewritten(program, tmp_path / "net.pt2", "sample_inputs", lambda _: _pickled(marker))
    attempt(tmp_path / "net.pt2", marker)


def test_an_opaque_constant_of_a_program_is_not_loaded(program: Path, tmp_path: Path) -> None:
    import pickle

    marker = tmp_path / "marker"

    def opaque(config: bytes) -> bytes:
        parsed = json.loads(config)
        for entry in parsed["config"].values():
            entry.update(path_name="opaque_obj_0", use_pickle=True, tensor_meta=None)
        return json.dumps(parsed).encode()

    _rewritten(program, tmp_path / "half.pt2", "model_constants_config", opaque)
    with zipfile.ZipFile(tmp_path / "half.pt2", "a") as archive:
        archive.writestr("net/data/constants/opaque_obj_0", pickle.dumps(Touch(marker)))
    os.rename(tmp_path / "half.pt2", tmp_path / "net.pt2")
    attempt(tmp_path / "net.pt2", marker)


def test_a_size_of_a_program_is_not_evaluated(program: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = f"__import__('pathlib').Path({str(marker)!r}).touch()"

    def hostile(model: bytes) -> bytes:
        parsed = json.loads(model)
        for value in parsed["graph_module"]["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code
        return json.dumps(parsed).encode()

    _rewritten(program, tmp_path / "net.pt2", "models/model.json", hostile)
    attempt(tmp_path / "net.pt2", marker)


def test_every_function_that_takes_a_path_takes_trust(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"trusted, but damaged")
    calls: list[Callable[..., Any]] = [
        lambda **trust: convert(path, **trust),
        lambda **trust: load(path, **trust),
        lambda **trust: differentiate(path, **trust),
        lambda **trust: check(path, X, **trust),
        lambda **trust: compare(path, path, X, **trust),
        lambda **trust: assert_equivalent(path, X, **trust),
        lambda **trust: assert_equivalent((path, path), X, **trust),
    ]
    for call in calls:
        with pytest.raises(UntrustedModel):
            call()
        with pytest.raises(InvalidModel, match=r"not a \.pt2 file") as damaged:
            call(trust=True)
        assert not isinstance(damaged.value, UntrustedModel)


# TensorFlow graphs


class Resource(tf.saved_model.experimental.TrackableResource):
    """A resource whose initialiser, which loading runs, creates a file."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.marker = marker

    def _create_resource(self) -> Any:
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=(), shared_name="r", container="")

    def _initialize(self) -> None:
        tf.io.write_file(self.marker, "initialised")


def _module(step: Callable[[Any], Any], resource: Any = None) -> Any:
    module = tf.Module()
    module.weight = tf.Variable(np.ones((4, 3), np.float32))
    module.resource = resource

    def forward(x: Any) -> Any:
        return {"y": step(x) @ module.weight}

    module.forward = tf.function(forward, input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
    return module


def _then(effect: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A step that runs an effect and returns its input."""

    def step(x: Any) -> Any:
        operation = effect(x)
        with tf.control_dependencies([operation] if operation is not None else []):
            return tf.identity(x)

    return step


def _in_function(marker: str) -> Callable[[Any], Any]:
    inner = tf.function(lambda x: _then(lambda x: tf.io.write_file(marker, "inner"))(x))
    return lambda x: tf.cond(tf.reduce_sum(x) < 1e9, lambda: inner(x), lambda: x)


def _loop(marker: str) -> Callable[[Any], Any]:
    def body(i: Any, x: Any) -> Any:
        return i + 1, _then(lambda x: tf.io.write_file(marker, "loop"))(x)

    return lambda x: tf.while_loop(lambda i, x: i < 2, body, (0, x))[1]


EFFECTS: dict[str, Callable[[str], Callable[[Any], Any]]] = {
    "WriteFile": lambda marker: _then(lambda x: tf.io.write_file(marker, "written")),
    "WriteFile in a function": _in_function,
    "WriteFile in a loop": _loop,
    "SaveV2": lambda marker: _then(
        lambda x: tf.raw_ops.SaveV2(prefix=marker, tensor_names=["x"], shape_and_slices=[""], tensors=[x])
    ),
    "PrintV2": lambda marker: _then(lambda x: tf.print("text", output_stream=f"file://{marker}")),
}
# They read, or call what the file does not hold.
READS: dict[str, Callable[[str], Callable[[Any], Any]]] = {
    "ReadFile": lambda marker: lambda x: x + tf.cast(tf.strings.length(tf.io.read_file(marker)), tf.float32),
    "MatchingFiles": lambda marker: lambda x: x + tf.cast(tf.size(tf.io.matching_files(marker)), tf.float32),
    "RestoreV2": lambda marker: (
        lambda x: (
            x
            + tf.raw_ops.RestoreV2(
                prefix=marker, tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
            )[0]
        )
    ),
    "PyFunc": lambda marker: lambda x: tf.ensure_shape(tf.numpy_function(np.sin, [x], tf.float32), (None, 4)),
    "EagerPyFunc": lambda marker: (
        lambda x: tf.ensure_shape(tf.py_function(tf.sin, [x], tf.float32), (None, 4))
    ),
    "TextLineDataset": lambda marker: (
        lambda x: x + tf.data.TextLineDataset(marker).reduce(np.float32(0), lambda total, line: total + 1)
    ),
}


def _saved(folder: Path, module: Any) -> Path:
    tf.saved_model.save(module, str(folder), signatures=module.forward)
    return folder


@pytest.mark.parametrize("name", [*EFFECTS, *READS])
def test_a_saved_model_with_an_op_that_is_not_pure_is_refused(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    step = (EFFECTS | READS)[name](str(marker))
    folder = _saved(tmp_path / "saved", _module(step))
    if name == "SaveV2":
        marker = tmp_path / "marker.index"
    attempt(folder, marker, works=name in EFFECTS)


def test_an_initialiser_of_a_saved_model_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    attempt(_saved(tmp_path / "saved", _module(tf.sin, Resource(str(marker)))), marker)


def test_a_signature_that_calls_the_saver_is_refused(tmp_path: Path) -> None:
    folder = _saved(tmp_path / "saved", _module(tf.sin))
    refuse_saved_model(str(folder))  # the saver alone is never run
    saved = SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    library = saved.meta_graphs[0].graph_def.library.function
    saver = next(one for one in library if any(node.op == "SaveV2" for node in one.node_def))
    other = next(one for one in library if any(node.op == "Sin" for node in one.node_def))
    call = other.node_def.add(name="call", op="StatefulPartitionedCall")
    call.attr["f"].func.name = saver.signature.name
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(UntrustedModel, match=r"SaveV2|MergeV2Checkpoints|ShardedFilename"):
        convert(folder)


def test_a_saved_model_with_an_unknown_op_or_a_link_is_refused(tmp_path: Path) -> None:
    folder = _saved(tmp_path / "saved", _module(tf.sin))
    (folder / "assets").rmdir()
    (folder / "assets").symlink_to(tmp_path)
    with pytest.raises(UntrustedModel, match="a link to a file outside the folder"):
        convert(folder)
    (folder / "assets").unlink()
    saved = SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    saved.meta_graphs[0].graph_def.node.add(name="own", op="OpOfAStranger")
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(UntrustedModel, match="an op that TensorFlow does not know"):
        convert(folder)


def _with_table(folder: Path, edit: Callable[[Any], None] = lambda meta_graph: None) -> str:
    """A SavedModel whose table is filled from a text file of its assets."""
    words = folder.with_suffix(".txt")
    words.write_text("a\nb\n")
    kinds = tf.lookup.TextFileIndex
    fill = tf.lookup.TextFileInitializer(str(words), tf.string, kinds.WHOLE_LINE, tf.int64, kinds.LINE_NUMBER)
    module = tf.Module()
    module.table = tf.lookup.StaticHashTable(fill, -1)
    signature = [tf.TensorSpec((None,), tf.string)]
    module.forward = tf.function(lambda x: {"y": module.table.lookup(x)}, input_signature=signature)
    _saved(folder, module)
    saved = SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    edit(saved.meta_graphs[0])
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    return str(folder)


def _initialiser(meta_graph: Any) -> Any:
    library = meta_graph.graph_def.library.function
    return next(one for one in library if any("TextFile" in node.op for node in one.node_def))


def _elsewhere(meta_graph: Any) -> None:
    meta_graph.asset_file_def[0].filename = "../../words.txt"


def _of_a_constant(meta_graph: Any) -> None:
    node = next(node for node in meta_graph.object_graph_def.nodes if node.WhichOneof("kind") == "asset")
    node.registered_name = "tf.TrackableConstant"


def _of_a_caller(meta_graph: Any) -> None:
    name = _initialiser(meta_graph).signature.name
    del meta_graph.object_graph_def.concrete_functions[name].bound_inputs[:]


def _called_by_another(meta_graph: Any) -> None:
    initialiser = _initialiser(meta_graph)
    other = next(one for one in meta_graph.graph_def.library.function if one is not initialiser)
    other.node_def.add(name="call", op="PartitionedCall").attr["f"].func.name = initialiser.signature.name


def test_a_table_is_filled_from_the_assets_of_its_model(tmp_path: Path) -> None:
    refuse_saved_model(_with_table(tmp_path / "saved"))


@pytest.mark.parametrize("edit", [_elsewhere, _of_a_constant, _of_a_caller, _called_by_another])
def test_a_table_is_filled_from_no_other_file(tmp_path: Path, edit: Callable[[Any], None]) -> None:
    folder = _with_table(tmp_path / "saved", edit)
    with pytest.raises(UntrustedModel, match="the op InitializeTableFromTextFileV2"):
        refuse_saved_model(folder)


def _saved_by_tensorflow_1(folder: Path, edit: Callable[[Any], None] = lambda meta_graph: None) -> Path:
    """y = softmax(x·w) as TensorFlow 1 saves it, with its saver in the graph."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None, 4), "x")
        y = tf.nn.softmax(x @ v1.get_variable("w", initializer=np.eye(4, 3, dtype=np.float32)))
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder), {"x": x}, {"y": y})
    saved = SavedModel()
    saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    edit(saved.meta_graphs[0])
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    return folder


def _before(name: str) -> Callable[[Any], None]:
    """Let a node of a graph run after the operation that saves, to a path of the file."""

    def edit(meta_graph: Any) -> None:
        next(node for node in meta_graph.graph_def.node if node.name == name).input.append("^save/SaveV2")

    return edit


def _as_main_operation(meta_graph: Any) -> None:
    meta_graph.collection_def["saved_model_main_op"].node_list.value.append("save/Identity")


def _of_another_path(meta_graph: Any) -> None:
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    nodes["save/RestoreV2"].input[0] = "save/filename/input"


def test_a_saved_model_of_tensorflow_1_is_converted(tmp_path: Path) -> None:
    fn = differentiate(convert(_saved_by_tensorflow_1(tmp_path / "saved")))
    logits = np.exp(X[:, :3])
    expected = logits / logits.sum(1, keepdims=True)
    np.testing.assert_allclose(next(iter(fn.forward(X).values())), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "edit", [_before("Softmax"), _before("save/restore_all"), _as_main_operation, _of_another_path]
)
def test_a_saver_of_tensorflow_1_that_loading_runs_is_refused(
    tmp_path: Path, edit: Callable[[Any], None]
) -> None:
    with pytest.raises(UntrustedModel, match=r"the op (SaveV2|ShardedFilename|RestoreV2) in the graph"):
        convert(_saved_by_tensorflow_1(tmp_path / "saved", edit))


def test_a_frozen_graph_that_writes_a_file_is_refused(tmp_path: Path) -> None:
    marker, graph = tmp_path / "marker", tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), "x")
        tf.sin(_then(lambda x: tf.io.write_file(str(marker), "frozen"))(x), name="y")
    for name in ("net.pb", "net.pbtxt"):
        tf.io.write_graph(graph, str(tmp_path), name, as_text=name.endswith("txt"))
        attempt(tmp_path / name, marker)


def test_no_op_that_names_a_file_or_a_function_of_the_process_is_pure() -> None:
    from tensorflow.core.framework.op_def_pb2 import OpList
    from tensorflow.python.client import pywrap_tf_session

    registered = OpList()
    registered.ParseFromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    pure = {one.name for one in registered.op if is_pure(one)}
    known = {one.name for one in registered.op}
    assert {
        "Conv2D",
        "MatMul",
        "While",
        "ReadVariableOp",
        "StringSplitV2",
        "Einsum",
        "TensorListStack",
    } <= pure
    hostile = {
        "Abort", "DecodeProtoV2", "DumpTensor", "EncodeProto", "FileSystemSetConfiguration",
        "FixedUnigramCandidateSampler", "GenerateVocabRemapping",
        "ImmutableConst", "LoadAndRemapMatrix", "MatchingFiles", "PyFuncStateless",
        "RemoteCall", "SleepOp", "XlaCallModule", "XlaCustomCallV2",
    }  # fmt: skip
    assert hostile <= known
    parts = "Dataset File Iterator Print Proto PyFunc Queue Reader Recv Restore Rpc Save Send Server Session Summary"
    named = {name for name in known if any(part in name for part in parts.split())}
    assert len(named) > 200
    # It summarises in numbers, for a boosted tree.
    assert pure & (hostile | named) == {"BoostedTreesMakeStatsSummary"}


def test_an_op_in_the_place_of_a_function_is_refused(tmp_path: Path) -> None:
    graph = tf.compat.v1.GraphDef()
    graph.node.add(name="x", op="Placeholder")
    graph.node.add(name="call", op="PartitionedCall").attr["f"].func.name = "WriteFile"
    (tmp_path / "net.pb").write_bytes(graph.SerializeToString())
    with pytest.raises(UntrustedModel, match="the op WriteFile"):
        convert(tmp_path / "net.pb")


def test_what_savers_optimizers_tables_and_texts_need_is_accepted(tmp_path: Path) -> None:
    words = layers.TextVectorization(max_tokens=20, output_sequence_length=4)
    words.adapt(["the cat sat", "a dog ran home"])
    inputs = keras.Input((1,), dtype="string")
    hidden = layers.GRU(3)(layers.Embedding(20, 4)(words(inputs)))
    text = keras.Model(inputs, layers.Dense(2)(layers.Dropout(0.5)(hidden)))
    text.compile("adam", "mse")
    text.fit(tf.constant([["the dog"]]), np.ones((1, 2), np.float32), verbose=0)
    tf.saved_model.save(text, str(tmp_path / "text"))
    refuse_saved_model(str(tmp_path / "text"))


# Files of Keras


def _with_layer(layer: Any) -> Any:
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(3)(layer(inputs)))


@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_a_lambda_layer_is_not_run(tmp_path: Path, name: str) -> None:
    marker = str(tmp_path / "marker")
    code = eval(f"lambda x: __import__('pathlib').Path({marker!r}).touch() or x")
    _with_layer(layers.Lambda(code)).save(tmp_path / name)
    attempt(tmp_path / name, Path(marker))


def _edited(path: Path, source: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a .keras file whose configuration of the layer "dense" is changed."""

    def change(content: bytes) -> bytes:
        config = json.loads(content)
        edit(next(one for one in config["config"]["layers"] if one["name"] == "dense"))
        return json.dumps(config).encode()

    _rewritten(source, path, "config.json", change)
    return path


HOSTILE_CONFIGS: dict[str, dict[str, Any]] = {
    "a SavedModel": {"class_name": "TFSMLayer", "config": {"name": "dense", "filepath": "elsewhere"}},
    "a pickled module": {"class_name": "TorchModuleWrapper", "config": {"name": "dense", "module": {}}},
    "a vocabulary elsewhere": {"class_name": "StringLookup", "config": {"vocabulary": "/etc/hostname"}},
    "a setting": {"module": "keras.config", "class_name": "enable_unsafe_deserialization", "config": {}},
    "a dotted class": {"module": "keras", "class_name": "layers.Lambda", "config": {}},
    "a tool of Keras": {"module": "keras.utils", "class_name": "get_file", "config": {}},
    "a list for a class": {"module": "keras.layers", "class_name": ["Lambda"], "config": {}},
    "another package": {"module": "keras_hub.models", "class_name": "Backbone", "config": {}},
}


@pytest.fixture(scope="module")
def benign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("benign") / "net.keras"
    inputs = keras.Input((4,))
    keras.Model(inputs, layers.Dense(3, name="dense", activation="relu")(inputs) * 2.0).save(path)
    return path


@pytest.mark.parametrize("name", HOSTILE_CONFIGS)
def test_a_configuration_that_reaches_beyond_layers_is_refused(
    benign: Path, tmp_path: Path, name: str
) -> None:
    path = _edited(tmp_path / "net.keras", benign, lambda layer: layer.update(HOSTILE_CONFIGS[name]))
    with pytest.raises(UntrustedModel, match=r"net\.keras"):
        convert(path)


def test_a_function_of_a_configuration_is_one_of_networks(benign: Path, tmp_path: Path) -> None:
    activation = {
        "module": "keras.utils",
        "class_name": "function",
        "config": "get_file",
        "registered_name": None,
    }
    path = _edited(
        tmp_path / "net.keras", benign, lambda layer: layer["config"].update(activation=activation)
    )
    with pytest.raises(UntrustedModel, match=r"keras\.utils\.get_file"):
        convert(path)


def test_a_class_that_the_user_registered_is_loaded(benign: Path, tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable(package="tests_of_trust")
    class Twice(layers.Layer):
        def call(self, x: Any) -> Any:
            return 2 * x

    net = _with_layer(Twice())
    net.save(tmp_path / "net.keras")
    for path, expected in ((tmp_path / "net.keras", net), (benign, keras.saving.load_model(benign))):
        (found,) = differentiate(convert(path)).forward(X).values()
        np.testing.assert_allclose(found, np.asarray(expected(X)), rtol=1e-5, atol=1e-6)


def _external_storage(file: Any, name: str, secret: Path) -> None:
    shape = file[name].shape
    del file[name]
    size = int(np.prod(shape)) * 4
    file.create_dataset(name, shape, np.float32, external=[(str(secret), 0, size)])


def _external_link(file: Any, name: str, secret: Path) -> None:
    del file[name]
    file[name] = h5py.ExternalLink(str(secret), "/weights")


@pytest.mark.parametrize("refer", [_external_storage, _external_link])
@pytest.mark.parametrize("kind", ["h5", "keras", "compressed keras"])
def test_weights_of_a_keras_file_are_in_the_file(
    tmp_path: Path, kind: str, refer: Callable[[Any, str, Path], None]
) -> None:
    path, weights = tmp_path / f"net.{kind.split()[-1]}", tmp_path / "weights.h5"
    (tmp_path / "secret").write_bytes(bytes(48))
    _with_layer(layers.ReLU()).save(path)
    if path.suffix == ".keras":
        weights.write_bytes(zipfile.ZipFile(path).read("model.weights.h5"))
    edited = path if path.suffix == ".h5" else weights
    with h5py.File(edited, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        refer(file, next(name for name in names if file[name].shape == (4, 3)), tmp_path / "secret")
    if path.suffix == ".keras":
        os.rename(path, tmp_path / "old.keras")
        _rewritten(tmp_path / "old.keras", path, "model.weights.h5", lambda _: weights.read_bytes())
    if kind.startswith("compressed"):
        with zipfile.ZipFile(path) as stored:
            members = {name: stored.read(name) for name in stored.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    with pytest.raises(UntrustedModel, match=r"weights (elsewhere|are in another file)"):
        convert(path)


def test_an_onnx_file_with_an_op_of_a_foreign_domain_is_refused(tmp_path: Path) -> None:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Run", ["x"], ["y"], domain="stranger")], "g", *([i] for i in infos)
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("stranger", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "net.onnx")
    with pytest.raises(ConversionError, match="stranger"):
        convert(tmp_path / "net.onnx", trust=True)
