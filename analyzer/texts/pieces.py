"""Say how the tokens of a tokenizer.json read: the text of each, and whether it begins a word.

From the JSON of a tokenizer and token ids to Pieces. Each kind marks spaces and continued words in its way:
"Ġcat" (bytes), "▁cat" (Metaspace), "##ing" (WordPiece), "cat</w>" (BPE with a suffix).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BYTES, SPACES, CONTINUED, ENDED, PLAIN = "bytes", "spaces", "continued", "ended", "plain"
_KINDS = {"ByteLevel": BYTES, "Metaspace": SPACES, "WordPiece": CONTINUED, "BPEDecoder": ENDED}
_SPACE, _CONTINUATION, _END = "▁", "##", "</w>"


@dataclass(frozen=True)
class Piece:
    """A token as it is read. text: what it adds, with its space before. begins: whether it begins a word.

    special: whether it is a mark of the tokenizer, such as [CLS], and no part of the text. data: the bytes of a
    byte-level token, which may be a part of a character.
    """

    text: str
    begins: bool
    special: bool
    data: bytes | None = None

    @property
    def shown(self) -> str:
        """The text without the space before a word."""
        return self.text[1:] if len(self.text) > 1 and self.text[0] == " " else self.text


def kind_of(content: Mapping[str, Any]) -> str:
    """Return how the tokens of a tokenizer.json mark spaces."""
    for part in (*_parts(content.get("decoder")), *_parts(content.get("pre_tokenizer"))):
        if part.get("type") in _KINDS:
            return _KINDS[str(part["type"])]
        pattern = part.get("pattern")
        if part.get("type") == "Replace" and isinstance(pattern, Mapping) and pattern.get("String") == _SPACE:
            return SPACES
    model = content.get("model")
    return CONTINUED if isinstance(model, Mapping) and model.get("type") == "WordPiece" else PLAIN


def pieces_of(kind: str, tokens: Sequence[str], special: Sequence[bool]) -> list[Piece]:
    """Return the pieces of tokens in their order."""
    found: list[Piece] = []
    for index, (token, mark) in enumerate(zip(tokens, special, strict=True)):
        if mark:
            found.append(Piece(token, True, True))
            continue
        text, data = _text(kind, token), _bytes_of(token) if kind == BYTES else None
        first = index == 0 or found[-1].special
        begins = first or _begins(kind, token, text, tokens[index - 1], found[-1].text)
        found.append(Piece(text, begins, False, data))
    return found


def _text(kind: str, token: str) -> str:
    if kind == BYTES:
        data = _bytes_of(token)
        return token if data is None else _read(data)
    if kind == SPACES:
        return token.replace(_SPACE, " ")
    return token.removesuffix(_END) if kind == ENDED else token


def _begins(kind: str, token: str, text: str, before: str, text_before: str) -> bool:
    """Whether a token begins a word, given the one before it."""
    if kind == CONTINUED:
        return not token.startswith(_CONTINUATION)
    if kind == ENDED:
        return before.endswith(_END)
    if kind == PLAIN or not text or not text_before:
        return True
    if not text_before.strip(" "):
        return False
    if text.startswith("\\x"):
        return text_before[-1].isspace()
    # Punctuation is a word, as tokenizers split it.
    return text[0].isspace() or text_before[-1].isspace() or text[0].isalnum() != text_before[-1].isalnum()


def words_of(pieces: Sequence[Piece]) -> list[tuple[str, int]]:
    """Return the text of each word and the number of its tokens."""
    found: list[list[Piece]] = []
    for piece in pieces:
        if piece.begins or not found:
            found.append([])
        found[-1].append(piece)
    return [(joined(one), len(one)) for one in found]


def joined(pieces: Sequence[Piece]) -> str:
    """Return the text of the pieces of one word."""
    parts = [piece.data for piece in pieces]
    if all(part is not None for part in parts):
        return _read(b"".join(part for part in parts if part is not None)).strip(" ") or " "
    whole = "".join(
        piece.text.removeprefix(_CONTINUATION) if k else piece.text for k, piece in enumerate(pieces)
    )
    return whole.strip(" ") or " "


def _byte_of() -> dict[str, int]:
    """The byte of each character of a byte-level vocabulary (Radford et al. 2019, the code of GPT-2)."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + k): byte for k, byte in enumerate(others)}


_BYTES = _byte_of()


def _bytes_of(token: str) -> bytes | None:
    """The bytes of a byte-level token; None of an added token, which is plain text."""
    return None if any(one not in _BYTES for one in token) else bytes(_BYTES[one] for one in token)


def _read(data: bytes) -> str:
    """The text of bytes; those that are a part of a character in hexadecimal."""
    return data.decode("utf-8", "backslashreplace")


def _parts(part: Any) -> Iterator[Mapping[str, Any]]:
    """Yield a part of a tokenizer and those inside it."""
    if not isinstance(part, Mapping):
        return
    yield part
    for key in ("decoders", "pretokenizers"):
        inner = part.get(key)
        for one in inner if isinstance(inner, list) else ():
            yield from _parts(one)
