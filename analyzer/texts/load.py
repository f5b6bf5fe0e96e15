"""Load texts for a model: one text, several, or a file with one text a line become a batch of its inputs.

From texts and a tokenizer.json to Texts: token ids, mask, types and positions, padded on the right. Refuses models
with other inputs, texts without a token, and padding where the model has neither a mask nor a padding token.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.errors import InputError, note
from analyzer.graph.graph import Graph
from analyzer.graph.token_inputs import TokenInputs, position_limit, token_inputs
from analyzer.texts.pieces import Piece
from analyzer.texts.tokenizer import Encoded, Tokenizer, open_tokenizer
from converters import load
from converters.system.arguments import named_arguments

MOST_BYTES = 2**26
"""Bytes of a file of texts."""
_BASELINES = ("[PAD]", "<pad>", "[MASK]", "<mask>", "<unk>", "[UNK]", "<|endoftext|>")


class Texts(dict[str, np.ndarray]):
    """A batch of texts as the inputs of a model, {input name: (N, T)}, which every method takes.

    texts: as they were given. pieces: how the tokens of each read, without its padding. ids: the name of the input of
    token ids. left_out: the tokens of each text that did not fit.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        texts: Sequence[str],
        encoded: Sequence[Encoded],
        ids: str,
        tokenizer: Tokenizer,
    ) -> None:
        super().__init__(arrays)
        self.texts = tuple(texts)
        self.ids = ids
        self.tokenizer = tokenizer
        self.pieces: list[list[Piece]] = [tokenizer.pieces(one.ids) for one in encoded]
        self.left_out = tuple(one.left_out for one in encoded)

    @property
    def tokens(self) -> list[list[str]]:
        """The tokens of each text, without its padding: rows of names for `texts`, `plot` and `scored_tokens`."""
        return [[piece.shown for piece in row] for row in self.pieces]

    def baseline(self, token: int | str | None = None) -> dict[str, np.ndarray]:
        """Return the inputs with every token but the special ones replaced: `baseline_inputs` of path methods.

        Special tokens and padding then have no attribution.
        token: the token in their place, an id or a text. Default: padding, else the mask or the unknown token.
        Raises InputError where the vocabulary has none of these.
        """
        chosen = self._neutral() if token is None else token
        number = self.tokenizer.id_of(chosen) if isinstance(chosen, str) else int(chosen)
        found = {name: array.copy() for name, array in self.items()}
        for sample, row in enumerate(self.pieces):
            columns = [column for column, piece in enumerate(row) if not piece.special]
            found[self.ids][sample, columns] = number
        return found

    def _neutral(self) -> int:
        engine = self.tokenizer.engine
        known = (self.tokenizer.padding, *(engine.token_to_id(name) for name in _BASELINES))
        number = next((one for one in known if one is not None), None)
        if number is None:
            raise InputError(
                "the vocabulary has no padding, mask or unknown token. Fix: give baseline(token) an id or a text"
            )
        return int(number)


@named_arguments
def load_texts(texts: Any, model: Any, *, tokenizer: Any = None, max_length: int | None = None) -> Texts:
    """Return texts as the inputs of a model: token ids, and a mask, token types and positions where it has them.

    texts: a text, a list of texts, or the Path of a .txt file with one text a line.
    model: a folder of Hugging Face or another path, what `convert` or `load` returned, or a Differentiable.
    tokenizer: the path of a tokenizer.json or of its folder, or a fast tokenizer. Default: that of the folder.
    max_length: the most tokens of a text. Default: as the files of the folder state it. A Note names longer texts, the
        ends of which are left out.
    Raises InputError for a text without a token, a model with other inputs, and where there is no tokenizer;
    MissingDependency where the package `tokenizers` is not installed.
    """
    graph, folder = _graph_of(model)
    if tokenizer is None and folder is None:
        raise InputError(
            "the model was not read from a folder with a tokenizer.json. Fix: give tokenizer=, the path of one"
        )
    return read_texts(
        lines_of(texts), graph, open_tokenizer(folder if tokenizer is None else tokenizer), max_length
    )


