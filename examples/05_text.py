"""Show which words decide the class of a review: `python examples/05_text.py [-o FOLDER]`.

A small transformer learns in seconds whether generated sentences (reviews.py) are positive. Integrated Gradients to 1 %
attribute its output to the embedded tokens, once from padding tokens and once from zero vectors. The sums over each
token's vector are drawn as coloured text in the terminal, in words.png and in words.html. The script needs the `torch`
extra.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from reviews import CLASSES, VOCABULARY, encode, train_reviews
from rich.console import Console

from analyzer.figures import ScoredTokens, limit_of, plot_tokens, tokens_text
from analyzer.report import tokens_html
from onnxplain import (
    Differentiable,
    IntegratedGradients,
    Target,
    convert,
    differentiate,
    integrated_gradients,
)

SENTENCES = (
    "the food was good .",
    "the food was not good .",
    "our room was never truly awful .",
    "honestly , the film was slightly bland , while our staff seemed very friendly .",
)
TOLERANCE = 0.01
# Red supports a positive review, blue a negative one.
MARGIN = Target(weights=np.array([-1.0, 1.0]))
UNIT = "logit of a positive review minus that of a negative one"


def explain(fn: Differentiable, tokens: np.ndarray) -> dict[str, IntegratedGradients]:
    """Attribute the margin between positive and negative to the tokens, from two baselines."""
    return {
        "padding tokens": integrated_gradients(
            fn, tokens, MARGIN, wrt="embedding", baseline_inputs=encode([()]), tolerance=TOLERANCE
        ),
        "zero vectors": integrated_gradients(fn, tokens, MARGIN, wrt="embedding", tolerance=TOLERANCE),
    }


def coloured(baseline: str, found: IntegratedGradients, words: list[tuple[str, ...]]) -> list[ScoredTokens]:
    """Return the sentences with their scores. Padding with an attribution is one more token."""
    captions = [
        f"{CLASSES[int(output > 0)]} ({output:+.2f}), from {baseline}".replace("-", "−")
        for output in found.output
    ]
    return found.texts(words, captions=captions)


def main(arguments: list[str] | None = None) -> int:
    """Train, convert, explain, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("text"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    console = Console(highlight=False)
    words = [tuple(sentence.split()) for sentence in SENTENCES]
    tokens = encode(words)
    with console.status("training"):
        net, accuracy = train_reviews()
    model = convert(net, tokens[:1], class_names=CLASSES)
    fn = differentiate(model)
    console.print(f"A transformer on generated reviews, {accuracy:.0%} correct on new ones.")
    options.output.mkdir(parents=True, exist_ok=True)
    texts = []
    for baseline, found in explain(fn, tokens).items():
        error = np.abs(found.delta / found.completeness.output).max()
        console.print(f"\n[b]From {baseline}[/b]: {found.evaluations} gradients, sums within {error:.2%}\n")
        drawn = coloured(baseline, found, words)
        for text in drawn:
            console.print(tokens_text(text, limit_of(drawn), console.width), end="\n\n")
        texts.append(drawn)
    pairs = [text for pair in zip(*texts, strict=True) for text in pair]
    plot_tokens(pairs, title="Which words decide", unit=UNIT).savefig(options.output / "words.png")
    page = tokens_html(pairs, title="Which words decide", unit=UNIT)
    (options.output / "words.html").write_text(page, encoding="utf-8")
    # Files for the command line: see docs/text.md.
    model.save(options.output / "reviews.onnx")
    np.save(options.output / "tokens.npy", tokens)
    np.save(options.output / "padding.npy", encode([()]))
    (options.output / "vocabulary.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    console.print(f"wrote {options.output / 'words.png'}, words.html and reviews.onnx with its tokens")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
