"""Explain every token that a decoder generates: `attribute_generation`.

From a decoder and a prompt to a GenerationAttribution. All generated tokens are explained in one sequence, since the
logits of a decoder depend on earlier tokens alone: methods that take several targets share one forward pass, others run
one batch with a row for each generated token.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.errors import AnalysisError
from analyzer.graph.names import TensorName
from analyzer.graph.token_inputs import token_vectors
from analyzer.methods.completeness import Completeness
from analyzer.methods.generation.decoder import Decoder, checked_ids, stops_of
from analyzer.methods.generation.result import LOGARITHM, LOGIT, GenerationAttribution
from analyzer.methods.names import suggested
from analyzer.methods.registry import METHODS, Method
from analyzer.methods.result import Attribution
from analyzer.methods.token_scores import scores_of
from analyzer.target.after import name_of
from analyzer.target.target import Target, chosen_classes
from analyzer.texts import Tokenizer, open_tokenizer
from analyzer.texts.pieces import words_of
from analyzer.types import Arrays, Progress
from converters.sources.hub.tokens import TOKENIZER

TOGETHER = 4
"""Generated tokens that share a forward pass: more make a larger program, and save little."""
TAKERS = ("integrated-gradients", "input-x-gradient", "gradient", "full-grad")
"""Methods that give each token a score."""
MOST = 20
"""Tokens that are generated where neither they nor their number is given."""


def attribute_generation(
    model: Differentiable | ModelLike,
    prompt: Any,
    *,
    generated: Any = None,
    max_new_tokens: int | None = None,
    tokenizer: Any = None,
    method: str = "integrated-gradients",
    log_probability: bool = True,
    baseline_token: int | str | None = None,
    output: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> GenerationAttribution:
    """Explain each token that a decoder generates by the tokens before it: a matrix, generated tokens × tokens.

    model: a decoder with logits (N, T, vocabulary), as converted or as a path, or `differentiate(model)`.
    prompt: a text, which needs a tokenizer, or token ids (T,).
    generated: the text, or the ids, whose tokens are explained. Default: the tokens of the highest logit, one after the
        other, up to `max_new_tokens` (20) or the end of the text. No cache is used.
    tokenizer: as for `load_texts`; default that of the model's folder. With ids it only names the tokens.
    method: one that attributes the vectors of tokens, such as "integrated-gradients", "input-x-gradient" or
        "gradient". settings: its options, such as steps=32 or baseline_inputs.
    log_probability: explain the logarithm of each token's probability; False explains its logit.
    baseline_token: for a path method, the token that takes the place of every token that is not special, an id or a
        text. Default: the method's own baseline, vectors of zeros.
    output: the name of the logits. Default: the first output (N, T, vocabulary).
    progress: called with (tokens done, tokens of all): generated first, then explained.
    Returns a GenerationAttribution. A row sums to what the method promises for one target, as `completeness` states.
    Raises InputError for a prompt that the model does not take, AnalysisError for a method without `wrt`, and a model
    whose logits depend on later tokens.
    Source: Sarti et al. 2023, "Inseq: An Interpretability Toolkit for Sequence Generation Models".
    """
    began = time.perf_counter()
    known = _method(method, settings)
    fn = differentiate(model)
    text = _Text.of(fn, prompt, generated, tokenizer)
    decoder = Decoder.of(fn, text.prompt, output, text.limit)
    checked_ids(text.prompt, decoder.vocabulary, "prompt")
    if text.generated is None:
        most = MOST if max_new_tokens is None else max_new_tokens
        made = decoder.generate(text.prompt, _counted(most), text.stops, progress)
    else:
        made = checked_ids(text.generated, decoder.vocabulary, "generated")
        made = made if max_new_tokens is None else made[: _counted(max_new_tokens)]
    run = _Run(decoder, text.prompt, made, log_probability)
    decoder.refuse_look_ahead(run.ids)
    if baseline_token is not None:
        settings["baseline_inputs"] = _baseline(run, known, text.tokenizer, baseline_token)
    names = tuple(map(TensorName, token_vectors(fn.graph)))
    rows, used = [], dict[str, Any]()
    for found in run.explained(known, names, settings, progress):
        rows.append(found)
        used = dict(found.settings)
    result = _result(run, text, names, rows, log_probability)
    return replace(result, method=method, settings={**used, "wrt": None}, seconds=time.perf_counter() - began)


@dataclass(frozen=True)
class _Text:
    """The ids of a prompt and, where they are given, of its continuation, with what the tokenizer's files say."""

    prompt: np.ndarray
    generated: np.ndarray | None
    tokenizer: Tokenizer | None

    @classmethod
    def of(cls, fn: Differentiable, prompt: Any, generated: Any, tokenizer: Any) -> _Text:
        needed = isinstance(prompt, str) or isinstance(generated, str)
        reader = _reader(fn.model.folder if tokenizer is None else tokenizer, needed or tokenizer is not None)
        if reader is None and needed:
            raise AnalysisError(
                "a text needs a tokenizer, and the model was not read from a folder with a tokenizer.json. Fix: give "
                "tokenizer=, or token ids"
            )
        ids = (
            _encoded(reader, prompt, special=True)
            if isinstance(prompt, str)
            else checked_ids(prompt, 0, "prompt")
        )
        if isinstance(generated, str):
            generated = _encoded(reader, generated, special=False)
        elif generated is not None:
            generated = checked_ids(generated, 0, "generated")
        return cls(ids, generated, reader)

    @property
    def limit(self) -> int | None:
        return None if self.tokenizer is None else self.tokenizer.limit

    @property
    def stops(self) -> frozenset[int]:
        return frozenset() if self.tokenizer is None else stops_of(self.tokenizer.config.get("eos_token_id"))


