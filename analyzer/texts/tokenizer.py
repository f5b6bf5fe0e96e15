"""Read a tokenizer.json with the package `tokenizers`, and what the files beside it say of padding and length.

From a file or a folder to a Tokenizer. Nothing is unpickled and no code of the folder is run. Refuses what is no
tokenizer.json, and folders without one; MissingDependency names the extra where the package is not installed.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from analyzer.errors import InputError, MissingDependency
from analyzer.texts.pieces import Piece, kind_of, pieces_of
from converters.errors import ConversionError, one_line
from converters.sources.hub.reading import read_json
from converters.sources.hub.tokens import TOKENIZER
from converters.system.extras import install

# transformers writes a number above this where a tokenizer knows no limit.
_NO_LIMIT = 10**6
_LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
# Their positions are counted from behind the padding token.
_SHIFTED = ("roberta", "xlm-roberta", "camembert", "longformer", "mpnet", "xlm-roberta-xl", "data2vec-text")
_PADDING = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>")
_FIX = "Fix: give the tokenizer.json that tokenizer.save_pretrained(folder) writes (tokenizer=, --tokens)"


@dataclass(frozen=True, eq=False)
class Encoded:
    """The tokens of one text. types: the segment of each. left_out: tokens that did not fit."""

    ids: list[int]
    types: list[int]
    left_out: int


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A tokenizer. content: its JSON. config, stated: the config.json and tokenizer_config.json beside it."""

    content: Mapping[str, Any]
    config: Mapping[str, Any]
    stated: Mapping[str, Any]
    engine: Any

    @classmethod
    def of(cls, content: Mapping[str, Any], folder: Path | None, where: str) -> Tokenizer:
        """Make a tokenizer of its JSON. Raises InputError where the package refuses it."""
        try:
            engine = _package().Tokenizer.from_str(json.dumps(content))
        except MissingDependency:
            raise
        except Exception as error:  # the package raises bare exceptions
            raise InputError(f"{where}: no tokenizer ({one_line(error, 120)}). {_FIX}") from error
        engine.no_padding()
        engine.no_truncation()
        config, stated = (
            _beside(folder, name) if folder is not None else {}
            for name in ("config.json", "tokenizer_config.json")
        )
        return cls(content, config, stated, engine)

    def encode(self, text: str, most: int | None = None) -> Encoded:
        """Return the tokens of a text, special ones included; at most so many. Raises InputError for no token."""
        try:
            whole = self.engine.encode(text)
        except Exception as error:  # such as UnicodeEncodeError of a lone surrogate
            raise InputError(
                f"expected a text in Unicode, got {text[:40]!r} ({one_line(error, 80)}). Fix: give "
                "a text without halves of surrogate pairs"
            ) from error
        found = whole
        if most is not None and len(whole.ids) > most:
            # The tokens at the end of a sequence, such as [SEP], are kept.
            self.engine.enable_truncation(most)
            try:
                found = self.engine.encode(text)
            finally:
                self.engine.no_truncation()
        if not found.ids:
            raise InputError(f"the text {text[:40]!r} has no token. Fix: give a text with at least one word")
        return Encoded(list(found.ids), list(found.type_ids), len(whole.ids) - len(found.ids))

    def bare(self, text: str) -> list[int]:
        """Return the ids of a text without special tokens. Raises InputError for a text without a token."""
        ids = list(self.engine.encode(text, add_special_tokens=False).ids)
        if not ids:
            raise InputError(f"the text {text[:40]!r} has no token. Fix: give a text with at least one word")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens left out."""
        text: str = self.engine.decode(list(ids), skip_special_tokens=True)
        return text

    def pieces(self, ids: Sequence[int]) -> list[Piece]:
        """Return how the tokens read."""
        tokens = [self.engine.id_to_token(int(one)) or f"<{one}>" for one in ids]
        return pieces_of(self._kind, tokens, [int(one) in self.special for one in ids])

    def id_of(self, token: str) -> int:
        """Return the id of one token, by its text (" cat") or as the vocabulary writes it ("Ġcat").

        Raises InputError where the text is several tokens.
        """
        known = self.engine.token_to_id(token)
        if known is not None:
            return int(known)
        ids = self.engine.encode(token, add_special_tokens=False).ids
        if len(ids) != 1:
            parts = ", ".join(repr(piece.text) for piece in self.pieces(ids))
            raise InputError(
                f"expected one token, got {token!r}, which is {len(ids)}: {parts}. Fix: give one of them"
            )
        return int(ids[0])

    @cached_property
    def special(self) -> frozenset[int]:
        """The ids of special tokens, such as [CLS] and padding; an unknown word is a part of the text."""
        added, model = self.content.get("added_tokens"), self.content.get("model")
        model = model if isinstance(model, Mapping) else {}
        unknown = (model.get("unk_token"), model.get("unk_id"))
        return frozenset(
            int(one["id"])
            for one in (added if isinstance(added, list) else ())
            if isinstance(one, Mapping)
            and one.get("special")
            and isinstance(one.get("id"), int)
            and one.get("content") not in unknown
            and one["id"] not in unknown
        )

    @cached_property
    def padding(self) -> int | None:
        """The id of the padding token: as the files state it, else of a token with such a name; None without one."""
        stated = self.content.get("padding")
        for found in (
            stated.get("pad_id") if isinstance(stated, Mapping) else None,
            self.config.get("pad_token_id"),
        ):
            if isinstance(found, int) and not isinstance(found, bool) and found >= 0:
                return found
        named = self.stated.get("pad_token")
        named = named.get("content") if isinstance(named, Mapping) else named
        names = (named, *_PADDING) if isinstance(named, str) else _PADDING
        ids = (self.engine.token_to_id(name) for name in names)
        return next((int(one) for one in ids if one is not None), None)

    @cached_property
    def limit(self) -> int | None:
        """The most tokens of a text, as the files state it; None where they do not."""
        cut = self.content.get("truncation")
        found = [
            self.stated.get("model_max_length"),
            cut.get("max_length") if isinstance(cut, Mapping) else None,
        ]
        shift = 0
        if self.config.get("model_type") in _SHIFTED:
            shift = int(self.config.get("pad_token_id") or 1) + 1
        found += [self.config[key] - shift for key in _LENGTHS if isinstance(self.config.get(key), int)]
        lengths = [int(one) for one in found if isinstance(one, (int, float)) and 0 < one < _NO_LIMIT]
        return min(lengths, default=None)

    @cached_property
    def _kind(self) -> str:
        return kind_of(self.content)


def open_tokenizer(source: Any) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json, or of a folder, or an .onnx file, with one.

    source: a path; a Tokenizer, of this package or of `tokenizers`; or a fast tokenizer of transformers.
    Raises InputError where there is none, InvalidModel for a damaged file, MissingDependency without the package
    `tokenizers`.
    """
    if isinstance(source, Tokenizer):
        return source
    engine = getattr(source, "backend_tokenizer", source)
    if hasattr(engine, "to_str") and hasattr(engine, "encode"):
        return Tokenizer.of(json.loads(engine.to_str()), None, type(source).__name__)
    if not isinstance(source, (str, os.PathLike)):
        raise InputError(f"expected a tokenizer, got {type(source).__name__}. {_FIX}")
    path = Path(source)
    folder, name = (path, TOKENIZER) if path.is_dir() else (path.parent, path.name)
    if path.suffix.lower() == ".onnx":
        near = (folder, folder.parent) if folder.name == "onnx" else (folder,)
        folder = next((one for one in near if (one / TOKENIZER).is_file()), folder)
        name = TOKENIZER
    content = read_json(folder, name)
    if content is None:
        raise InputError(f"{folder / name}: no such file. {_FIX}")
    return Tokenizer.of(content, folder, str(folder / name))


def _beside(folder: Path, name: str) -> Mapping[str, Any]:
    """The content of a further file; nothing where it is missing or damaged: it says padding and length alone."""
    try:
        return read_json(folder, name) or {}
    except ConversionError:
        return {}


def _package() -> Any:
    try:
        return importlib.import_module("tokenizers")
    except ModuleNotFoundError as error:
        raise MissingDependency(
            f"texts need the package tokenizers, which is not installed. Fix: {install('text')}"
        ) from error
