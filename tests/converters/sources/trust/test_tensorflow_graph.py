"""A TensorFlow graph of a stranger only computes, unless the user says `trust=True`, which shows the attack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from analyzer import differentiate
from converters import UntrustedModel, convert
from converters.sources.trust import refuse_saved_model
from converters.sources.trust.pure_ops import is_pure
from tests.converters.sources.trust.attacks import X, attempt


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
