"""Integrated Gradients refined in JavaScript: integrals solved by hand, and Python's own on a network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import onnxplain as ox
from tests.examples.explainer.programs import copied, run

CASES = Path(__file__).with_name("refine_cases.mjs")
CONFIG = {
    "compilerOptions": {
        "allowJs": True,
        "checkJs": True,
        "strict": True,
        "noEmit": True,
        "target": "es2022",
        "module": "nodenext",
        "lib": ["es2022", "dom"],
        "types": [],
        "skipLibCheck": True,
    },
    "files": ["refine.mjs", "metadata.mjs"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, packages):
    return copied("node", tmp_path_factory.mktemp("copy"), packages)


@pytest.fixture(scope="module")
def refined(folder, made):
    files = (made.folder / "gradient.onnx", made.folder / "x.npy")
    return json.loads(run("node", CASES, folder, *files, folder=folder))


@pytest.mark.parametrize(
    "name, attribution, tolerance",
    [
        # f = a²b. From the origin to (2, 3) the partial derivatives contribute 2/3 and 1/3 of 12.
        ("product", (8, 4), 1e-6),
        # From (1, 1): ∫ 2(1 + t)(1 + 2t) dt = 19/3, and 2 ∫ (1 + t)² dt = 14/3.
        ("from_one", (19 / 3, 14 / 3), 1e-6),
        ("kink", (0.7,), 1e-3),
        ("wave", (np.sin(40),), 1e-4),
        ("nothing", (0,), 1e-2),
    ],
)
def test_an_integral_solved_by_hand(refined, name, attribution, tolerance):
    found = refined[name]
    assert found["converged"] and found["evaluations"] <= 1024
    assert np.linalg.norm(np.subtract(found["attribution"], attribution)) <= tolerance * np.linalg.norm(
        attribution
    )
    assert abs(found["delta"] - (sum(found["attribution"]) - sum(attribution))) <= 1e-6


def test_too_few_evaluations_are_not_called_converged(refined):
    found = refined["too_few"]
    assert not found["converged"] and found["evaluations"] <= 60 and abs(found["delta"]) > 0


def test_a_network_has_the_attribution_that_python_finds(refined, made):
    own = ox.integrated_gradients(made.model, made.x, 2, tolerance=1e-3)
    assert own.completeness is not None and own.converged.all()
    for sample, found in enumerate(refined["network"]):
        assert found["converged"] and found["mapError"] <= 5e-3
        attribution = np.reshape(found["attribution"], made.x.shape[1:])
        expected = own.attributions[sample]
        assert np.linalg.norm(attribution - expected) <= 5e-3 * np.linalg.norm(expected)
        goal = attribution.sum() - found["delta"]
        assert abs(found["delta"]) <= 1e-3 * abs(goal)
        np.testing.assert_allclose(goal, expected.sum(), rtol=3e-3)


def test_wrong_arguments_are_refused(refined):
    tolerance, baseline, target, optional = refined["refused"]
    assert "expected a tolerance above 0, found 0" in tolerance
    assert "expected a baseline of 1 numbers, found 2" in baseline
    assert target
    assert "--check-for node" in optional


def test_the_types_are_sound(folder):
    (folder / "tsconfig.json").write_text(json.dumps(CONFIG))
    run("node", "node_modules/typescript/bin/tsc", "-p", "tsconfig.json", folder=folder)
    # The check finds an error where there is one.
    wrong = 'import { refine } from "./refine.mjs";\nrefine(async () => ({ outputs: [1] }), new Float32Array(1), 0);\n'
    (folder / "wrong.mjs").write_text(wrong)
    (folder / "tsconfig.json").write_text(json.dumps(CONFIG | {"files": ["wrong.mjs"]}))
    run("node", "node_modules/typescript/bin/tsc", "-p", "tsconfig.json", folder=folder, code=2)
