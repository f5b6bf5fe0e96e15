"""Differentiate a node test: every path from a float input to a float output, against three independent truths.

The gradient graph on ONNX Runtime, in float32 and where its kernels have it in float64, is held to a float64
directional derivative (central differences of the forward pass alone), to the float64 gradient of PyTorch's
autograd and to that of TensorFlow's tape. All are taken where the function is smooth: a point on a kink, such as an
integer or a tie, is moved to a random one nearby.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from analyzer import Differentiable, Target, differentiate
from analyzer.autodiff.sweep import path_nodes
from analyzer.backends.onnxruntime import OnnxRuntime
from analyzer.errors import BackendError
from converters import Model
from tools.coverage.forward import described
from tools.coverage.node_tests import NodeTest

Arrays = dict[str, np.ndarray]

STEP = 1e-5
FLOAT32, FLOAT64 = 1e-3, 1e-6
_CANDIDATES = 8
_REACH = 0.03
"""How far a point is moved off a kink, in units of the inputs."""


@dataclass(frozen=True)
class Derivative:
    """∂output/∂input of one case. failure: None where all agree. ran: what gave the gradient and was checked."""

    input: str
    output: str
    failure: str | None
    ran: tuple[str, ...] = ()


class NoKernel(Exception):
    """ONNX Runtime has no kernel of this precision."""


@dataclass(frozen=True)
class Held:
    """A function that is held to the truth, and how far it may be off."""

    label: str
    fn: Differentiable
    tolerance: float


@dataclass(frozen=True)
class Line:
    """A direction, and the output one step ahead and one behind along it."""

    direction: np.ndarray
    ahead: np.ndarray
    behind: np.ndarray


class Disagreement(Exception):
    """Two gradients differ, or one differs from the directional derivative."""


def derivatives(test: NodeTest, model: Model) -> list[Derivative]:
    """Every differentiable pair of a float input and a float output of a case; `model` is its canonical form."""
    referee = differentiate(model, "torch", precision="float64")
    graph = referee.graph
    held = _backends(test, model, referee)
    found = []
    for output in (name for name in graph.outputs if graph.tensors[name].is_float):
        names = [
            name
            for name in referee.differentiable_inputs
            if test.inputs[name].size and path_nodes(graph, [name], (output,))
        ]
        together = _judged(test, held, names, output) if names else []
        if len(names) > 1 and any(one.failure for one in together):
            # One input without a rule must not stand for the others.
            together = [one for name in names for one in _judged(test, held, [name], output)]
        found += together
    return found


def _backends(test: NodeTest, model: Model, referee: Differentiable) -> list[Held]:
    """What is held to the truth, the referee first; ONNX Runtime where it can run the forward pass."""
    double = Differentiable(model, OnnxRuntime(referee.graph, threads=1))
    runtime = [
        Held("onnxruntime", differentiate(model, "onnxruntime", threads=1), FLOAT32),
        Held("onnxruntime float64", double, FLOAT64),
    ]
    return [
        Held("torch", referee, FLOAT64),
        Held("tensorflow", differentiate(model, "tensorflow", precision="float64"), FLOAT64),
        *(held for held in runtime if _runs(held.fn, test.inputs)),
    ]


def _judged(test: NodeTest, held: Sequence[Held], names: Sequence[str], output: str) -> list[Derivative]:
    try:
        ran = _check(test, held, names, output)
    # A derivative that fails is a result, whatever a runtime raises.
    except Exception as error:
        return [Derivative(name, output, described(error)) for name in names]
    return [Derivative(name, output, None, ran) for name in names]


def _check(test: NodeTest, held: Sequence[Held], names: Sequence[str], output: str) -> tuple[str, ...]:
    """What was run; raise Disagreement where a gradient at a smooth point is not the one measured there."""
    rng = np.random.default_rng(5)
    referee = held[0].fn
    point, lines = smooth_point(referee, test.inputs, names, output, rng)
    weights = rng.normal(size=lines[names[0]].ahead.shape)
    target = Target(output, weights=weights)
    exact = referee.gradients(point, target, names).gradients
    ran = []
    for one in held:
        try:
            with _no_fallback():
                gradients = one.fn.gradients(point, target, names).gradients
        except NoKernel:
            continue
        ran.append(one.label)
        for name in names:
            where = f"{one.label}, {name}"
            _hold(where, gradients[name], exact[name], one.tolerance)
            line = lines[name]
            truth = float(np.vdot(weights, line.ahead - line.behind)) / (2 * STEP)
            slope = float(np.vdot(gradients[name].astype(np.float64), line.direction))
            scale = max(abs(truth), float(np.linalg.norm(exact[name])), 1e-3)
            if not abs(slope - truth) <= one.tolerance * scale:
                raise Disagreement(f"{where}: slope {slope:.9g}, directional derivative {truth:.9g}")
    return tuple(ran)


def _runs(fn: Differentiable, point: Mapping[str, np.ndarray]) -> bool:
    try:
        with _no_fallback():
            fn.forward(point)
    except (BackendError, NoKernel, UserWarning):
        return False
    return True


@contextmanager
def _no_fallback() -> Iterator[None]:
    """Raise NoKernel where ONNX Runtime would answer in float32 what was asked in float64."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="computed in float32")
        try:
            yield
        except UserWarning as warning:
            if "no kernel for" in str(warning):
                raise NoKernel(str(warning)) from None
            raise