def _reader(given: Any, needed: bool) -> Tokenizer | None:
    """The tokenizer that is given or needed; that of a folder which has one, which names the tokens."""
    if given is None or not (needed or (Path(given) / TOKENIZER).is_file()):
        return None
    return open_tokenizer(given)


def _encoded(tokenizer: Tokenizer | None, text: str, *, special: bool) -> np.ndarray:
    assert tokenizer is not None
    ids = tokenizer.encode(text).ids if special else tokenizer.bare(text)
    # A mark of the end would end the text before its continuation.
    ends = stops_of(tokenizer.config.get("eos_token_id"))
    while special and len(ids) > 1 and ids[-1] in ends:
        ids = ids[:-1]
    return np.asarray(ids, np.int64)


@dataclass(frozen=True)
class _Run:
    """A decoder on a prompt and the tokens after it, (P,) and (G,)."""

    decoder: Decoder
    prompt: np.ndarray
    generated: np.ndarray
    log_probability: bool

    @property
    def ids(self) -> np.ndarray:
        """The tokens that the model reads, (T,): the last generated one is not read."""
        return np.concatenate([self.prompt, self.generated[:-1]])

    @property
    def places(self) -> np.ndarray:
        """(G, 2): the column whose logits give each generated token, and its id."""
        columns = len(self.prompt) - 1 + np.arange(len(self.generated))
        return np.stack([columns, self.generated], axis=1)

    def explained(
        self, method: Method, wrt: tuple[str, ...], settings: Mapping[str, Any], progress: Progress | None
    ) -> Iterator[Attribution]:
        """Yield a result for each generated token, or for all of them."""
        count, output = len(self.generated), self.decoder.output
        if not method.ranked:
            after = {"after": "log-softmax", "axis": -1} if self.log_probability else {}
            target = Target(output, position=self.places, **after)  # type: ignore[arg-type]
            yield method.run(
                self.decoder.fn, self.decoder.feeds(self.ids, count), target, wrt=wrt, **settings
            )
            return
        name = name_of(output, "log-softmax", 2) if self.log_probability else output
        flat = self.places[:, 0] * self.decoder.vocabulary + self.places[:, 1]
        together = min(TOGETHER, count)
        for start in range(0, count, together):
            # Every part has as many targets, so that one program serves all.
            chosen = np.resize(flat[start : start + together], together)
            target = Target(each=chosen_classes(chosen[None], name))
            found = method.run(self.decoder.fn, self.decoder.feeds(self.ids), target, wrt=wrt, **settings)
            for k in range(min(together, count - start)):
                yield found.rank(k)  # type: ignore[attr-defined]
            if progress is not None:
                progress(min(start + together, count), count)


