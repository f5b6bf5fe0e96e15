"""Small tokenizers of each kind, trained on a few sentences, with exactly the vocabulary of the small networks."""

from __future__ import annotations

import json
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.zoo.language import VOCABULARY

SENTENCES = ["the cat sat on the mat", "a cat eats rats", "the rat sat"]


def byte_level(size: int = 300) -> Tokenizer:
    """Like GPT-2: bytes, a space is part of the word after it, no padding token but the end of the text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES, trainer)
    return made


def word_piece() -> Tokenizer:
    """Like BERT: lower case, [CLS] and [SEP] around a text, "##" before a continued word."""
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "the",
        "cat",
        "sat",
        "on",
        "mat",
        "a",
        "rat",
        "eat",
    ]
    words += ["##s", "##ing", ".", ",", "dog", "not", "is", "good", "bad", "very"]
    assert len(words) == VOCABULARY
    made = Tokenizer(models.WordPiece({word: k for k, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens([tokenizers.AddedToken(one, special=True) for one in words[:5]])
    return made


def metaspace() -> Tokenizer:
    """Like Llama 2 and T5: "▁" before a word, a token at the end of the text."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=30, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(SENTENCES, trainer)
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return made


def decoder_words() -> Tokenizer:
    """Whole words with the space before them, as many as the small decoder has tokens."""
    words = ["<|endoftext|>", "the", "Ġcat", "Ġsat", "Ġon", "Ġthe", "Ġmat", "Ġrat", "Ġa", "a", "Ġeat", "s"]
    words += ["ing", "Ġdog", ".", ",", "Ġis", "Ġnot", "Ġgood", "Ġbad", "Ġvery", "!", "?"]
    assert len(words) == VOCABULARY
    made = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([tokenizers.AddedToken(words[0], special=True)])
    return made


def saved(tokenizer: Tokenizer, folder: Path, **config: object) -> Path:
    """Write a tokenizer.json and a config.json into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "test", **config}), encoding="utf-8")
    return folder