def _hold(label: str, found: np.ndarray, exact: np.ndarray, tolerance: float) -> None:
    if found.shape != exact.shape:
        raise Disagreement(f"{label}: shape {found.shape}, not {exact.shape}")
    scale = max(float(np.max(np.abs(exact), initial=0)), 1e-6)
    error = float(np.max(np.abs(found - exact), initial=0)) / scale
    if not error <= tolerance:
        raise Disagreement(f"{label}: relative error {error:.2g} against torch in float64")


def smooth_point(
    fn: Differentiable,
    inputs: Mapping[str, np.ndarray],
    names: Sequence[str],
    output: str,
    rng: np.random.Generator,
) -> tuple[Arrays, dict[str, Line]]:
    """Inputs at which the output is smooth in every input named, and a line through them along each.

    The point has float32 values, so that every backend evaluates at the same one.
    Raises Disagreement where no candidate will do.
    """
    for attempt in range(_CANDIDATES):
        reach = _REACH if attempt else 0.0
        moved = {
            name: (inputs[name] + reach * rng.uniform(-1, 1, size=inputs[name].shape)).astype(np.float32)
            for name in names
        }
        point = {**inputs, **moved}
        lines = {}
        for name in names:
            direction = rng.normal(size=point[name].shape)
            feeds = [{**point, name: point[name] + step * STEP * direction} for step in _STEPS]
            values = [fn.forward(feed, [output])[output] for feed in feeds]
            # Where a tie parts, an output such as the unique values changes its size.
            if len({value.shape for value in values}) > 1 or not _is_smooth(np.stack(values)):
                break
            lines[name] = Line(direction, values[3], values[1])
        else:
            return point, lines
    raise Disagreement(f"no smooth point near the given {', '.join(names)}")


_STEPS = (-2, -1, 0, 1, 2)


def _is_smooth(line: np.ndarray) -> bool:
    """Whether five values along a line are those of a smooth function: finite, no kink, no jump.

    At a kink the slopes ahead and behind differ by their own size, on a smooth line by a step's. A jump, or a kink of
    the derivative, leaves central differences that depend on the step; on a smooth line they differ by its square.
    """
    if not np.isfinite(line).all():
        return False
    ahead, behind = (line[3] - line[2]) / STEP, (line[2] - line[1]) / STEP
    wide = (line[4] - line[0]) / (4 * STEP)
    scale = np.max(np.abs([ahead, behind, wide]), initial=1e-3)
    kink = np.max(np.abs(ahead - behind), initial=0)
    jump = np.max(np.abs((ahead + behind) / 2 - wide), initial=0)
    return bool(kink <= 100 * STEP * scale and jump <= FLOAT64 / 4 * scale)
