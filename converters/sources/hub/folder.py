"""Find the model in a folder of Hugging Face, and store what its JSON files say of it.

Refuses: a folder without an .onnx file, or with several and none called model.onnx; files that lie elsewhere.
"""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import onnx

from converters.errors import ConversionError, InvalidModel, Note
from converters.model import (
    CLASS_NAMES_KEY,
    PREPROCESSING_KEY,
    UNREAD_KEY,
    Model,
    Preprocessing,
    set_metadata,
)
from converters.sources.hub.names import class_names_of
from converters.sources.hub.processors import Unread, preprocessing_of
from converters.sources.hub.reading import inside, read_json
from converters.sources.hub.remote import SCHEME, downloaded

_CONFIG = "config.json"
# Files of other precisions, as the exporters name them.
_OTHER_PRECISION = re.compile(r"[_.-](quantized|quant|u?int8|q\d\w*|bnb4|fp16|f16|bf16|o\d)\b", re.IGNORECASE)
_EXPORT = (
    "export it, optimum-cli export onnx --model FOLDER OUT, and give that folder; or load the network in your own code "
    "and give it with an example to onnxplain.convert"
)


@dataclass(frozen=True)
class HubFolder:
    """A folder, and the .onnx file in it. around: whether the file itself was named, and the folder lies around it."""

    folder: Path
    model: Path
    around: bool = False

    def described(self, model: Model) -> Model:
        """Return the model with the folder, whose class names and preprocessing are stored where it has none.

        Raises InvalidModel for damaged files of the folder; where the .onnx file itself was named, a Note says so.
        """
        model = model.in_folder(self.folder)
        try:
            return self._described(model)
        except InvalidModel as error:
            if not self.around:
                raise
            warnings.warn(f"{error}. The model is loaded without it", Note, stacklevel=4)
            return model

    def _described(self, model: Model) -> Model:
        known = model.metadata
        config = read_json(self.folder, _CONFIG) or {}
        names = None if CLASS_NAMES_KEY in known else class_names_of(config)
        set_metadata(model.light, class_names=names)
        if PREPROCESSING_KEY in known:
            return model
        try:
            found = preprocessing_of(self.folder, config, _shapes(model.light))
            if found is not None:
                _store(model, found)
        except Unread as error:
            # Without it, images would be read in another way than the network was trained with.
            reason = str(error)
            onnx.helper.set_model_props(model.light, {**model.metadata, UNREAD_KEY: reason})
            warnings.warn(
                f"{self.folder}: {reason}: images are not read by it. Arrays are taken as they are",
                Note,
                stacklevel=4,
            )
        return model


def _store(model: Model, preprocessing: Preprocessing) -> None:
    try:
        set_metadata(model.light, preprocessing)
    except ConversionError as error:  # sizes or numbers out of range
        raise Unread(str(error).partition(". Fix: ")[0]) from error


def open_folder(source: object) -> HubFolder | None:
    """Return the folder of a path or of "hf://…", or that of a named .onnx file in one; None for other sources.

    Raises InvalidModel for a folder that holds no model, ConversionError where huggingface_hub is missing or fails.
    """
    if not isinstance(source, (str, os.PathLike)):
        return None
    path = os.fspath(source)
    if path.startswith(SCHEME):
        folder, file = downloaded(path)
        return HubFolder(folder, inside(folder, file) if file else _find(folder))
    if os.path.isdir(path):
        return HubFolder(Path(path), _find(Path(path))) if is_folder(Path(path)) else None
    if path.lower().endswith(".onnx") and os.path.isfile(path):
        return _around(Path(path))
    return None


def is_folder(folder: Path) -> bool:
    """Return whether a folder is one of Hugging Face or holds .onnx files, and is no SavedModel."""
    if any((folder / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
        return False
    return (folder / _CONFIG).is_file() or bool(_onnx_files(folder))


def _around(model: Path) -> HubFolder | None:
    """The folder of an .onnx file, where it is one of Hugging Face."""
    parent = model.absolute().parent
    for folder in (parent, parent.parent) if parent.name == "onnx" else (parent,):
        try:
            config = read_json(folder, _CONFIG)
        except InvalidModel:
            return None
        if config and {"model_type", "architectures", "architecture", "pretrained_cfg"} & config.keys():
            return HubFolder(folder, model, around=True)
    return None


def _find(folder: Path) -> Path:
    """The .onnx file to take. Raises InvalidModel."""
    files = _onnx_files(folder)
    # A decoder that is exported in parts computes the same in each; beside an encoder it is one half of a model.
    halves = any(file.stem.startswith("encoder_model") for file in files)
    for stem in ("model",) if halves else ("model", "decoder_model", "decoder_model_merged"):
        for name in (f"{stem}.onnx", os.path.join("onnx", f"{stem}.onnx")):
            if (folder / name).is_file():
                return inside(folder, name)
    whole = [file for file in files if not _OTHER_PRECISION.search(file.stem)]
    if len(whole) == 1:
        return inside(folder, os.fspath(whole[0].relative_to(folder)))
    if not files:
        raise InvalidModel(
            f"{folder} holds no .onnx file. Fix: {_EXPORT.replace('FOLDER', os.fspath(folder))}"
        )
    listed = ", ".join(os.fspath(file.relative_to(folder)) for file in files[:8])
    what = "several .onnx files" if whole else "only .onnx files of other precisions"
    raise InvalidModel(f"{folder} holds {what}, {listed}. Fix: give the path of one of them")


def _onnx_files(folder: Path) -> list[Path]:
    return sorted(
        file for pattern in ("*.onnx", "onnx/*.onnx") for file in folder.glob(pattern) if file.is_file()
    )


def _shapes(proto: onnx.ModelProto) -> list[tuple[int | None, ...]]:
    """The shapes of the inputs; None for a free axis."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    return [
        tuple(
            axis.dim_value if axis.HasField("dim_value") else None for axis in info.type.tensor_type.shape.dim
        )
        for info in proto.graph.input
        if info.name not in stored
    ]
