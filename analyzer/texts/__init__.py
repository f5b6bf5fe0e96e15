"""Texts as people have them, to batches of a model: a tokenizer.json makes ids, masks, token types and positions."""

from analyzer.texts.load import Texts, load_texts
from analyzer.texts.tokenizer import Tokenizer, open_tokenizer

__all__ = ["Texts", "Tokenizer", "load_texts", "open_tokenizer"]
