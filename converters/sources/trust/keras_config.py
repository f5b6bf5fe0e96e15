"""Refuse Keras files whose configuration names more than Keras' own layers, from .keras and .h5 files.

Reads the JSON of the configuration alone, before Keras builds objects from it. Refuses layers that run code or load
other files (Lambda, TFSMLayer, …), vocabularies that are paths, and functions and classes outside the parts of Keras
that make networks. Classes that the user's own code registered with Keras are accepted: they are not in the file.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

from converters.errors import InvalidModel, one_line
from converters.sources.trust.hdf5 import refuse_references
from converters.sources.trust.refusal import shown, untrusted

_CODE = {
    "Lambda": "a Lambda layer, whose function is code",
    "__lambda__": "a Python function, which Keras would run",
    "TFSMLayer": "a TFSMLayer, which loads a SavedModel",
    "TorchModuleWrapper": "a TorchModuleWrapper, whose module is a pickle",
    "JaxLayer": "a JaxLayer, whose function is code",
    "FlaxLayer": "a FlaxLayer, whose function is code",
}
"""Class: what it is, and why it needs trust."""
# Keys whose value may be the path of another file.
_PATHS = ("filepath", "vocabulary")
_PARTS = frozenset(
    {
        "activations", "constraints", "dtype_policies", "engine", "initializers", "layers", "losses", "metrics",
        "models", "ops", "optimizers", "quantizers", "random", "regularizers",
    }
)  # fmt: skip
_FUNCTION_PARTS = _PARTS - {"engine", "layers", "models"}
# Keras imports them when a file names them; their classes download weights.
_IMPORTED = ("keras_cv", "keras_hub", "keras_nlp")
_MOST_BYTES = 2**26
_AGAIN = "Fix: write the file again with model.save(path)"


def refuse_keras_code(path: str) -> None:
    """Raise UntrustedModel where loading a .keras or .h5 file could run code, or read other files.

    Raises InvalidModel where the file holds no readable configuration.
    """
    text = _config_of_archive(path) if path.lower().endswith(".keras") else _config_of_hdf5(path)
    if text is None:
        return  # Keras' own error says what is missing.
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{path} holds a damaged configuration ({one_line(error)}). {_AGAIN}") from error
    if isinstance(config, dict):
        # Losses and metrics of the training are not loaded.
        config.pop("compile_config", None)
    for part in _dicts(config):
        finding = _finding(part)
        if finding is not None:
            raise untrusted(path, finding)
    try:
        refuse_references(path)
    except InvalidModel:
        raise
    except Exception as error:  # h5py documents no errors for damaged files
        raise InvalidModel(f"{path} holds damaged weights ({one_line(error)}). {_AGAIN}") from error


def _config_of_archive(path: str) -> bytes | None:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > _MOST_BYTES:
                raise InvalidModel(
                    f"{path}: its configuration is larger than {_MOST_BYTES >> 20} MiB. Fix: load the model with "
                    "Keras, and give the model to onnxplain.convert"
                )
            return archive.read("config.json")
    except InvalidModel:
        raise
    except Exception:  # zipfile documents several errors, and raises those of the decompressors
        return None


def _config_of_hdf5(path: str) -> bytes | str | None:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            found = file.attrs.get("model_config")
    except Exception:  # h5py documents no errors for damaged files
        return None
    return found if isinstance(found, (bytes, str)) else None


def _dicts(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every dict in a JSON value."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _finding(part: Mapping[str, Any]) -> str | None:
    """What of a dict could run code or read files, None for nothing."""
    for key in _PATHS:
        if isinstance(part.get(key), str):
            return f"names another file, {shown(part[key])}, as the {key} of a layer"
    if "class_name" not in part:
        return None
    name, parts = part["class_name"], _PARTS
    if name == "function":
        name, parts = part.get("config"), _FUNCTION_PARTS
    module = part.get("module")
    if not isinstance(name, str) or not isinstance(module, (str, type(None))):
        return f"names the class {shown(name)} of the module {shown(module)}"
    if name in _CODE:
        return f"holds {_CODE[name]}"
    if module in (None, "builtins") or _is_registered(part.get("registered_name")):
        return None
    if module.startswith(_IMPORTED):
        return f"holds {shown(f'{module}.{name}')}, which is not part of Keras"
    if module.partition(".")[0] == "keras" and not (_is_part(module, parts) and name.isidentifier()):
        return f"holds {shown(f'{module}.{name}')}, which is not a part of networks"
    return None


def _is_part(module: str, parts: frozenset[str]) -> bool:
    """Whether a module of Keras is among the parts that make networks."""
    names = [name for name in module.split(".")[1:] if name != "src"]
    return not names or names[0] in parts


def _is_registered(name: object) -> bool:
    """Whether the user's own code registered a class with Keras under a name."""
    import keras

    return isinstance(name, str) and ">" in name and keras.saving.get_registered_object(name) is not None
