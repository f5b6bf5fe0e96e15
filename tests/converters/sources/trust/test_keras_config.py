"""A Keras file of a stranger runs no code and reads no other file, unless the user says `trust=True`."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from analyzer import differentiate
from converters import UntrustedModel, convert
from tests.converters.sources.trust.attacks import X, attempt, rewritten


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

    rewritten(source, path, "config.json", change)
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
        rewritten(tmp_path / "old.keras", path, "model.weights.h5", lambda _: weights.read_bytes())
    if kind.startswith("compressed"):
        with zipfile.ZipFile(path) as stored:
            members = {name: stored.read(name) for name in stored.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    with pytest.raises(UntrustedModel, match=r"weights (elsewhere|are in another file)"):
        convert(path)
