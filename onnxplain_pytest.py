"""A pytest plugin: `assert_equivalent` and `assert_explanation` as fixtures, and `--onnxplain-update`.

pytest loads it by its entry point. It imports onnxplain when a test uses a fixture, and not before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

FOLDER = "explanations"
_written = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes stored explanations."""
    parser.getgroup("onnxplain").addoption(
        "--onnxplain-update",
        action="store_true",
        help="Store the explanations of assert_explanation in place of comparing with the stored ones.",
    )


@pytest.fixture
def assert_equivalent() -> Callable[..., Any]:
    """Assert that two models are one function, for the same reasons: assert_equivalent(a, b, inputs, **options).

    assert_equivalent(model, inputs) asserts that a model's backends agree. The options are those of
    `analyzer.testing.assert_equivalent`. Returns the report.
    """

    def run(model: Any, other: Any, inputs: Any = None, **options: Any) -> Any:
        __tracebackhide__ = True
        from analyzer.testing import assert_equivalent as equivalent

        if inputs is None:
            return equivalent(model, other, **options)
        return equivalent((model, other), inputs, **options)

    return run


@pytest.fixture
def assert_explanation(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Assert that an explanation is the stored one: assert_explanation(model, inputs, method="full-grad", target=…).

    The file is explanations/MODULE/NAME.npz in the folder of the test. name: default the name of the test; needed
    where a test calls this twice. The other options are those of `analyzer.stored.assert_explanation`.
    `pytest --onnxplain-update` writes the file. Returns the explanation.
    """
    update = bool(request.config.getoption("--onnxplain-update"))
    used: set[Path] = set()

    def run(
        model: Any, inputs: Any, method: str = "full-grad", *, name: str | None = None, **options: Any
    ) -> Any:
        __tracebackhide__ = True
        from analyzer.stored import NoStoredExplanation
        from analyzer.stored import assert_explanation as explanation

        folder = request.path.parent / FOLDER / request.path.stem
        path = folder / f"{re.sub(r'[^0-9A-Za-z_.-]+', '-', name or request.node.name).strip('-')}.npz"
        if path in used:
            raise pytest.UsageError(
                f"{request.node.nodeid}: two explanations have the name {path.stem!r}. Fix: give each one its name="
            )
        used.add(path)
        found = None
        # The failure is raised outside `except`, so that pytest does not print the exception as its context.
        with suppress(NoStoredExplanation):
            found = explanation(model, inputs, path, method, update=update, **options)
        if found is None:
            pytest.fail(
                f"no explanation is stored at {path}. Fix: run pytest '{request.node.nodeid}' --onnxplain-update, "
                "look at the explanation, and commit the file",
                pytrace=False,
            )
        if update:
            request.config.stash.setdefault(_written, []).append(str(path))
        return found

    return run


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """List the explanations that were written."""
    for path in config.stash.get(_written, []):
        terminalreporter.write_line(f"onnxplain stored {path}")
