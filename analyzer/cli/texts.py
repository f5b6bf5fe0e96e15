"""Texts on the command line: an INPUT that is a text, or a .txt file with one text a line, and targets of tokens.

From the arguments of `analyze` to a batch of ids, by the tokenizer.json of the model's folder, and to Targets such as
the next token. Refuses texts for models that take none, and texts mixed with files of arrays.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from analyzer.cli.inputs import Batch, unique_names
from analyzer.cli.terminal import Terminal, UserError
from analyzer.graph.token_inputs import token_inputs, token_vectors

if TYPE_CHECKING:
    from analyzer.backends import Differentiable
    from analyzer.graph.graph import Graph
    from analyzer.target.target import TargetLike
    from analyzer.texts import Texts, Tokenizer
    from converters.model import Model

_FILES = (".npy", ".npz")
_NAME = 48
_NEXT = re.compile(r"next(:(?P<token>.+?))?(\s+-\s+next:(?P<other>.+))?", re.DOTALL)
LIKELIHOOD = "likelihood"
_MASKS = ("[MASK]", "<mask>")

InputsOrTexts = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Images, .npy arrays, or one .npz with an array per model input; folders and patterns of them, such as "
        "'photos/*.jpg'. For a language model with a tokenizer.json: a text, or a .txt file with one text a line.",
    ),
]
WordsOption = Annotated[
    bool,
    typer.Option(
        "--words", help="Join the tokens of a word, whose scores are summed.", rich_help_panel="Text"
    ),
]
BaselineTokenOption = Annotated[
    str | None,
    typer.Option(
        "--baseline-token",
        metavar="TOKEN",
        help="Begin the path of Integrated Gradients at a text whose tokens are all this one, such as '[PAD]'; special "
        "tokens stay.",
        rich_help_panel="Text",
    ),
]
GenerateOption = Annotated[
    int | None,
    typer.Option(
        "--generate",
        min=1,
        metavar="N",
        help="Generate up to N tokens after each text, and explain each by the tokens before it. "
        "Default method: integrated-gradients.",
        rich_help_panel="Text",
    ),
]


def read_texts_of(
    inputs: Sequence[str], model: str, loaded: Model, graph: Graph, tokens: Path | None, terminal: Terminal
) -> Texts | None:
    """Return the INPUTs as Texts; None where they are files of arrays or images. Raises UserError for a mixture."""
    texts = [given for given in inputs if _is_text(given)]
    if not texts or token_inputs(graph) is None:
        return None
    if len(texts) < len(inputs):
        other = next(given for given in inputs if given not in texts)
        raise UserError(
            f"{other}: a file of arrays among texts. Fix: give texts alone, or arrays alone, in one call"
        )
    from analyzer.texts.load import lines_of, read_texts

    lines = [line for given in texts for line in lines_of(Path(given) if _is_file_of_texts(given) else given)]
    tokenizer = tokenizer_of(model, loaded, tokens)
    if tokenizer is None:
        raise UserError(
            f"{texts[0][:40]!r}: no such file; as a text it needs a tokenizer.json, and {model} has none. Fix: give "
            "--tokens tokenizer.json, or the path of an existing file"
        )
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        found = read_texts(lines, graph, tokenizer)
    for note in notes:
        terminal.note(f"Note: {note.message}.")
    return found


def tokenizer_of(model: str, loaded: Model, tokens: Path | None) -> Tokenizer | None:
    """Return the tokenizer of --tokens FILE.json, else that of the model's folder; None where there is none."""
    from analyzer.texts import open_tokenizer
    from converters.sources.hub.tokens import TOKENIZER

    if tokens is not None and tokens.suffix.lower() == ".json":
        return open_tokenizer(tokens)
    path = loaded.folder or Path(model)
    folders = [path] if path.is_dir() else [path.parent, path.parent.parent]
    found = next(
        (one for one in folders[: 1 + (path.parent.name == "onnx")] if (one / TOKENIZER).is_file()), None
    )
    return None if found is None else open_tokenizer(found)


def batch_of(texts: Texts) -> Batch:
    """Return texts as the batch of a command, each under its first characters."""
    names = [text if len(text) <= _NAME else f"{text[: _NAME - 1]}…" for text in texts.texts]
    return Batch(dict(texts), unique_names(names), None, False, (None,) * len(names))


def _is_text(given: str) -> bool:
    """Whether an INPUT is a text: no file, folder or pattern of files, and nothing that looks like a missing array."""
    if _is_file_of_texts(given):
        return True
    path = Path(given)
    try:
        exists = path.exists()
    except (OSError, ValueError):  # longer than a path may be
        return True
    pattern = (
        any(mark in given for mark in "*?[") and " " not in given and any(Path().glob(given.lstrip("/")))
    )
    return not (exists or pattern or path.suffix.lower() in _FILES)


def _is_file_of_texts(given: str) -> bool:
    return given.lower().endswith(".txt") and " " not in given.strip()


def asks_for_tokens(target: str | None, texts: Texts | None) -> bool:
    """Return whether `language_target` decides: for its own words, and for texts without a --target."""
    if target is None:
        return texts is not None
    return target == LIKELIHOOD or _NEXT.fullmatch(target) is not None


