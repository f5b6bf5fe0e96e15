"""Differentiate a node test: every path from a float input to a float output, against three independent truths.

The gradient graph on ONNX Runtime, in float32 and where its kernels have it in float64, is held to a float64
directional derivative (central differences of the forward pass alone), to the float64 gradient of PyTorch's
autograd and to that of TensorFlow's tape. All are taken where the function is smooth: a point on a kink, such as an
integer or a tie, is moved to a random one nearby.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analyzer import Differentiable, Target, differentiate
from analyzer.autodiff import path_nodes
from analyzer.backends.onnxruntime import OnnxRuntime
from analyzer.errors import BackendError
from converters import Model, load
from tests.coverage.forward import described
from tests.coverage.node_tests import NodeTest

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


class Disagreement(Exception):
    """Two gradients differ, or one differs from the directional derivative."""


def derivatives(test: NodeTest) -> list[Derivative]:
    """Every differentiable pair of a float input and a float output of a case that can be loaded and run."""
    model = load(test.model)
    referee = differentiate(model, "torch", precision="float64")
    return [
        _judged(test, model, referee, name, output)
        for output in referee.graph.outputs
        if referee.graph.tensors[output].is_float
        for name in referee.differentiable_inputs
        if test.inputs[name].size and path_nodes(referee.graph, [name], output)
    ]


def _judged(test: NodeTest, model: Model, referee: Differentiable, name: str, output: str) -> Derivative:
    ran: list[str] = []
    try:
        _check(test, model, referee, name, output, ran)
    # A derivative that fails is a result, whatever a runtime raises.
    except Exception as error:
        return Derivative(name, output, described(error), tuple(ran))
    return Derivative(name, output, None, tuple(ran))


def _check(
    test: NodeTest, model: Model, referee: Differentiable, name: str, output: str, ran: list[str]
) -> None:
    rng = np.random.default_rng(5)
    point, direction, ahead, behind = smooth_point(referee, test.inputs, name, output, rng)
    weights = rng.normal(size=ahead.shape)
    target = Target(output, weights=weights)
    truth = float(np.vdot(weights, ahead - behind)) / (2 * STEP)

    def gradient(fn: Differentiable) -> np.ndarray:
        return fn.gradients(point, target, [name]).gradients[name]

    exact = gradient(referee)
    for label, fn, tolerance in _backends(model, referee, point):
        found = gradient(fn)
        ran.append(label)
        _hold(label, found, exact, tolerance)
        slope = float(np.vdot(found.astype(np.float64), direction))
        scale = max(abs(truth), float(np.linalg.norm(exact)), 1e-3)
        if not abs(slope - truth) <= tolerance * scale:
            raise Disagreement(f"{label}: slope {slope:.9g}, directional derivative {truth:.9g}")


def _backends(
    model: Model, referee: Differentiable, point: Mapping[str, np.ndarray]
) -> list[tuple[str, Differentiable, float]]:
    """What is held to the truth: name, function, tolerance. ONNX Runtime where it can run the forward pass."""
    native = [
        ("torch", referee, FLOAT64),
        ("tensorflow", differentiate(model, "tensorflow", precision="float64"), FLOAT64),
    ]
    runtime = [
        ("onnxruntime", differentiate(model, "onnxruntime", threads=1), FLOAT32),
        (
            "onnxruntime float64",
            Differentiable(model, OnnxRuntime(referee.graph, threads=1)),
            FLOAT64,
        ),
    ]
    return native + [entry for entry in runtime if _runs(entry[1], point)]


def _runs(fn: Differentiable, point: Mapping[str, np.ndarray]) -> bool:
    try:
        fn.forward(point)
    except BackendError:
        return False
    return True


def _hold(label: str, found: np.ndarray, exact: np.ndarray, tolerance: float) -> None:
    if found.shape != exact.shape:
        raise Disagreement(f"{label}: shape {found.shape}, not {exact.shape}")
    scale = max(float(np.max(np.abs(exact), initial=0)), 1e-6)
    error = float(np.max(np.abs(found - exact), initial=0)) / scale
    if not error <= tolerance:
        raise Disagreement(f"{label}: relative error {error:.2g} against torch in float64")


def smooth_point(
    fn: Differentiable, inputs: Mapping[str, np.ndarray], name: str, output: str, rng: np.random.Generator
) -> tuple[Arrays, np.ndarray, np.ndarray, np.ndarray]:
    """Inputs where the slopes ahead and behind agree; the direction, and the output one step ahead and behind.

    The point has float32 values, so that every backend evaluates at the same one.
    Raises Disagreement where no candidate will do.
    """
    given = inputs[name]
    direction = rng.normal(size=given.shape)
    for attempt in range(_CANDIDATES):
        noise = rng.uniform(-1, 1, size=given.shape) * _REACH if attempt else 0.0
        at = (given + noise).astype(np.float32)
        line = [
            fn.forward({**inputs, name: at + step * STEP * direction}, [output])[output] for step in _STEPS
        ]
        if _is_smooth(np.stack(line)):
            return {**inputs, name: at}, direction, line[3], line[1]
    raise Disagreement(f"no smooth point near the given {name!r}")


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