def read_texts(
    texts: Sequence[str], graph: Graph, tokenizer: Tokenizer, max_length: int | None = None
) -> Texts:
    """Return texts as the inputs of a graph. See `load_texts`."""
    known = token_inputs(graph)
    if known is None:
        raise InputError(
            "expected a model whose inputs (N, T) are token ids, a mask, token types or positions, found "
            f"{', '.join(graph.inputs)}. Fix: give arrays, an .npz with one for each input"
        )
    fixed = _length(graph, known)
    stated = tokenizer.limit if max_length is None else max_length
    limits = [one for one in (fixed, stated, position_limit(graph)) if one is not None]
    encoded = [tokenizer.encode(text, min(limits, default=None)) for text in texts]
    for index, one in enumerate(encoded):
        if one.left_out:
            note(
                f"text {index} has {len(one.ids) + one.left_out} tokens, and the model takes {min(limits)}: the last "
                f"{one.left_out} are left out"
            )
    arrays = _arrays(graph, known, encoded, fixed, tokenizer)
    return Texts(arrays, texts, encoded, known.ids, tokenizer)


def lines_of(texts: Any) -> list[str]:
    """Return texts as a list. Raises InputError for what is no text, and a file that is missing or no UTF-8."""
    if isinstance(texts, os.PathLike):
        return _lines(Path(texts))
    found = [texts] if isinstance(texts, str) else list(texts)
    if not found or not all(isinstance(text, str) for text in found):
        raise InputError(f"expected texts, got {texts!r:.60}. Fix: give a text, or a list of texts")
    return found


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path}: expected at most {MOST_BYTES >> 20} MiB of text. Fix: split the file")
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}. Fix: give the path of a text file, one text a line"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no UTF-8 text. Fix: write it again in UTF-8, one text a line") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise InputError(f"{path}: holds no text. Fix: write one text a line")
    return found


def _graph_of(model: Any) -> tuple[Graph, Any]:
    """The graph of a model, and the folder with its tokenizer."""
    graph = getattr(model, "graph", None)
    if isinstance(graph, Graph):
        return graph, model.model.folder
    path = model if isinstance(model, (str, os.PathLike)) else None
    loaded = load(model)
    # A path on this machine has its tokenizer beside it, also where no config.json says what the folder is.
    return Graph.from_proto(loaded.light), loaded.folder or (
        path if path is not None and Path(path).exists() else None
    )


def _length(graph: Graph, known: TokenInputs) -> int | None:
    """The number of tokens that the model's inputs state, None where it is free."""
    shapes = (graph.tensors[name].shape or (None, None) for name in known.names)
    return next((shape[1] for shape in shapes if isinstance(shape[1], int)), None)


def _arrays(
    graph: Graph, known: TokenInputs, encoded: Sequence[Encoded], fixed: int | None, tokenizer: Tokenizer
) -> dict[str, np.ndarray]:
    longest = max(len(one.ids) for one in encoded)
    length = longest if fixed is None else fixed
    padded = any(len(one.ids) < length for one in encoded)
    if padded and known.mask is None and tokenizer.padding is None:
        raise InputError(
            "texts of different lengths need padding, and neither a mask nor a padding token is known. Fix: give one "
            "text at a time"
        )
    filler = tokenizer.padding or 0
    shape = (len(encoded), length)
    found = {"ids": np.full(shape, filler), "mask": np.zeros(shape), "types": np.zeros(shape)}
    for sample, one in enumerate(encoded):
        found["ids"][sample, : len(one.ids)] = one.ids
        found["mask"][sample, : len(one.ids)] = 1
        found["types"][sample, : len(one.ids)] = one.types
    found["positions"] = positions_of(found["mask"])
    return {name: found[kind].astype(graph.tensors[name].dtype) for kind, name in known}


def positions_of(mask: np.ndarray) -> np.ndarray:
    """Return the position of each token among those that are no padding, as transformers counts them."""
    found: np.ndarray = np.maximum(np.cumsum(mask != 0, axis=1) - 1, 0)
    return found
