"""What `onnxplain analyze -o` writes: pictures, charts, arrays, report.html and summary.json, from results.

Nothing is written before everything is computed, and each file whole or not at all.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer.report.page import AttributionPage

if TYPE_CHECKING:
    import numpy as np

    from analyzer.backends import Differentiable
    from analyzer.cli.inputs import Batch
    from analyzer.cli.tokens import ScoredTexts
    from analyzer.figures.ground import Box, Ground
    from analyzer.methods.result import Attribution
    from analyzer.methods.summary import Asked
    from analyzer.report.page import Prediction


SUMMARY = "summary.json"


def write_results(
    folder: Path,
    model: str,
    fn: Differentiable,
    batch: Batch,
    results: Sequence[Attribution],
    predicted: Sequence[tuple[Prediction, ...]],
    texts: ScoredTexts = (),
    asked: Asked = "",
    boxes: Sequence[Box] = (),
) -> list[Path]:
    """Write every file; nothing is written before everything is computed. boxes: of each sample one that is drawn."""
    from analyzer.figures import plot_tokens
    from analyzer.figures.canvas import png_of
    from analyzer.methods.full_gradient.result import FullGrad
    from analyzer.methods.pictures import layer_chart, on_one_scale, sample_pictures
    from analyzer.methods.summary import arrays_of, completeness_rows, judgement, samples
    from analyzer.report.page import render_report
    from converters.system.atomic import write_bytes, write_text
    from converters.system.environment import environment
    from converters.system.locks import only_writer

    class_names = fn.class_names
    drawn_over = grounds(batch, boxes)
    pictures = sample_pictures(results, batch.arrays, batch.preprocessing, drawn_over)
    one_scale = on_one_scale(results, batch.arrays, batch.preprocessing, drawn_over)
    rows = completeness_rows(results, batch.names)
    passed, headline = judgement(results)
    report = AttributionPage(
        title=Path(model).name,
        passed=passed,
        headline=headline,
        detail=f"{len(batch.names)} input{'s' * (len(batch.names) != 1)}, computed by {fn.backend}.",
        samples=samples(results, batch.names, predicted, pictures, class_names, texts, asked, one_scale),
        completeness=rows,
        timings={result.label: result.seconds for result in results},
        environment=environment(fn.backend),
    )
    contents: dict[str, bytes] = {
        f"{stem}-{key}.png": picture.png
        for stem, drawn in zip(file_stems(batch.names), pictures, strict=True)
        for key, picture in drawn.items()
        if not key.endswith("photograph")
    }
    contents |= {
        f"{stem}-{result.method}-layers.png": layer_chart(result, index, name)
        for index, (stem, name) in enumerate(zip(file_stems(batch.names), batch.names, strict=True))
        for result in results
        if isinstance(result, FullGrad) and result.contributions
    }
    contents |= {
        f"{stem}-tokens.png": png_of(plot_tokens(own, title=name))
        for stem, name, own in zip(file_stems(batch.names), batch.names, texts, strict=False)
        if own
    }
    contents["arrays.npz"] = npz_bytes(arrays_of(results))
    contents["report.html"] = render_report(report).encode()
    folder.mkdir(parents=True, exist_ok=True)
    # Two commands may write here at once: the files that stay are all of the one that comes last.
    with only_writer(folder):
        earlier = earlier_pictures(folder)
        written = [write_bytes(folder / name, data) for name, data in contents.items()]
        made = {
            **document(model, fn, batch, results, predicted, texts),
            "files": [str(path) for path in written],
        }
        written.append(write_text(folder / SUMMARY, json_text(made)))
        for path in earlier - set(written):
            path.unlink(missing_ok=True)
    return written


def earlier_pictures(folder: Path) -> set[Path]:
    """The pictures in a folder that an earlier command wrote there, as its summary says."""
    try:
        told = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    files = told.get("files") if isinstance(told, dict) and told.get("command") == "analyze" else None
    names = {Path(one).name for one in files if isinstance(one, str)} if isinstance(files, list) else set()
    # Whatever the summary names, nothing but pictures of this folder are removed.
    return {path for path in folder.glob("*.png") if path.name in names and not path.is_symlink()}


def grounds(batch: Batch, boxes: Sequence[Box] = ()) -> list[Ground | None]:
    """What the maps of each sample are drawn over: the original photograph of an input that was padded; with a box."""
    from analyzer.figures.ground import Ground, original_ground
    from analyzer.figures.images import photographs

    padded = batch.preprocessing is not None and batch.preprocessing.fit == "pad"
    shown = photographs(next(iter(batch.arrays.values())), batch.preprocessing)
    if len(batch.arrays) != 1 or shown is None or not (padded or boxes):
        return []
    found = []
    files = batch.images if len(batch.images) == len(shown) else (None,) * len(shown)
    for index, (path, photo) in enumerate(zip(files, shown, strict=True)):
        if padded and path is not None:
            assert batch.preprocessing is not None
            own = original_ground(path, batch.preprocessing)
        else:
            own = Ground(photo)
        found.append(own.with_box(boxes[index]) if len(boxes) == len(shown) else own)
    return list(found)


def json_text(document: Mapping[str, Any]) -> str:
    """A document as the text of a JSON file."""
    from converters.system.plain_data import plain

    return json.dumps(plain(document), indent=2, allow_nan=False) + "\n"


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The bytes of a compressed .npz."""
    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()


# File systems take names of at most 255 bytes, which a method's name and a suffix share.
LONGEST_STEM = 80


def file_stems(names: Sequence[str]) -> list[str]:
    """A file stem per sample: up to 80 letters, digits, dots and dashes of its name, told apart by number."""
    stems: list[str] = []
    for name in names:
        words = re.sub(r"[^\w.-]+", "-", re.sub(r"\.(?=\w{3,4}\b)\w+", "", name, count=1))
        base = words.strip("-.")[:LONGEST_STEM] or "input"
        stem, number = base, 2
        while stem in stems:
            stem, number = f"{base}-{number}", number + 1
        stems.append(stem)
    return stems


def document(
    model: str,
    fn: Differentiable,
    batch: Batch,
    results: Sequence[Attribution],
    predicted: Sequence[tuple[Prediction, ...]],
    texts: ScoredTexts = (),
) -> dict[str, Any]:
    """What --json prints and summary.json holds, without the files."""
    from analyzer.cli.tokens import tokens_json
    from analyzer.methods.summary import as_json
    from converters.system.environment import environment

    class_names = fn.class_names
    return {
        "command": "analyze",
        "model": model,
        "backend": fn.backend,
        "passed": all(passed is not False for result in results for passed in result.passed),
        "samples_are": "joint" if results and results[0].joint else "independent",
        "samples": [
            {
                "name": name,
                "predictions": [vars(prediction) for prediction in predicted[index]],
                "methods": as_json(results, index, class_names),
                **tokens_json(texts[index] if texts else ()),
            }
            for index, name in enumerate(batch.names)
        ],
        "seconds": {result.method: result.seconds for result in results},
        "environment": environment(),
    }
