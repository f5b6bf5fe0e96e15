"""From what stands on the command line to a Model: files, folders, and package.module:factory."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer.cli.terminal import UserError
from analyzer.errors import AnalysisError
from converters.errors import ConversionError, one_line
from converters.system.quiet import quiet

if TYPE_CHECKING:
    import numpy as np

    from analyzer.cli.inputs import ImageOptions
    from converters.model import Model

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def open_model(
    source: str,
    example: Path | None = None,
    *,
    straight_through: bool = False,
    verify: bool = True,
    trust: bool = False,
    run: bool = True,
    fold_batch_norm: bool = True,
    images: ImageOptions | None = None,
    constants: Mapping[str, Any] | None = None,
    **options: Any,
) -> Model:
    """The Model of a path or a factory; an .onnx file is loaded, everything else converted.

    straight_through: the model whose derivative passes straight through its rounding. verify: compare an .onnx file
    with the canonical graph. trust: load a file that can run code. run: False only reads an .onnx file.
    fold_batch_norm: False keeps BatchNorm layers apart. images: the flags that state the size of an image, from which
    a network without an example is traced. constants: inputs that are fixed to a value.
    """
    from analyzer.cli.inputs import stored_flags
    from converters import convert, load
    from converters.straight_through import straight_through as pass_rounding

    if source.lower().endswith(".onnx") or is_hub(source):
        loaded = load(source, verify=verify, run=run, fold_batch_norm=fold_batch_norm, constants=constants)
    else:
        network, given = network_and_example(source, example)
        if images is not None and images.size is not None:
            options["preprocessing"] = stored_flags(images)
        loaded = convert(
            network, given, trust=trust, fold_batch_norm=fold_batch_norm, constants=constants, **options
        )
    return pass_rounding(loaded) if straight_through else loaded


def network_and_example(source: str, example: Path | None) -> tuple[Any, Any]:
    """What `convert` takes: a path or the network that a factory makes, and an example or None."""
    given = read_array(example) if example is not None else None
    if not is_factory(source):
        if not Path(source).exists() and not is_hub(source):
            raise UserError(
                f"{source}: no such file, and no package.module:factory. Fix: give the path of an existing model"
            )
        return source, given
    made = _made_by(source)
    network, own = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    return network, own if given is None else given


def is_hub(source: str) -> bool:
    """Return whether a text names a model of Hugging Face: a folder of one, or "hf://organisation/name"."""
    from converters.sources.hub.folder import is_folder
    from converters.sources.hub.remote import SCHEME

    return source.startswith(SCHEME) or (Path(source).is_dir() and is_folder(Path(source)))


def is_factory(source: str) -> bool:
    """Whether a text is package.module:factory and no path."""
    return _FACTORY.fullmatch(source) is not None and not Path(source).exists()


def _made_by(source: str) -> Any:
    module_name, attribute = source.split(":")
    # A console script does not have the working directory on its path; `python -m` does.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    found: Any
    try:
        # The user's module may greet, or import a framework that does: standard output is for results.
        with quiet("tensorflow", "absl", native=True):
            found = importlib.import_module(module_name)
            for name in attribute.split("."):
                found = getattr(found, name)
            # Networks are callable too: a function or class is called, an object is the model.
            return found() if inspect.isroutine(found) or inspect.isclass(found) else found
    except (AnalysisError, ConversionError):
        raise
    # Whatever the user's own code raises is told as theirs, in one line.
    except Exception as error:
        raise UserError(
            f"{source}: {type(error).__name__}: {one_line(error)}. Fix: give package.module:factory that Python can "
            "import from this folder, and that returns a model, or a model and an example"
        ) from error


def read_array(path: Path) -> np.ndarray:
    """Return a .npy array. Raises UserError where it is missing, damaged, or no array of numbers."""
    from analyzer.data.array_files import load_array

    _refuse_missing(path)
    try:
        return load_array(path)
    except ValueError as error:
        raise UserError(
            f"{path}: not a readable .npy file of numbers ({error}). Fix: write it with np.save(path, array)"
        ) from error


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz, by name. Raises UserError where it is missing, damaged, or holds no numbers."""
    from analyzer.data.array_files import load_archive

    _refuse_missing(path)
    try:
        return load_archive(path)
    except ValueError as error:
        raise UserError(
            f"{path}: not a readable .npz file of numbers ({error}). Fix: write it with np.savez(path, name=array)"
        ) from error


def _refuse_missing(path: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}. Fix: give the path of an "
            "existing file"
        )


def read_class_names(given: str) -> list[str]:
    """Return class names in the order of the classes: of a list such as "disc,square", or of a file.

    A file has one name a line, or is a JSON list. A text with a comma is a list where no file has that name.
    """
    import json

    path = Path(given)
    if "," in given and not path.exists():
        names = [name.strip() for name in given.split(",")]
        if not all(names):
            raise UserError(
                f"--class-names {given}: holds an empty class name. Fix: separate the names by commas, as in "
                "disc,square"
            )
        return names
    try:
        text = path.read_text(encoding="utf-8")
        names = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path}: not a readable list of class names. Fix: write a text file with one name a line, in UTF-8, or "
            "give the names separated by commas, as in disc,square"
        ) from error
    names = names[:-1] if names and names[-1] == "" else names
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise UserError(
            f"{path}: holds an empty class name, or no text. Fix: write one name a line, or a JSON list of texts"
        )
    return [name.strip() for name in names]
