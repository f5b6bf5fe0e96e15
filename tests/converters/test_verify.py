"""A conversion that computes something else is never handed on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper

from converters import ConversionError, VerificationFailed, convert
from converters.model import Verification
from converters.verification.variants import variants
from converters.verify import Reference, relative_l2, verify
from tests.converters.helpers import make_model, normal

MODEL = make_model(
    [helper.make_node("Mul", ["x", "two"], ["y"])], {"x": ("n", 4)}, ["y"], {"two": np.float32([2])}
)
EXAMPLE = {"x": normal(2, 4)}


def check(
    reference: object, model: onnx.ModelProto = MODEL, example: dict[str, np.ndarray] = EXAMPLE
) -> Verification:
    return verify(model, Reference(reference, "the test"), example, batches=2, tolerance=1e-3, seed=0)


def test_the_error_is_measured_and_stored() -> None:
    found = check(lambda feeds: [feeds["x"] * np.float32(2.0002)])
    assert found.batches == 2 and found.reference == "the test"
    assert found.relative_l2 == pytest.approx(1e-4, rel=0.01)
    assert found.max_abs_error > 0


def test_a_wrong_value_is_refused_with_output_and_error() -> None:
    with pytest.raises(VerificationFailed, match=r"'y' differs from the test by 0\.33"):
        check(lambda feeds: [feeds["x"] * 3])


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(VerificationFailed, match="shape"):
        check(lambda feeds: [feeds["x"][:, :1] * 2])


def test_an_error_in_one_batch_size_alone_is_found() -> None:
    with pytest.raises(VerificationFailed):
        check(lambda feeds: [feeds["x"] * (2 if len(feeds["x"]) > 1 else 5)])


def test_values_that_are_infinite_on_both_sides_are_no_error() -> None:
    model = make_model([helper.make_node("Log", ["x"], ["y"])], {"x": ("n", 4)}, ["y"])
    with np.errstate(all="ignore"):
        found = check(lambda feeds: [np.log(feeds["x"])], model)
        with pytest.raises(VerificationFailed, match="inf"):
            check(lambda feeds: [np.log(np.abs(feeds["x"]))], model)
        with pytest.raises(VerificationFailed, match="no finite value"):
            check(lambda feeds: [np.log(feeds["x"])], model, {"x": np.float32([[-3, -2, -1, -4]])})
    assert found.relative_l2 < 1e-6


def test_an_original_that_fails_is_named() -> None:
    def broken(feeds: object) -> list[np.ndarray]:
        raise ValueError("needs\na batch")

    with pytest.raises(ConversionError, match=r"the original fails in the test on x .*needs a batch"):
        check(broken)


def test_test_batches_keep_to_the_range_of_the_example() -> None:
    example = {"ids": np.array([[2, 5]]), "mask": np.ones((1, 2), bool), "image": np.float32([[0.0, 1.0]])}
    batches = [variants(example, frozenset(example), index, None, 0, {})[0] for index in range(3)]
    assert [len(batch["ids"]) for batch in batches] == [1, 2, 3]
    for batch in batches:
        assert batch["ids"].min() >= 2 and batch["ids"].max() <= 5
        assert batch["image"].min() >= 0 and batch["image"].max() <= 1
        assert batch["mask"].dtype == bool


def test_relative_l2_is_the_norm_of_the_difference_over_the_norm() -> None:
    assert relative_l2(np.array([3.0, 5.0]), np.array([3.0, 4.0])) == pytest.approx(0.2)
    assert relative_l2(np.array([1.0, np.nan]), np.array([1.0, 2.0])) == np.inf
    assert relative_l2(np.array([1.0, np.inf]), np.array([1.0, np.inf])) == 0.0


def test_a_planted_wrong_conversion_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folding rule with its sign flipped is caught, whatever the graph looks like."""
    from converters.passes import fold

    real = fold._absorb
    monkeypatch.setattr(
        fold,
        "_absorb",
        lambda folding, layer, change: real(folding, layer, replace(change, factor=-change.factor)),
    )
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"])]
    nodes += [helper.make_node("BatchNormalization", ["z", "one", "one", "one", "two"], ["y"])]
    ones = np.ones(6, np.float32)
    constants = {"w": normal(6, 4, 1, 1), "one": ones, "two": 2 * ones}
    with pytest.raises(VerificationFailed, match="'y' differs"):
        convert(make_model(nodes, {"x": ("n", 4, 3, 3)}, ["y"], constants))


def test_test_inputs_keep_the_rules_of_the_example() -> None:
    """Lengths stay sorted and theirs, an end token stays in its row, one-hot rows stay one-hot, masks see a key."""
    ids = np.array([[5, 7, 9, 2], [6, 2, 0, 0], [2, 0, 0, 0]])
    lengths = (ids != 0).sum(1)
    example = {"ids": ids, "lengths": lengths, "mask": ids != 0, "hot": np.eye(4, dtype=np.float32)[:3]}
    for index in range(4):
        for given in variants(example, frozenset(example), index, None, 0, {}):
            assert (np.diff(given["lengths"]) <= 0).all()
            assert (given["lengths"] == (given["ids"] != 0).sum(1)).all()
            assert (given["ids"] == 2).any(1).all() and given["mask"].any(1).all()
            assert ((given["ids"] != 0) == given["mask"]).all()
            assert (given["hot"].sum(1) == 1).all()


def test_test_inputs_that_the_original_refuses_are_left_out_with_a_note() -> None:
    def original(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        if len(feeds["x"]) != 2:
            raise ValueError("two rows alone")
        return [feeds["x"] * 2]

    found = check(original)
    assert found.batches == 2
    assert len(found.notes) == 1 and "two rows alone" in found.notes[0]


def test_an_original_that_refuses_every_test_input_is_verified_on_the_example() -> None:
    def original(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        if feeds["x"] is not EXAMPLE["x"]:
            raise ValueError("another input")
        return [feeds["x"] * 2]

    found = check(original)
    assert found.batches == 0 and "fails on 2 of 2 test inputs" in found.notes[0]


def test_a_batch_axis_that_the_original_drops_is_a_note() -> None:
    found = check(lambda feeds: [np.squeeze(feeds["x"] * 2)])
    assert found.batches == 2 and "drops the batch axis of y" in found.notes[0]


def test_a_random_original_is_named() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(VerificationFailed, match=r"the original is random: two runs .* Fix: "):
        check(lambda feeds: [feeds["x"] * 2 + rng.normal(size=feeds["x"].shape).astype(np.float32)])


def test_the_message_names_the_options_that_help() -> None:
    with pytest.raises(VerificationFailed, match=r"Fix: .*--tolerance"):
        check(lambda feeds: [feeds["x"] * 2.1])
    with pytest.raises(VerificationFailed, match=r"made from the example\. Fix: .*--batches 0"):
        check(lambda feeds: [feeds["x"] * (2 if feeds["x"] is EXAMPLE["x"] else 2.1)])
