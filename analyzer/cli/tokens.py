"""Text models on the command line: attributions at embedded tokens as coloured text, named from a vocabulary file.

From results, the ids that were fed and the tokens by id to ScoredTokens. Refuses a vocabulary where nothing is
attributed to embedded tokens, and one that ends before an id that was fed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from analyzer.cli.terminal import UserError
from analyzer.graph.embeddings import embedded_tokens
from analyzer.graph.names import EMBEDDING

if TYPE_CHECKING:
    from analyzer.figures import ScoredTokens
    from analyzer.graph.graph import Graph
    from analyzer.methods.result import Attribution
    from analyzer.texts import Texts

ScoredTexts = Sequence[Sequence["ScoredTokens"]]
# A token that ends a row so many times is its padding.
PADDING_RUN = 3

TokensOption = Annotated[
    Path | None,
    typer.Option(
        "--tokens",
        metavar="FILE",
        help="Of a text model: the vocabulary, one token a line, from id 0 on, or a tokenizer.json. Default: that of a "
        "Hugging Face folder, else ids are shown.",
        rich_help_panel="Text",
    ),
]


def read_vocabulary(path: Path) -> list[str]:
    """The tokens by id. Raises UserError for what is no text."""
    if path.suffix.lower() == ".json":
        return _from_tokenizer(path)
    try:
        # Tokens may hold any other break of lines that Unicode has.
        lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise UserError(
            f"--tokens {path}: {error.strerror}. Fix: give the path of a text file, one token a line"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"--tokens {path}: no UTF-8 text. Fix: write it again in UTF-8, one token a line"
        ) from error
    return [line.removesuffix("\r") for line in lines]


def _from_tokenizer(path: Path) -> list[str]:
    from converters.sources.hub.tokens import tokens_of

    found = tokens_of(path.parent, path.name)
    if found is None:
        raise UserError(f"--tokens {path}: no such file. Fix: give the path of a tokenizer.json")
    return found


def own_vocabulary(model: str, settings: Mapping[str, Mapping[str, Any]], graph: Graph) -> list[str] | None:
    """The tokens that a folder of Hugging Face holds, where embedded tokens are attributed; else None."""
    from converters.sources.hub import open_folder
    from converters.sources.hub.tokens import tokens_of

    floats = any(graph.tensors[name].is_float for name in graph.inputs)
    if floats and not any(EMBEDDING in np.atleast_1d(own.get("wrt") or ()) for own in settings.values()):
        return None
    found = open_folder(model)
    return None if found is None else tokens_of(found.folder)


def texts_of(
    results: Sequence[Attribution],
    inputs: Mapping[str, np.ndarray],
    graph: Graph,
    vocabulary: Sequence[str] | Texts | None,
) -> list[list[ScoredTokens]]:
    """Per sample, a text for each method and each tensor of embedded tokens that it attributes.

    The vocabulary, or the Texts that were read, are of the first such tensor; further ones, as of segments, show ids.
    """
    from analyzer.methods.full_gradient.result import FullGrad
    from analyzer.methods.pictures import caption_of
    from analyzer.methods.token_scores import TokenNames, scored_tokens, scores_of
    from analyzer.texts import Texts

    texts: list[list[ScoredTokens]] = [[] for _ in next(iter(inputs.values()))]
    embedded = [
        name for name in embedded_tokens(graph) if any(scores_of(one, name) is not None for one in results)
    ]
    if vocabulary is not None and not embedded:
        raise UserError(
            "--tokens names embedded tokens, and nothing is attributed to any. Fix: give --wrt embedding"
        )
    for name in embedded:
        ids = _ids_of(name, inputs, graph)
        if ids is None:
            continue
        own_names = vocabulary if name == embedded[0] else None
        rows: TokenNames = (
            own_names if isinstance(own_names, Texts) else [_named(row, own_names) for row in ids]
        )
        for result in results:
            scores = scores_of(result, name)
            if scores is None:
                continue
            of = f", {name}" if len(embedded) > 1 else ""
            sized = not (result.is_map or result.signed or isinstance(result, FullGrad))
            size = ", by size" if sized else ""
            captions = [caption_of(result, index) + size + of for index in range(len(ids))]
            sums = result.completeness if len(result.by_tensor(result.attributions)) == 1 else None
            found = scored_tokens(scores, rows, None if sums is None else sums.output, captions)
            for own, text in zip(texts, found, strict=True):
                own.append(text)
    return texts


def by_word(texts: Sequence[Sequence[ScoredTokens]]) -> list[list[ScoredTokens]]:
    """Return texts with a token for each word. Raises UserError where nothing tells the words."""
    try:
        return [[one.by_word() for one in own] for own in texts]
    except ValueError as error:
        raise UserError(
            "--words: expected a text as INPUT, whose tokenizer tells the words. Fix: give the text, or omit --words"
        ) from error


def tokens_json(texts: Sequence[ScoredTokens]) -> dict[str, Any]:
    """One sample's texts for the machine-readable output; empty where there are none."""
    if not texts:
        return {}
    return {
        "tokens": [
            {
                "caption": text.caption,
                "tokens": list(text.tokens),
                "scores": text.scores.tolist(),
                **({"special": [bool(one) for one in text.special]} if any(text.special) else {}),
            }
            for text in texts
        ]
    }


def _ids_of(name: str, inputs: Mapping[str, np.ndarray], graph: Graph) -> np.ndarray | None:
    """The ids (N, T) that became these vectors; None where they are not one input of as many tokens."""
    shape = graph.tensors[name].shape
    found = [
        array
        for key, array in inputs.items()
        if array.dtype.kind in "iu" and array.ndim == 2 and name in graph.descendants([key])
    ]
    return found[0] if len(found) == 1 and shape is not None and len(shape) == 3 else None


def _named(ids: np.ndarray, vocabulary: Sequence[str] | None) -> list[str]:
    """The tokens of a row, up to its padding."""
    end = len(ids)
    while end > 1 and ids[end - 2] == ids[-1]:
        end -= 1
    run = len(ids) - end + 1
    kept = ids if run < PADDING_RUN else ids[: end - 1]
    if vocabulary is None:
        return [str(number) for number in kept]
    beyond = [int(number) for number in kept if not 0 <= number < len(vocabulary)]
    if beyond:
        raise UserError(
            f"--tokens: {len(vocabulary)} lines have no token of id {beyond[0]}. Fix: give the vocabulary of this "
            "model"
        )
    return [vocabulary[number] for number in kept]
