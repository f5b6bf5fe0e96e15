"""Text models on a page: which input takes the tokens, and whether the tokenizer's every part runs in the browser.

From a Description and the text of a tokenizer.json to plain data for the page. Refuses inputs whose meaning their names
do not tell, and tokenizers with a part that the JavaScript package lacks: other tokens would explain another text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx

from analyzer.errors import ExportError
from analyzer.explainer.description import TOKENIZER_KEY, Description, Port
from analyzer.graph.token_inputs import kind_of_name

MOST_BYTES = 2**26
# The parts of @huggingface/tokenizers that give the ids of the Python package, measured on texts that are hard to split
# (tools/web/tokenizer_cases.py). Its Whitespace, Punctuation and Digits split some of them elsewhere.
PARTS: Mapping[str, frozenset[str]] = {
    "normalizer": frozenset(
        (
            "BertNormalizer", "Precompiled", "Sequence", "Replace", "NFC", "NFD", "NFKC", "NFKD", "Strip",
            "StripAccents", "Lowercase", "Prepend",
        )
    ),
    "pre_tokenizer": frozenset(
        ("BertPreTokenizer", "Sequence", "WhitespaceSplit", "Metaspace", "ByteLevel", "Split")
    ),
    "model": frozenset(("WordPiece", "Unigram", "BPE")),
    "post_processor": frozenset(
        ("TemplateProcessing", "ByteLevel", "BertProcessing", "RobertaProcessing", "Sequence")
    ),
}  # fmt: skip
INTEGERS = ("int64", "int32")
NUMBERS = (*INTEGERS, "float32", "bool")
FIX = "Fix: give the tokenizer.json of the model with --tokenizer FILE"


def is_text(found: Description) -> bool:
    """Return whether the model reads token ids: all its own inputs are (N, T), one of them of integers."""
    own = [port for port in found.inputs if port.role == "model"]
    return bool(own) and all(_is_row(port) for port in own) and any(port.type in INTEGERS for port in own)


def _is_row(port: Port) -> bool:
    return len(port.shape) == 2 and port.type in NUMBERS


def token_inputs(found: Description) -> dict[str, Any]:
    """Return the inputs of a text model by what they take: ids, mask, types, positions. Raises ExportError."""
    taken: dict[str, Port] = {}
    own = [port for port in found.inputs if port.role == "model"]
    for port in own:
        kind = kind_of_name(port.name, alone=len(own) == 1)
        if kind in taken or (kind == "ids" and port.type not in INTEGERS):
            raise ExportError(
                f"expected inputs that are token ids, a mask, token types or positions, found {port.name!r} besides. "
                "Fix: export a model with inputs such as input_ids and attention_mask"
            )
        taken[kind] = port
    if "ids" not in taken:
        names = ", ".join(repr(port.name) for port in own)
        raise ExportError(
            f"expected an input of token ids, such as input_ids, found {names}. Fix: export a model with such an input"
        )
    lengths = {port.shape[1] for port in own if isinstance(port.shape[1], int)}
    if len(lengths) > 1:
        raise ExportError(
            "expected inputs of one length. Fix: export a model whose inputs have the same length"
        )
    return {
        "inputs": {kind: {"name": port.name, "type": port.type} for kind, port in taken.items()},
        "length": lengths.pop() if lengths else None,
    }


def tokenizer_text(proto: onnx.ModelProto, given: Path | None) -> str:
    """Return the text of tokenizer.json: of a file, else of the explainer's metadata. Raises ExportError."""
    stored: str | None = {one.key: one.value for one in proto.metadata_props}.get(TOKENIZER_KEY)
    where = str(given) if given is not None else f"the metadata {TOKENIZER_KEY!r}"
    if given is not None:
        stored = _read(given)
    if stored is None:
        raise ExportError(f"expected the tokenizer of a text model, found none in the file. {FIX}")
    try:
        content = json.loads(stored)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{where}: expected the JSON of a tokenizer.json. {FIX}") from error
    _check(content, where)
    return stored


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ExportError(f"{path}: expected a tokenizer of at most {MOST_BYTES >> 20} MiB. {FIX}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ExportError(f"{path}: expected text in UTF-8. {FIX}") from error
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror}. {FIX}") from error


def _check(content: Any, where: str) -> None:
    """Refuse a tokenizer that would give other tokens in the browser."""
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ExportError(f"{where}: expected the JSON of a tokenizer.json. {FIX}")
    for place, known in PARTS.items():
        for part in _parts(content.get(place)):
            kind = part.get("type")
            if kind not in known:
                raise ExportError(
                    f"{where}: expected a {place} that runs in the browser, found {str(kind)[:40]!r}. Fix: give a "
                    f"tokenizer of {', '.join(sorted(known))}"
                )
    found = _difference(content)
    if found:
        raise ExportError(
            f"{where}: expected a tokenizer that gives the same tokens in the browser, found {found}. Fix: give a "
            "tokenizer without it"
        )


def _difference(content: Mapping[str, Any]) -> str | None:
    """Return what the JavaScript tokenizer does otherwise than the Python package; None where there is nothing."""
    splits = list(_parts(content.get("pre_tokenizer")))
    for part in splits:
        pattern = part.get("pattern")
        regex = isinstance(pattern, Mapping) and "Regex" in pattern
        if part.get("type") == "Split" and (
            part.get("behavior") not in ("Removed", "Isolated") or not regex or part.get("invert")
        ):
            return f"a Split with the behavior {str(part.get('behavior'))[:40]!r}, a plain text or invert"
    model, added = content["model"], content.get("added_tokens")
    if any(isinstance(one, Mapping) and one.get("single_word") for one in added or ()):
        return "an added token that is a single word"
    if "merges" not in model:
        return None
    if model.get("dropout") or model.get("continuing_subword_prefix"):
        return "a BPE with dropout or a prefix of subwords"
    whole = any(part.get("type") == "ByteLevel" for part in splits) or model.get("byte_fallback")
    if not whole and (model.get("unk_token") is None or model.get("fuse_unk")):
        return "a BPE that leaves out or joins unknown characters"
    return None


def _parts(part: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the part and those inside it; a model that does not state its type is a BPE or a WordPiece of old files."""
    if not isinstance(part, dict):
        return
    if "type" not in part and "vocab" in part:
        part = {**part, "type": "BPE" if "merges" in part else "WordPiece"}
    yield part
    for key in ("normalizers", "pretokenizers", "processors"):
        inner = part.get(key)
        for one in inner if isinstance(inner, list) else ():
            yield from _parts(one)
