"""Integrated Gradients: the gradient integrated along the straight line from a baseline to the input.

From a Differentiable, inputs, a target and one or several baselines to attributions of the inputs, or of tensors within
the network, with the error of their sum and, where a tolerance is asked for, that predicted of their map. Refuses
rules, baselines and points that there are not.
Source: Sundararajan, Taly & Yan 2017, "Axiomatic Attribution for Deep Networks".
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from analyzer.backends import Differentiable, ModelLike, differentiate, explains
from analyzer.backends.batching.planning import plan_batch
from analyzer.deprecation import renamed
from analyzer.errors import AnalysisError
from analyzer.graph.embeddings import embedded_tokens
from analyzer.methods.arranged import by_sample_on_path
from analyzer.methods.full_gradient.result import chosen_input
from analyzer.methods.numbers import generator, refuse_count
from analyzer.methods.paths.affine_start import behind_affine_start
from analyzer.methods.paths.ends import Baselines, path_ends
from analyzer.methods.paths.fixed_target import hold
from analyzer.methods.paths.integration import integrate
from analyzer.methods.paths.lines import Lines
from analyzer.methods.paths.path_result import PathAttributions, path_attributions
from analyzer.methods.paths.quadrature import quadrature
from analyzer.methods.paths.refinement import as_goal
from analyzer.methods.paths.top_k import held_of_rank, joined, of_rank
from analyzer.methods.token_scores import Names, plot_token_scores, scored_tokens, token_scores
from analyzer.target.target import TargetLike
from analyzer.types import Inputs, Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analyzer.figures import ScoredTokens


ADAPTIVE = "adaptive"
"""The rule of a result that was refined to a tolerance."""
AT_ONCE = 16
"""Points evaluated together, where memory allows: more are no faster."""


@dataclass(frozen=True)
class IntegratedGradients(PathAttributions):
    """The attributions sum to f(x) − f(x′), which `completeness` holds them to, up to `delta` (N,).

    converged (N,): whether the tolerance asked for is met, in the sum and in the map; False without one. spent (N,):
    gradients computed for each sample, of which `evaluations` is the largest. baseline: where the path began, in the
    form of the inputs; a list of several. standard_error: of the average over several baselines, like the attributions.
    interrupted: an interrupt ended it before its time. embedded: which of the tensors are the vectors of tokens.
    Of a Target(top=k) or Target(each=…) all arrays but spent and baseline have the classes behind the samples:
    attributions (N, k, *features), delta (N, k); `rank` gives one of them.
    standard_error is that of n baselines as draws, s/√n: of few of them 95 % of means lie within Student's quantile
    times it, 12.7 of two baselines and 4.3 of three.
    Refined to a tolerance, all (N,): interval_error, the sum of the absolute errors of the intervals' own sums, in the
    units of the output; scatter, the root of the sum of their squares: what `delta` would be were their signs random;
    map_error, the predicted error of the map, relative L2: the true one is at most about twice that, but for what no
    point shows (refinement.py); map_change, how far the last refinement moved it.
    """

    converged: np.ndarray
    spent: np.ndarray
    baseline: Any
    steps: int
    rule: str
    interrupted: bool = False
    standard_error: Any = None
    interval_error: np.ndarray | None = None
    scatter: np.ndarray | None = None
    map_error: np.ndarray | None = None
    map_change: np.ndarray | None = None
    embedded: tuple[str, ...] = ()

    def rank(self, k: int) -> IntegratedGradients:
        """The result of the k-th class of each sample, of a Target(top=…) or Target(each=…).

        Raises AnalysisError where one scalar of each sample is explained.
        """
        return of_rank(self, k)

    def token_scores(self, of: str | None = None) -> np.ndarray:
        """(N, T): the attribution of each token, summed over its vector. of: one of `embedded`, the first by default.

        Raises AnalysisError where the attributions are not of tokens' vectors.
        """
        if not self.embedded or (of is not None and of not in self.embedded):
            raise AnalysisError(
                f"no tokens are embedded in {of or ', '.join(self.channel_axes)}. Fix: give integrated_gradients "
                "wrt='embedding'"
            )
        name = of or self.embedded[0]
        return token_scores(self.first(name, self.attributions_at(name)))

    def texts(
        self, tokens: Names, *, of: str | None = None, captions: Sequence[str] = ()
    ) -> list[ScoredTokens]:
        """Each sample as coloured text, for `plot_tokens` and `tokens_html`. tokens, captions: see `scored_tokens`."""
        return scored_tokens(self.token_scores(of), tokens, self.completeness.output, captions)

    def plot(self, inputs: Any = None, *, of: str | None = None, features: Names | None = None) -> Figure:
        """The attributions, summed over channels, as `FullGrad.plot` draws its complete map.

        Of embedded tokens coloured text: features are the tokens, T names or a row of them for each sample. Without
        names a bar for each token.
        """
        name = chosen_input(self.channel_axes, of)
        if name not in self.embedded:
            if features is not None and not all(isinstance(name, str) for name in features):
                raise AnalysisError(
                    "got rows of names for a result without tokens. Fix: give integrated_gradients wrt='embedding'"
                )
            return super().plot(inputs, of=of, features=cast("Sequence[str] | None", features))
        return plot_token_scores(self.token_scores(name), features, self.completeness.output, name)


@renamed(at="wrt")
@explains
@by_sample_on_path("wrt")
def integrated_gradients(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    baseline: Baselines = 0.0,
    wrt: str | Sequence[str] | None = None,
    baseline_inputs: Inputs | None = None,
    steps: int = 50,
    rule: str = "gauss-legendre",
    tolerance: float | None = None,
    map_tolerance: float | None = None,
    max_evaluations: int = 1024,
    batch_size: int | None = None,
    rng: np.random.Generator | int | None = None,
    progress: Progress | None = None,
    verify: bool = True,
) -> IntegratedGradients:
    """Integrate the gradient along the straight line from the baseline to the inputs.

    inputs: (N, *features), or {input name: array}, in the model's own input units; integer inputs are held.
    target: see `Target`; None explains the class that is highest at the inputs, all along the path.
    baseline: what `make_baselines` takes: a number, "black", "white", "mean", "uniform", "gaussian", "blurred", an
        array that broadcasts to the inputs, a Dataset, or a list of these, over which the attributions are averaged;
        or one of these per input name. rng: a Generator or seed for random ones.
    wrt: attribute tensors within the network instead: the ONNX name of one, the path of a module, "embedding", or a
        sequence of these; `baseline` then is one of theirs, unless `baseline_inputs` gives inputs, such as padding
        tokens, whose values there are the baseline.
    steps, rule: the quadrature, without a tolerance. One of `quadrature.RULES`.
    tolerance: refine until |delta| is within this share of |f(x) − f(x′)| for each sample, no matter of luck (see
        refinement.py), and the predicted relative L2 error of the map within map_tolerance, by default five times as
        much; up to `max_evaluations` gradients a path. `converged` says how it ended.
    batch_size: points evaluated at once, by default as many as memory allows, at most 16.
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
    held = hold(fn, feeds, target, names, several=True)
    if batch_size is None:
        batch_size = plan_batch(fn, held.names, feeds, held.target(np.arange(held.samples)), at_most=AT_ONCE)
    else:
        refuse_count("batch_size", batch_size, 1, 16)
    lines = Lines(held, starts, batch_size)
    if goal is None:
        lines = behind_affine_start(lines)
    sums, interrupted = integrate(lines, goal, (rule, steps), progress)
    if goal is not None and not sums.converged.all() and not interrupted:
        missed = np.flatnonzero(~sums.converged.all(axis=1)).tolist()
        warnings.warn(
            f"integrated_gradients did not reach the tolerance {tolerance} for the samples {missed[:8]}: see "
            "`converged` and `map_error`. Fix: raise max_evaluations, or begin where the model is smooth, by "
            "baseline= or baseline_inputs=",
            stacklevel=2,
        )
    single = (wrt is None and not isinstance(inputs, Mapping)) or (wrt is not None and len(names) == 1)
    embedded = () if wrt is None else tuple(name for name in embedded_tokens(whole.graph) if name in names)
    begun = [start[names[0]] if single else {name: start[name] for name in names} for start in starts]
    form: Inputs = feeds[names[0]] if single else feeds
    results = []
    for k in range(lines.targets):
        vectors = lines.arrays(sums.mean[:, k])
        found = path_attributions(held_of_rank(held, k), form, vectors, sums.difference[:, k], sums.most)
        if wrt is not None:
            found = replace(found, arrangement=fn.arrangement)
        error = sums.standard_error(k)
        results.append(
            IntegratedGradients(
                **vars(found),
                converged=sums.converged[:, k] & (goal is not None),
                spent=sums.spent,
                baseline=begun[0] if len(begun) == 1 else begun,
                steps=steps if goal is None else sums.most,
                rule=rule if goal is None else ADAPTIVE,
                interrupted=interrupted,
                standard_error=None if error is None else _typed(lines, error, single),
                embedded=embedded,
                **({} if goal is None else sums.stated(k)),
            )
        )
    return results[0] if held.output.ndim == 1 else joined(results)


def _typed(lines: Lines, vectors: np.ndarray, single: bool) -> Any:
    """Vectors in the form and the precision of the attributions."""
    held = lines.held
    arrays = {name: array.astype(held.feeds[name].dtype) for name, array in lines.arrays(vectors).items()}
    return arrays[held.names[0]] if single else arrays
