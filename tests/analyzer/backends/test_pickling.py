"""A Differentiable pickles: equal numbers after spawn and fork, and nothing runs but our own functions."""

from __future__ import annotations

import copy
import io
import multiprocessing
import os
import pickle
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

import onnxplain as ox
from analyzer.backends.interpreter import TensorFlow
from analyzer.errors import BackendError
from analyzer.graph.graph import Graph
from converters import ConversionError, Model
from converters.system import forks
from tests.analyzer.data.networks import image_network

X = np.random.default_rng(0).standard_normal((3, 3, 16, 16)).astype(np.float32)


class OwnOnly(pickle.Unpickler):
    """Read pickles whose functions and classes are those of onnxplain."""

    def find_class(self, module, name):
        assert module.split(".")[0] in ("converters", "analyzer"), (module, name)
        return super().find_class(module, name)


def read(data):
    return OwnOnly(io.BytesIO(data)).load()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "network.onnx"
    onnx.save(image_network(), path)
    return path


def test_a_model_of_a_file_pickles_by_its_path_and_any_other_with_its_weights(file):
    loaded, given = ox.load(file), ox.load(image_network())
    by_path, by_value = pickle.dumps(loaded), pickle.dumps(given)
    weights = sum(len(one.raw_data) for one in loaded.proto.graph.initializer)
    assert str(file).encode() in by_path and str(file).encode() not in by_value
    assert weights < len(by_value)
    for data, model in ((by_path, loaded), (by_value, given)):
        again = read(data)
        assert again.proto == model.proto
        assert again.verification == model.verification
        assert (again.original is None) == (model.original is None)
    assert pickle.dumps(read(by_path)) == by_path


def test_names_that_were_stored_after_loading_are_kept(file):
    model = ox.load(file)
    ox.set_metadata(model, class_names=("a", "b", "c"))
    assert read(pickle.dumps(model)).class_names == ("a", "b", "c")
    assert copy.deepcopy(model).proto == model.proto


def test_a_file_that_changed_or_is_gone_is_refused_and_its_model_pickles_with_its_weights(file):
    model = ox.load(file)
    data = pickle.dumps(model)
    edited = ox.load(file)
    edited.proto.graph.initializer[0].raw_data = bytes(len(edited.proto.graph.initializer[0].raw_data))
    with pytest.raises(ConversionError, match="another graph"):
        read(pickle.dumps(edited))
    other = image_network()
    other.graph.initializer[0].raw_data = bytes(len(other.graph.initializer[0].raw_data))
    onnx.save(other, file)
    with pytest.raises(ConversionError, match="changed"):
        read(data)
    # What was loaded before is pickled as it is in memory.
    assert read(pickle.dumps(model)).proto == model.proto
    file.unlink()
    with pytest.raises(ConversionError, match="does not exist"):
        read(data)
    assert read(pickle.dumps(model)).proto == model.proto


def test_external_weights_count_as_the_file(tmp_path):
    path = tmp_path / "network.onnx"
    onnx.save(image_network(), path, save_as_external_data=True, size_threshold=0, location="weights.bin")
    data = pickle.dumps(ox.load(path))
    assert read(data).proto == ox.load(image_network()).proto
    weights = tmp_path / "weights.bin"
    changed = bytearray(weights.read_bytes())
    changed[0] ^= 1
    weights.write_bytes(changed)
    with pytest.raises(ConversionError, match="changed"):
        read(data)


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 1, "batch_size": 2, "samples": "independent"},
        {"backend": "torch", "precision": "float64", "max_memory": "1 GiB"},
    ],
)
def test_a_pickle_has_the_same_backend_which_is_made_at_the_first_use(file, options):
    fn = ox.differentiate(file, **options)
    again = read(pickle.dumps(fn))
    assert "engine" not in vars(again)
    assert pickle.dumps(again) == pickle.dumps(fn)
    assert (again.max_memory, again.batch_size, again.samples) == (fn.max_memory, fn.batch_size, fn.samples)
    ours, theirs = fn.gradients(X, 1), again.gradients(X, 1)
    assert again.backend == fn.backend
    assert theirs.gradients["image"].dtype == ours.gradients["image"].dtype
    np.testing.assert_array_equal(theirs.gradients["image"], ours.gradients["image"])


def test_what_lives_in_one_process_is_refused():
    model = Model(ox.load(image_network()).proto, ox.PyTorchSource("a network", ("image",)))
    fn = replace(
        ox.differentiate(model), engine=SimpleNamespace(name="source", graph=Graph.from_proto(model.proto))
    )
    with pytest.raises(ox.AnalysisError, match='backend="torch"'):
        pickle.dumps(fn)
    with pytest.raises(ox.AnalysisError, match="differentiate"):
        pickle.dumps(replace(fn, engine=ox.differentiate(model).engine.cut(fn.engine.graph)))
    assert read(pickle.dumps(replace(ox.differentiate(model), batch_size=2))).batch_size == 2
    assert read(pickle.dumps(model)).source is None
    assert copy.deepcopy(model).source is not None


def explain(fn, results):
    results.put((os.getpid(), ox.full_grad(fn, X, 1).map, fn.gradients(X, 1).gradients["image"]))
    fn.release()


def in_process(method, fn):
    context = multiprocessing.get_context(method)
    results = context.Queue()
    process = context.Process(target=explain, args=(fn, results))
    process.start()
    try:
        found = results.get(timeout=60)
        process.join(20)
        assert process.exitcode == 0
    finally:
        process.kill()
    return found


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_another_process_computes_the_same_numbers(file, method):
    fn = ox.differentiate(ox.load(file), threads=2)
    expected = ox.full_grad(fn, X, 1)
    pid, image, gradient = in_process(method, fn)
    assert pid != os.getpid()
    np.testing.assert_array_equal(image, expected.map)
    np.testing.assert_array_equal(gradient, fn.gradients(X, 1).gradients["image"])


def test_pytorch_computes_in_a_forked_process():
    fn = ox.differentiate(image_network(), "torch")
    expected = fn.gradients(X, 1).gradients["image"]
    np.testing.assert_allclose(in_process("fork", fn)[2], expected, rtol=1e-5, atol=1e-7)


def test_tensorflow_in_a_forked_process_is_refused(monkeypatch):
    monkeypatch.setattr(forks, "_LOADED", {"tensorflow"})
    with pytest.raises(BackendError, match="spawn"):
        TensorFlow.tensor(object.__new__(TensorFlow), X)


def test_a_lock_that_a_thread_held_is_free_in_a_forked_process():
    lock, held, done = forks.ForkLock(), threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            done.wait(30)

    threading.Thread(target=hold, daemon=True).start()
    held.wait(30)
    try:
        child = os.fork()
        if not child:
            with lock:
                os._exit(0)
        for _ in range(100):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            time.sleep(0.05)
        else:
            os.kill(child, 9)
            os.waitpid(child, 0)
    finally:
        done.set()
    assert ended and status == 0
