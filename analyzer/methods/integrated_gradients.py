"""Integrated Gradients: the gradient integrated along the straight line from a baseline to the input.

From a Differentiable, inputs, a target and one or several baselines to attributions of the inputs, or of tensors within
the network, with the error of their sum and, where a tolerance is asked for, that predicted of their map. Refuses
rules, baselines and points that there are not.
Source: Sundararajan, Taly & Yan 2017, "Axiomatic Attribution for Deep Networks".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from analyzer.autodiff.request import OUTPUT, gradient_name, observe
from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.backends.batching.planning import plan_batch
from analyzer.deprecation import renamed
from analyzer.errors import AnalysisError, note
from analyzer.graph.builder import Builder
from analyzer.graph.embeddings import embedded_tokens
from analyzer.graph.graph import Tensor
from analyzer.methods.exporting import ExplainerGraph, Exported, column, rank_of
from analyzer.methods.numbers import generator, refuse_count
from analyzer.methods.paths.affine_start import behind_affine_start
from analyzer.methods.paths.ends import Baselines, path_ends
from analyzer.methods.paths.exported import exported_ends, exported_path
from analyzer.methods.paths.fixed_target import hold
from analyzer.methods.paths.integration import integrate
from analyzer.methods.paths.line_result import LineAttribution
from analyzer.methods.paths.lines import Lines
from analyzer.methods.paths.path_result import path_attributions
from analyzer.methods.paths.quadrature import RuleName, quadrature
from analyzer.methods.paths.refinement import as_goal
from analyzer.methods.paths.top_k import held_of_rank, joined
from analyzer.methods.registry import method
from analyzer.methods.result import chosen_input, refuse_ranked
from analyzer.methods.token_scores import UNIT, TokenNames, plot_token_scores, scored_tokens, token_scores
from analyzer.target.target import TargetLike
from analyzer.types import Inputs, Names, Progress, Rng

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analyzer.figures import ScoredTokens
    from analyzer.figures.plots import Look

ADAPTIVE = "adaptive"
"""The rule of a result that was refined to a tolerance."""
AT_ONCE = 16
"""Points evaluated together, where memory allows: more are no faster."""


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class IntegratedGradients(LineAttribution):
    """The result of `integrated_gradients`.

    baseline: where the path began, in the form of the inputs; a list of several.
    embedded: which of the tensors are the vectors of tokens.
    """

    baseline: Any
    embedded: tuple[str, ...] = ()

    def token_scores(self, of: str | None = None) -> np.ndarray:
        """(N, T): the attribution of each token, summed over its vector. of: one of `embedded`, the first by default.

        Raises AnalysisError where the attributions are not of tokens' vectors.
        """
        if not self.embedded or (of is not None and of not in self.embedded):
            raise AnalysisError(
                f"no tokens are embedded in {of or ', '.join(self.wrt)}. Fix: give integrated_gradients "
                "wrt='embedding'"
            )
        name = of or self.embedded[0]
        return token_scores(self.first(name, self.attributions_at(name)))

    def texts(
        self, tokens: TokenNames, *, of: str | None = None, captions: Sequence[str] = ()
    ) -> list[ScoredTokens]:
        """Each sample as coloured text, for `plot_tokens` and `tokens_html`. tokens, captions: see `scored_tokens`."""
        assert self.completeness is not None
        return scored_tokens(self.token_scores(of), tokens, self.completeness.output, captions)

    def drawn(self, name: str, **how: Any) -> tuple[np.ndarray, Look]:
        """Return what `plot` draws. Embedded tokens are a table with a bar, or a coloured word, for each token."""
        values, look = super().drawn(name, **how)
        if name not in self.embedded:
            return values, look
        tokens = [f"token {k}" for k in range(values.shape[1])]
        return self.token_scores(name), replace(look, title=name, unit=f"{UNIT}, per token", features=tokens)

    def is_table(self, name: str, inputs: np.ndarray | None) -> bool:
        """Return whether a map of one axis is of features or tokens, not of the steps of a signal."""
        return name in self.embedded or super().is_table(name, inputs)

    @renamed(inputs="images")
    def plot(
        self,
        images: Any = None,
        *,
        of: str | None = None,
        features: Sequence[str] | Sequence[Sequence[str]] | None = None,
        **looks: Any,
    ) -> Figure:
        """Draw the map as `Attribution.plot` does; of embedded tokens coloured text.

        features: of embedded tokens these are the tokens, T names or a row of them for each sample. Without names a
            bar is drawn for each token. looks: the other options of `Attribution.plot`.
        """
        name = chosen_input(self.wrt, of)
        if name in self.embedded and features is not None:
            refuse_ranked(self)
            assert self.completeness is not None
            title = looks.get("title") or name
            return plot_token_scores(self.token_scores(name), features, self.completeness.output, title)
        if features is not None and not all(isinstance(one, str) for one in features):
            raise AnalysisError(
                "got rows of names for a result without tokens. Fix: give integrated_gradients wrt='embedding'"
            )
        return super().plot(images, of=of, features=cast("Sequence[str] | None", features), **looks)


def _export(
    explainer: ExplainerGraph,
    *,
    baseline: Baselines,
    wrt: Names | None,
    baseline_inputs: Inputs | None,
    steps: int,
    rule: RuleName,
) -> Exported:
    nodes, weights = quadrature(rule, steps)
    part, starts, names = exported_ends(explainer, baseline, wrt, baseline_inputs)
    op, graph = explainer.op, part.graph
    ends = {name: explainer.graph.tensors[name] for name in names}
    if nodes[0] != 0:
        # The output at the baseline is part of the sum's error; the gradient there is not used.
        nodes, weights = np.append(0.0, nodes), np.append(0.0, weights)
    totals, before = [], []
    for start in starts:

        def point(op: Builder, numbers: Tensor, start: Mapping[str, Tensor] = start) -> dict[str, Tensor]:
            found = {}
            for name, x in ends.items():
                alpha, beta = (column(op, numbers, one, x, rank_of(x)) for one in (nodes, 1 - nodes))
                along = op.Mul(op.Unsqueeze(x, [0]), alpha)
                found[name] = op.Add(along, op.Mul(op.Unsqueeze(start[name], [0]), beta))
            return found

        def finish(op: Builder, numbers: Tensor, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
            weighted = {}
            for name, x in ends.items():
                weight = column(op, numbers, weights, x, rank_of(x))
                weighted[name] = op.Mul(weight, found[gradient_name(name)])
                if (weights == 0).any():
                    # An infinite gradient at the baseline does not count.
                    weighted[name] = op.Where(op.Equal(weight, 0.0), 0.0, weighted[name])
            here = column(op, numbers, (np.arange(len(nodes)) == 0) * 1.0, found[OUTPUT], 1)
            return {**weighted, _BEFORE: op.Mul(here, found[OUTPUT])}

        sums = explainer.repeated(len(nodes), point, observe((), names), finish, part=part)
        totals.append({name: op.Mul(op.Sub(x, start[name]), sums[name]) for name, x in ends.items()})
        before.append(sums[_BEFORE])
    many = float(len(starts))

    def mean(parts: Sequence[Tensor]) -> Tensor:
        return parts[0] if len(parts) == 1 else op.Div(op.Sum(*parts), many)

    attributions = {
        name: replace(mean([one[name] for one in totals]), shape=graph.tensors[name].shape) for name in names
    }
    return exported_path(explainer, graph, attributions, mean(before))


_BEFORE = "output at the baseline"


@renamed(at="wrt")
@method(
    "integrated-gradients",
    export=_export,
    line="what each pixel, step or token adds, from a baseline",
    caption="Integrated Gradients",
    note="red speaks for the class, blue against it",
    source="Sundararajan, Taly & Yan 2017, eq. 1",
    cost="{steps} gradients (steps), or by tolerance",
    signed=True,
    path="wrt",
    ranked=True,
)
def integrated_gradients(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    baseline: Baselines = 0.0,
    wrt: Names | None = None,
    baseline_inputs: Inputs | None = None,
    steps: int = 50,
    rule: RuleName = "gauss-legendre",
    tolerance: float | None = None,
    map_tolerance: float | None = None,
    max_evaluations: int = 1024,
    batch_size: int | None = None,
    rng: Rng = 0,
    progress: Progress | None = None,
    verify: bool = True,
) -> IntegratedGradients:
    """Integrate the gradient along the straight line from the baseline to the inputs.

    inputs: (N, *features), or {input name: array}, in the model's own input units; integer inputs are held.
    target: see `Target`; None explains the class that is highest at the inputs, all along the path.
    baseline: a number, "black", "white", "mean", "uniform", "gaussian" or "blurred"; an array that broadcasts to the
        inputs; a Dataset; or a list of these, over which the attributions are averaged. {input name: one of these}
        for several inputs.
    wrt: attribute tensors within the network instead: an ONNX name, a module's path, "embedding", or several of these.
        `baseline` is then one of theirs, unless `baseline_inputs` is given.
    baseline_inputs: inputs, such as padding tokens, whose values at the tensors of `wrt` are the baseline.
    steps: points on the path, without a tolerance.
    rule: quadrature rule, without a tolerance.
    tolerance: refine until |delta| is within this share of |f(x) − f(x′)| for each sample, and the predicted relative
        L2 error of the map within `map_tolerance`. `converged` says whether both were reached.
    map_tolerance: with a tolerance, the relative L2 error of the map. Default: five times the tolerance.
    max_evaluations: with a tolerance, the most gradients computed for a path.
    batch_size: points evaluated at once; by default as many as memory allows, at most 16.
    rng: a Generator or a seed for random baselines.
    progress: called with (gradients computed, gradients planned or foreseen). An interrupt (Ctrl-C) ends the
        computation with what is known by then.
    verify: compare the model's .onnx file with what is explained, as for `differentiate`.
    Raises InputError, ShapeError, TargetError, UnknownTensor, UnsupportedOp; AnalysisError for options out of range,
    or where a gradient on the path is not finite.
    Source: Sundararajan, Taly & Yan 2017, eq. 1; within the network, Dhamdhere, Sundararajan & Yan 2018, section 2.
    """
    quadrature(rule, steps)
    goal = as_goal(tolerance, map_tolerance, max_evaluations)
    whole = differentiate(model, verify=verify)
    rng = generator(rng)
    fn, feeds, starts, names = path_ends(whole, inputs, baseline, wrt, baseline_inputs, rng)
    held = hold(fn.bind(feeds, target, several=True), names)
    if batch_size is None:
        batch_size = plan_batch(held.bound, held.names, at_most=AT_ONCE)
    else:
        refuse_count("batch_size", batch_size, 1, 16)
    lines = Lines(held, starts, batch_size)
    if goal is None:
        lines = behind_affine_start(lines)
    sums, interrupted = integrate(lines, goal, (rule, steps), progress)
    if goal is not None and not sums.converged.all() and not interrupted:
        missed = np.flatnonzero(~sums.converged.all(axis=1)).tolist()
        note(
            f"integrated_gradients did not reach the tolerance {tolerance} for the samples {missed[:8]}: see "
            "`converged` and `map_error`. Fix: raise max_evaluations, or begin where the model is smooth, by "
            "baseline= or baseline_inputs=",
            UserWarning,
        )
    embedded = () if wrt is None else tuple(name for name in embedded_tokens(whole.graph) if name in names)
    begun = [held.form({name: start[name] for name in names}) for start in starts]
    results = []
    for k in range(lines.targets):
        vectors = lines.arrays(sums.mean[:, k])
        found = path_attributions(held_of_rank(held, k), vectors, sums.difference[:, k], sums.most)
        # A map of tokens has one number for each, summed over its vector.
        found["channel_axes"] |= {name: whole.graph.tensors[name].rank - 1 for name in embedded}
        if wrt is not None:
            found["arrangement"] = fn.arrangement
        error = sums.standard_error(k)
        results.append(
            IntegratedGradients(
                **found,
                converged=sums.converged[:, k] & (goal is not None),
                spent=sums.spent,
                baseline=begun[0] if len(begun) == 1 else begun,
                steps=steps if goal is None else sums.most,
                rule=rule if goal is None else ADAPTIVE,
                interrupted=interrupted,
                standard_error=None if error is None else _typed(lines, error),
                embedded=embedded,
                **({} if goal is None else sums.stated(k)),
            )
        )
    return results[0] if held.output.ndim == 1 else joined(results)


def _typed(lines: Lines, vectors: np.ndarray) -> Any:
    """Vectors in the form and the precision of the attributions."""
    held = lines.held
    arrays = lines.arrays(vectors)
    return held.form({name: array.astype(held.feeds[name].dtype) for name, array in arrays.items()})
