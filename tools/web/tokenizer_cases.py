"""Write the ids that the Python package `tokenizers` gives: `python -m tools.web.tokenizer_cases`.

From small tokenizers of the common kinds, trained here on a few sentences, and texts that are hard to split, to a file
that the tests compare the page's JavaScript tokenizer with. Needs `pip install tokenizers`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CASES = Path(__file__).parents[2] / "tests" / "analyzer" / "explainer" / "web" / "tokenizer_cases.json"
SENTENCES = (
    "The film was not bad at all; I loved every minute of it!",
    "An utterly boring plot, wooden acting and a dreadful ending.",
    "It's 10:30 p.m. and we've seen 1,234 people leave the café.",
    "Größe, naïve, résumé, Ærø: the words of a traveller’s diary.",
    "def f(x):\n    return x ** 2  # a comment\n",
)
TEXTS = (
    *SENTENCES,
    "",
    "a",
    "  two  spaces   and\ttabs\n\nand breaks ",
    "I'm you're they'll WE'VE don't can’t",
    "UPPER lower MiXeD İstanbul ǅ ß ẞ",
    "e\u0301 is é, n\u0303 is ñ, and \u212b is Å",
    "emoji 😀👍🏽👩‍👩‍👧‍👦🇩🇪 and text\ufe0f",
    "中文字符 and 日本語 テスト 한국어",
    "مرحبا بالعالم שלום",
    "1234567 3.14 1e-9 ١٢٣ ½ ²",
    "http://example.org/a?b=c&d=%20 user@example.org #tag",
    "zero\u200bwidth soft\u00adhyphen nbsp\u00a0here \u2028 line",
    "[CLS] [MASK] <s> </s> <unk> <pad> [SEP]",
    "control \x00 \x07 \x1b characters \ufffd",
    "supercalifragilisticexpialidocious" * 3,
    "...!!!???—–-_()[]{}<>«»“”",
    "<b>bold</b> &amp; \\n \\u0041",
)


def main() -> None:
    """Train the tokenizers and write the cases."""
    found = []
    for name, tokenizer in _tokenizers().items():
        encoded = [tokenizer.encode(text) for text in TEXTS]
        found.append(
            {
                "name": name,
                "tokenizer": json.loads(tokenizer.to_str()),
                "cases": [{"text": text, "ids": one.ids} for text, one in zip(TEXTS, encoded, strict=True)],
            }
        )
    CASES.write_text(json.dumps(found, ensure_ascii=True) + "\n", encoding="utf-8")


def _tokenizers() -> dict[str, Any]:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    size = 400
    bytes_ = pre_tokenizers.ByteLevel.alphabet()

    bert = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    bert.normalizer = normalizers.BertNormalizer(lowercase=True)
    bert.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    bert.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=size, special_tokens=special))
    bert.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )

    cased = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    cased.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    cased.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cased.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=size, special_tokens=special))
    cased.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))

    roberta = Tokenizer(models.BPE())
    roberta.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    roberta.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=size, special_tokens=marks, initial_alphabet=bytes_)
    )
    roberta.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))

    split = Tokenizer(models.BPE())
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    split.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(vocab_size=size, special_tokens=["<|end|>"], initial_alphabet=bytes_),
    )

    t5 = Tokenizer(models.Unigram())
    t5.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    t5.pre_tokenizer = pre_tokenizers.Metaspace()
    t5.train_from_iterator(
        SENTENCES,
        trainers.UnigramTrainer(vocab_size=200, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>"),
    )
    t5.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return {"bert": bert, "bert cased": cased, "roberta": roberta, "split": split, "t5": t5}


if __name__ == "__main__":
    main()