def language_target(
    text: str | None, fn: Differentiable, batch: Batch, tokenizer: Tokenizer | None, terminal: Terminal
) -> tuple[TargetLike, tuple[str, ...]] | None:
    """Return the Target of --target next, next:TOKEN, "next:A - next:B" or likelihood, with words for each sample.

    None for any other text.
    Without --target, the token at the mask, or a decoder's next token, is explained where the inputs are texts.
    """
    from analyzer.targets import sequence_log_probability, token_difference

    if text == LIKELIHOOD:
        said = ("the mean log-probability of the tokens",) * len(batch.names)
        return sequence_log_probability(fn, batch.inputs), said
    asked = _NEXT.fullmatch(text) if text is not None else None
    if text is None and tokenizer is not None:
        return _of_tokens(fn, batch, tokenizer, terminal)
    if asked is None:
        return None
    first, other = (_id_of(asked[name], tokenizer) for name in ("token", "other"))
    if other is not None and first is not None:
        both = " against ".join(_read(one, tokenizer) for one in (first, other))
        return token_difference(fn, batch.inputs, first, other), (f"next token {both}",) * len(batch.names)
    return _next(fn, batch, tokenizer, first)


def _of_tokens(
    fn: Differentiable, batch: Batch, tokenizer: Tokenizer, terminal: Terminal
) -> tuple[TargetLike, tuple[str, ...]] | None:
    """Return the default target: the token at a mask, or the next token of a decoder; None for other models."""
    known = token_inputs(fn.graph)
    if known is None or not _gives_tokens(fn):
        return None
    ids = batch.arrays[known.ids]
    masks = [tokenizer.engine.token_to_id(name) for name in _MASKS]
    at = np.isin(ids, [one for one in masks if one is not None])
    if (at.sum(axis=1) == 1).all():
        terminal.note("Note: explains the log-probability of the token at the mask.")
        return _next(fn, batch, tokenizer, None, at.argmax(axis=1))
    if not _is_decoder(fn, ids_of_rows(batch, fn.graph)[0]):
        return None
    terminal.note("Note: explains the log-probability of the next token, as --target next does.")
    return _next(fn, batch, tokenizer, None)


def _next(
    fn: Differentiable,
    batch: Batch,
    tokenizer: Tokenizer | None,
    token: int | None,
    position: np.ndarray | None = None,
) -> tuple[TargetLike, tuple[str, ...]]:
    """The target of a token at a position, and the token in words; of the likeliest tokens as they are found here."""
    from analyzer.targets import next_token
    from analyzer.targets.language import LanguageModel

    found: Any = token
    if token is None:
        language = LanguageModel.read(fn, batch.inputs, None, None)
        logits = fn.forward(batch.inputs, [language.output])[language.output]
        found = logits[np.arange(language.samples), language.positions(position)].argmax(axis=1)
    what = "token at the mask" if position is not None else "next token"
    each = np.broadcast_to(found, (len(batch.names),))
    said = tuple(f"{what} {_read(int(one), tokenizer)}" for one in each)
    return next_token(fn, batch.inputs, found, position=position), said


def _read(token: int, tokenizer: Tokenizer | None) -> str:
    """A token in words: its text, and its id."""
    return str(token) if tokenizer is None else f"{tokenizer.pieces([token])[0].shown!r} ({token})"


def _gives_tokens(fn: Differentiable) -> bool:
    """Whether the first output has a number for each row of the table of tokens, at each token."""
    y = fn.graph.tensors[fn.graph.default_output]
    lookups = (fn.graph.producer[name] for name in token_vectors(fn.graph))
    tables = {fn.graph.tensors[node.inputs[0]].shape for node in lookups if node.op_type == "Gather"}
    rows = {shape[0] for shape in tables if shape}
    return y.shape is not None and len(y.shape) == 3 and y.shape[2] in rows


def _is_decoder(fn: Differentiable, ids: np.ndarray) -> bool:
    """Whether logits depend on earlier tokens alone."""
    from analyzer.errors import AnalysisError
    from analyzer.methods.generation.decoder import Decoder

    try:
        Decoder.of(fn, ids, None, None).refuse_look_ahead(ids)
    except AnalysisError:
        return False
    return True


def _id_of(token: str | None, tokenizer: Tokenizer | None) -> int | None:
    """The id of a token, given as a number or as a text."""
    if token is None:
        return None
    if tokenizer is not None and tokenizer.engine.token_to_id(token) is not None:
        return tokenizer.id_of(token)
    if re.fullmatch(r"\d+", token.strip()):
        return int(token)
    if tokenizer is None:
        raise UserError(
            f"--target next:{token}: a text needs a tokenizer.json. Fix: give the id of the token, or --tokens FILE"
        )
    return tokenizer.id_of(token)


def with_baseline_token(
    settings: dict[str, dict[str, Any]], methods: Any, texts: Texts | None, token: str | None
) -> None:
    """Let the path methods begin at a text of this token. Raises UserError where there is no text or path."""
    if token is None:
        return
    takers = [name for name in settings if "baseline_inputs" in methods[name].parameters]
    if texts is None or not takers:
        what = (
            "a text as INPUT"
            if texts is None
            else "a method with a path, such as --method integrated-gradients"
        )
        raise UserError(f"--baseline-token {token}: expected {what}. Fix: give one, or omit --baseline-token")
    number = _id_of(token, texts.tokenizer)
    for name in takers:
        settings[name]["baseline_inputs"] = texts.baseline(number)


def ids_of_rows(batch: Batch, graph: Graph) -> list[np.ndarray]:
    """Return the token ids of every sample without its padding, as a mask among the inputs tells it."""
    known = token_inputs(graph)
    if known is None:
        raise UserError(
            "--generate: expected a decoder with token ids as input. Fix: give a language model, or omit --generate"
        )
    ids = batch.arrays[known.ids]
    mask = np.ones_like(ids) if known.mask is None else batch.arrays[known.mask]
    return [row[kept != 0] for row, kept in zip(ids, mask, strict=True)]
