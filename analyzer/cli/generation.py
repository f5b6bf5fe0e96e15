"""`onnxplain analyze --generate N`: every generated token explained by the tokens before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer.cli.terminal import Terminal, UserError

if TYPE_CHECKING:
    import numpy as np

    from analyzer.backends import Differentiable
    from analyzer.methods.generation import GenerationAttribution
    from analyzer.texts import Tokenizer

DEFAULT_METHOD = "integrated-gradients"


def explain_generation(
    terminal: Terminal,
    model: str,
    fn: Differentiable,
    prompts: Sequence[np.ndarray],
    names: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    *,
    tokens: int,
    tokenizer: Tokenizer | None,
    baseline_token: str | int | None,
    words: bool,
    output: Path | None,
) -> None:
    """Generate, explain, show, and write pictures, pages, arrays and summary.json."""
    from analyzer.methods.generation import attribute_generation

    if len(settings) != 1:
        raise UserError("--generate explains by one method. Fix: give --method one name")
    ((method, own),) = settings.items()
    results = []
    for prompt in prompts:
        with terminal.progress("generating and explaining") as progress:
            found = attribute_generation(
                fn,
                prompt,
                max_new_tokens=tokens,
                tokenizer=tokenizer,
                method=method,
                baseline_token=baseline_token,
                progress=progress,
                **{key: value for key, value in own.items() if key not in ("wrt", "baseline_inputs")},
            )
        results.append(found.by_word() if words else found)
    files = [] if output is None else _write(output, model, fn, names, results)
    _show(terminal, names, results, files)
    if terminal.as_json:
        terminal.document({**_document(model, fn, names, results), "files": [str(path) for path in files]})


def _show(
    terminal: Terminal, names: Sequence[str], results: Sequence[GenerationAttribution], files: Sequence[Path]
) -> None:
    from analyzer.cli.analyze_view import MOST_SAMPLES, show_files, show_rest
    from analyzer.figures import limit_of, tokens_text

    terminal.heading("Generated tokens")
    for name, result in list(zip(names, results, strict=True))[:MOST_SAMPLES]:
        terminal.out.print(f"{name}  ", style="bold", end="", markup=False)
        terminal.out.print(result.text, markup=False)
        texts = result.texts()
        limit = limit_of(texts)
        for text in texts:
            terminal.out.print()
            terminal.out.print(tokens_text(text, limit, terminal.out.width))
        if result.remark:
            terminal.remark(result.remark)
    show_rest(terminal, names)
    show_files(terminal, files)


def _write(
    folder: Path,
    model: str,
    fn: Differentiable,
    names: Sequence[str],
    results: Sequence[GenerationAttribution],
) -> list[Path]:
    from analyzer.cli.analyze_files import SUMMARY, earlier_pictures, file_stems, json_text, npz_bytes
    from analyzer.figures.canvas import png_of
    from converters.system.atomic import write_bytes, write_text
    from converters.system.locks import only_writer

    contents: dict[str, bytes] = {}
    for stem, result in zip(file_stems(names), results, strict=True):
        contents[f"{stem}-generated.png"] = png_of(result.plot())
        contents[f"{stem}-generated.html"] = result.to_html().encode()
    arrays = {
        f"{index}/{key}": array
        for index, result in enumerate(results)
        for key, array in (("scores", result.scores), ("ids", result.ids), ("generated", result.target))
        if array is not None
    }
    contents["arrays.npz"] = npz_bytes(arrays)
    folder.mkdir(parents=True, exist_ok=True)
    with only_writer(folder):
        earlier = earlier_pictures(folder)
        written = [write_bytes(folder / name, data) for name, data in contents.items()]
        made = {**_document(model, fn, names, results), "files": [str(path) for path in written]}
        written.append(write_text(folder / SUMMARY, json_text(made)))
        for path in earlier - set(written):
            path.unlink(missing_ok=True)
    return written


def _document(
    model: str, fn: Differentiable, names: Sequence[str], results: Sequence[GenerationAttribution]
) -> dict[str, Any]:
    from converters.system.environment import environment

    return {
        "command": "analyze",
        "model": model,
        "backend": fn.backend,
        "samples": [
            {
                "name": name,
                "method": result.method,
                "settings": dict(result.settings),
                "explained": result.explained,
                "tokens": list(result.tokens),
                "generated": [
                    {
                        "token": token,
                        "id": None if result.target is None else int(result.target[row]),
                        "probability": float(result.probabilities[row]),
                        "output": float(result.output[row]),
                        "error": None
                        if result.completeness is None
                        else float(result.completeness.error[row]),
                        "scores": result.scores[row, result.seen[row]].tolist(),
                    }
                    for row, token in enumerate(result.generated)
                ],
                "seconds": result.seconds,
            }
            for name, result in zip(names, results, strict=True)
        ],
        "environment": environment(),
    }