def _result(
    run: _Run, text: _Text, names: tuple[str, ...], results: list[Attribution], log_probability: bool
) -> GenerationAttribution:
    length = len(run.ids)
    scores = np.concatenate([sum(_found(one, names)) for one in results])[:, :length]
    logits = run.decoder.logits(run.ids).astype(np.float64)
    columns = run.places[:, 0]
    powers = np.exp(logits[columns] - logits[columns].max(axis=1, keepdims=True))
    chosen = powers[np.arange(len(columns)), run.generated] / powers.sum(axis=1)
    ends = len(run.prompt) + np.arange(len(run.generated))
    unseen = np.arange(length)[None] >= ends[:, None]
    if np.abs(scores[unseen]).max(initial=0) > 1e-5 * np.abs(scores).max(initial=0):
        raise AnalysisError(
            "the method attributes tokens that come after the generated one. Fix: use method='integrated-gradients' "
            "or 'input-x-gradient'"
        )
    scores[unseen] = 0
    whole = np.concatenate([run.prompt, run.generated])
    tokenizer = text.tokenizer
    pieces = [] if tokenizer is None else tokenizer.pieces(whole.tolist())
    shown = tuple(piece.shown for piece in pieces) or tuple(map(str, whole.tolist()))
    rows = pieces[len(run.prompt) :]
    first = results[0]
    return GenerationAttribution(
        attributions=scores,
        output=np.concatenate([np.atleast_1d(one.output) for one in results]),
        target=run.generated,
        completeness=_sums(results),
        signed=first.signed,
        wrt=names[:1],
        evaluations=max(one.evaluations for one in results),
        tokens=shown[:length],
        generated=tuple(piece.text for piece in rows) or shown[len(run.prompt) :],
        ids=run.ids,
        probabilities=chosen,
        prompt=len(run.prompt),
        starts=tuple(range(length)),
        ends=tuple(int(end) for end in ends),
        explained=LOGARITHM if log_probability else LOGIT,
        special=tuple(piece.special for piece in pieces[:length]),
        words=tuple(words_of(pieces[:length])),
        row_words=tuple(words_of(rows)),
    )


def _found(result: Attribution, names: tuple[str, ...]) -> list[np.ndarray]:
    """The scores (n, T) at each of the tensors."""
    found = [scores_of(result, name) for name in names]
    if any(one is None for one in found):
        raise AnalysisError(
            f"method={result.method!r} gives tokens no score. Fix: use 'integrated-gradients', 'input-x-gradient' or "
            "'gradient'"
        )
    return [np.asarray(one, np.float64) for one in found if one is not None]


def _sums(results: list[Attribution]) -> Completeness | None:
    """The completeness of all rows."""
    parts = [vars(one.completeness) for one in results if one.completeness is not None]
    if not parts:
        return None
    return Completeness(
        **{key: np.concatenate([np.atleast_1d(one[key]) for one in parts]) for key in parts[0]}
    )


def _baseline(run: _Run, method: Method, tokenizer: Tokenizer | None, token: int | str) -> Arrays:
    """The inputs with a token in the place of every one that is not special."""
    if "baseline_inputs" not in method.parameters:
        raise AnalysisError(
            f"method={method.name!r} has no baseline. Fix: omit baseline_token, or use method='integrated-gradients'"
        )
    if isinstance(token, str) and tokenizer is None:
        raise AnalysisError("baseline_token as a text needs a tokenizer. Fix: give its id, or tokenizer=")
    number = tokenizer.id_of(token) if isinstance(token, str) and tokenizer is not None else int(token)
    checked_ids([number], run.decoder.vocabulary, "baseline_token")
    special = np.zeros(len(run.ids), bool)
    if tokenizer is not None:
        special = np.array([int(one) in tokenizer.special for one in run.ids])
    rows = 1 if method.ranked else len(run.generated)
    return run.decoder.feeds(np.where(special, run.ids, number), rows)


def _method(name: str, settings: Mapping[str, Any]) -> Method:
    """The method of a name. Raises AnalysisError where it does not explain tokens, or has no such option."""
    if name not in TAKERS:
        meant = suggested(name, TAKERS)
        fix = f"use {meant!r}" if meant else f"choose from {', '.join(TAKERS)}"
        raise AnalysisError(
            f"method={name!r}: expected one that attributes the vectors of tokens. Fix: {fix}"
        )
    unknown = [key for key in settings if key not in METHODS[name].parameters or key == "wrt"]
    if unknown:
        known = ", ".join(key for key in METHODS[name].parameters if key != "wrt")
        raise AnalysisError(f"{unknown[0]!r} is no option of {name}. Fix: choose from {known}")
    return METHODS[name]


def _counted(most: int) -> int:
    if isinstance(most, bool) or not isinstance(most, (int, np.integer)) or most < 1:
        raise AnalysisError(
            f"expected max_new_tokens of at least 1, got {most!r}. Fix: give a whole number, such as 10"
        )
    return int(most)
