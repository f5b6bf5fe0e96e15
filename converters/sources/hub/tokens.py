"""Read the tokens of a tokenizer.json, in the order of their ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from converters.errors import InvalidModel
from converters.sources.hub.reading import read_json

TOKENIZER = "tokenizer.json"
# Ids that no token has are empty; more of them than this are no vocabulary.
_MOST = 2**22


def tokens_of(folder: Path, name: str = TOKENIZER) -> list[str] | None:
    """Return the token of each id; "" for an id without one. None where the file is missing.

    Raises InvalidModel where it holds no vocabulary.
    """
    content = read_json(folder, name)
    if content is None:
        return None
    found: dict[int, str] = {}
    for number, text in _entries(content):
        if type(number) is not int or not isinstance(text, str) or not 0 <= number < _MOST:
            raise InvalidModel(
                f"{folder / name}: expected tokens with ids, found {str(text)[:40]!r} with {str(number)[:40]}. "
                "Fix: write the file again with tokenizer.save(path)"
            )
        found[number] = text
    if not found:
        raise InvalidModel(
            f"{folder / name} holds no vocabulary. Fix: write the file again with tokenizer.save(path)"
        )
    return [found.get(number, "") for number in range(max(found) + 1)]


def _entries(content: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """The id and the text of every token: of the model's vocabulary, then of those that were added."""
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(vocabulary, Mapping):
        yield from ((number, text) for text, number in vocabulary.items())
    elif isinstance(vocabulary, list):
        # Of Unigram: [text, score] in the order of the ids.
        yield from (
            (number, one[0] if isinstance(one, list) and one else one)
            for number, one in enumerate(vocabulary)
        )
    added = content.get("added_tokens")
    for one in added if isinstance(added, list) else ():
        if isinstance(one, Mapping):
            yield one.get("id"), one.get("content")
