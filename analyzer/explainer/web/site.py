"""Write the site of an explainer: a static page that runs the model in the reader's browser.

From an explainer file (analyzer/explainer/export.py) to a folder: the page, its runtime, `model.onnx` and
`explainer.json`. Nothing in it asks another host. Takes explainers of images with their preprocessing inside, and of
texts with their tokenizer. Refuses others, and a folder that holds anything else. The folder is written whole or not at
all. Raises ExportError, InvalidModel, OSError.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from analyzer.errors import ExportError
from analyzer.explainer.description import Description, Port
from analyzer.explainer.web.description import (
    AGAIN,
    explained_output,
    input_of,
    output_of,
    plain_description,
    read_description,
)
from analyzer.explainer.web.folder import refuse_other_folder, replace_folder
from analyzer.explainer.web.frozen import page_model, refuse_large
from analyzer.explainer.web.samples import MOST_SIDE, image_samples, text_samples
from analyzer.explainer.web.texts import is_text, token_inputs, tokenizer_text
from analyzer.explainer.web.vendored import RUNTIME, vendored
from analyzer.explainer.web.views import look, views_of
from analyzer.explainer.web.wording import parts
from converters.metadata import parse_class_names, parse_preprocessing
from converters.model import CLASS_NAMES_KEY, PREPROCESSING_KEY, Preprocessing
from converters.sources.files import read_onnx

PAGE = Path(__file__).parent / "page"
MODEL, DESCRIPTION, TOKENIZER = "model.onnx", "explainer.json", "tokenizer.json"
_OUTPUTS = ("explained", "explained_target", "completeness_error", "delta", "attribution")


@dataclass(frozen=True)
class Site:
    """A site that was written. kind: "image" or "text". bytes: of all its files together."""

    folder: Path
    kind: str
    title: str
    method: str
    files: tuple[str, ...]
    bytes: int


def write_site(
    explainer: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    title: str | None = None,
    samples: Sequence[str | Path] = (),
    tokenizer: str | os.PathLike[str] | None = None,
) -> Site:
    """Write a static page of an explainer file into a new folder, or in place of an earlier site.

    explainer: an .onnx file that `export_explainer` wrote; of an image model `with_preprocessing=True`.
    title: heading of the page. Default: the name of the file.
    samples: paths of pictures, or texts for a text model, that the page offers.
    tokenizer: the tokenizer.json of a text model. Default: the one in the file's metadata.
    """
    path, place = Path(explainer), Path(folder).resolve()
    refuse_other_folder(place, DESCRIPTION)
    refuse_large(path)
    proto = read_onnx(path)
    found = read_description(proto)
    name = title or path.stem
    files: dict[str, bytes] = {}
    page = _page(proto, found)
    if page["kind"] == "text":
        files[TOKENIZER] = tokenizer_text(proto, None if tokenizer is None else Path(tokenizer)).encode()
        page["samples"] = text_samples(samples)
    elif tokenizer is not None:
        raise ExportError("--tokenizer is for text models, and this model reads images. Fix: leave it out")
    else:
        page["samples"], pictures = image_samples(samples)
        files |= pictures
    names = _class_names(proto, explained_output(found))
    files[MODEL] = page_model(proto, found.inputs, page["fed"])
    for part, content in vendored(tokenizer=page["kind"] == "text"):
        files[f"vendor/{part}"] = content
    files |= _static(name, found, page)
    page["files"] = {
        key: {"file": file, "bytes": len(files[file])}
        for key, file in {"model": MODEL, "runtime": f"vendor/{RUNTIME}"}.items()
    }
    document = {
        "onnxplain_site": 1,
        "title": name,
        "explainer": plain_description(found, page["fed"]),
        "class_names": names,
        "page": page,
        "files": sorted([*files, DESCRIPTION]),
    }
    files[DESCRIPTION] = (json.dumps(document, ensure_ascii=False) + "\n").encode()
    replace_folder(place, files, DESCRIPTION)
    total = sum(map(len, files.values()))
    return Site(place, page["kind"], name, found.caption, tuple(sorted(files)), total)


def _page(proto: onnx.ModelProto, found: Description) -> dict[str, Any]:
    """Return what the page needs to feed the model and to read its outputs."""
    target, explained = input_of(found, "target"), explained_output(found)
    if target is None:
        raise ExportError(
            "expected an explainer whose reader chooses the class, with an input of the role 'target', found a target "
            "that is fixed in the file. Fix: export again with a class, or none, as the target"
        )
    if len(explained.shape) != 2:
        raise ExportError(
            f"expected a classifier, with an output (N, classes), found {explained.name!r} of shape "
            f"{list(explained.shape)}. The page shows classifiers of images and of texts. Fix: use the explainer in "
            "Python, or from JavaScript as in examples/explainer"
        )
    for one in found.inputs:
        if one.role in ("model", "image") and one.shape and one.shape[0] not in (1, *_names(one)):
            raise ExportError(
                f"expected inputs of any number of samples, found {one.name!r} of shape {list(one.shape)}. Fix: "
                "convert the model with a free batch axis, and export it again"
            )
    outputs = {role: port.name for role in _OUTPUTS if (port := output_of(found, role)) is not None}
    page = {
        "target": target.name,
        "output": explained.name,
        "outputs": outputs,
        "method": found.method,
        "caption": found.caption,
        "sum_of": found.sum_of,
        "look": look(),
    }
    image = input_of(found, "image")
    if image is not None:
        _refuse_others(found, image)
        return page | {
            "kind": "image",
            "image": image.name,
            "most_side": MOST_SIDE,
            "seen": _seen(proto),
            "fed": [image.name, target.name],
            "views": views_of(found, text=False),
        }
    if is_text(found):
        tokens = token_inputs(found)
        fed = [one["name"] for one in tokens["inputs"].values()]
        return page | {
            "kind": "text",
            "tokens": tokens,
            "fed": [*fed, target.name],
            "views": views_of(found, text=True),
        }
    raise _unsupported(found)


def _names(port: Port) -> tuple[str, ...]:
    """Return the names of the free axes of an input."""
    return tuple(size for size in port.shape if isinstance(size, str))


def _seen(proto: onnx.ModelProto) -> dict[str, Any] | None:
    """Return how a picture is cropped, which tells what the model sees; None where the file does not say it."""
    text = next((entry.value for entry in proto.metadata_props if entry.key == PREPROCESSING_KEY), None)
    if text is None:
        return None
    try:
        stored = Preprocessing(**parse_preprocessing(text))
    except ValueError as error:
        raise ExportError(f"the preprocessing in the file cannot be read: {error}. {AGAIN}") from error
    return {
        "size": list(stored.size),
        "resize": stored.resize,
        "fit": stored.fit,
        "rounding": stored.rounding,
    }


def _refuse_others(found: Description, image: Port) -> None:
    """Raise ExportError where the model needs more than a picture."""
    others = [port.name for port in found.inputs if port.role == "model"]
    if image.type != "uint8" or len(image.shape) != 4 or image.shape[3] != 3:
        raise ExportError(
            f"expected pixels as {image.name!r}, uint8 (N, height, width, 3), found {image.type} {list(image.shape)}. "
            f"{AGAIN}"
        )
    if others:
        raise ExportError(
            f"expected a model whose only input is a picture, found {others[0]!r} besides {image.name!r}. Fix: export "
            "a model of one input"
        )


def _unsupported(found: Description) -> ExportError:
    own = [port for port in found.inputs if port.role == "model"]
    if len(own) == 1 and len(own[0].shape) == 4:
        return ExportError(
            "expected an explainer that takes the picture itself, found one that takes the network's own input. Fix: "
            "export again with --with-preprocessing"
        )
    shapes = ", ".join(f"{port.name!r} {list(port.shape)}" for port in own) or "none"
    return ExportError(
        f"expected a model of images or of token ids, found the inputs {shapes}. The page shows classifiers of images "
        "and of texts. Fix: use the explainer in Python, or from JavaScript as in examples/explainer"
    )


def _class_names(proto: onnx.ModelProto, explained: Port) -> list[str] | None:
    """Return the names of the classes; None where there are none, or another number of them."""
    text = next((entry.value for entry in proto.metadata_props if entry.key == CLASS_NAMES_KEY), None)
    if text is None:
        return None
    try:
        names = parse_class_names(text)
    except ValueError as error:
        raise ExportError(f"the class names in the file cannot be read: {error}. {AGAIN}") from error
    classes = explained.shape[1]
    return list(names) if not isinstance(classes, int) or classes == len(names) else None


def _static(title: str, found: Description, page: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the page itself, and its styles and modules."""
    files = {path.name: path.read_bytes() for path in sorted(PAGE.iterdir()) if path.suffix != ".html"}
    words = {
        "title": title,
        "page": page,
        "caption": found.caption,
        "parts": parts(found, text=page["kind"] == "text"),
    }
    files["index.html"] = _template().render(words).encode()
    return files


def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("index.html")
