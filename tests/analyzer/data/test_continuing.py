"""A run that was ended in any way is continued with the same numbers; runs do not disturb one another."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

import onnxplain as ox
from analyzer.data.parts import find_parts
from analyzer.errors import AnalysisError
from tests.analyzer.data.networks import table_network
from tests.analyzer.data.runs import SIZES, rows_of


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_run_that_failed_is_continued_bitwise(after, model_file, photos, tmp_path, undisturbed):
    calls = iter(range(99))

    def progress(done, total):
        if next(calls) == after:
            raise RuntimeError("ended")

    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="ended"):
        ox.explain_dataset(model_file, photos, out, attributions=True, progress=progress, **SIZES)
    done = sum(part.samples for part in find_parts(out))
    kept = []
    ox.explain_dataset(model_file, photos, out, attributions=True, progress=lambda *one: kept.append(one[0]))
    assert done <= after * 2 and kept[-1] == 9
    assert rows_of(out) == rows_of(undisturbed[1])
    assert {p.name for p in out.iterdir()} == {p.name for p in undisturbed[1].iterdir()}


def test_ctrl_c_finishes_the_batch_in_hand_and_keeps_it(model_file, photos, tmp_path, undisturbed):
    out = tmp_path / "out"

    def progress(done, total):
        if done == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt, match=r"of 9 samples are done and kept.*To continue") as raised:
            ox.explain_dataset(model_file, photos, out, attributions=True, progress=progress, **SIZES)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert 2 <= raised.value.done < 9
    counts = []
    ox.explain_dataset(
        model_file, photos, out, attributions=True, progress=lambda *one: counts.append(one[0]), **SIZES
    )
    # What was kept is not computed again: the first count after the start is beyond it.
    assert counts[1] > raised.value.done
    assert rows_of(out) == rows_of(undisturbed[1])


def test_an_iterable_of_unknown_length_is_explained_and_continued(tmp_path, table_rows, table_truth):
    rows = [{name: array[k] for name, array in table_rows.items()} for k in range(11)]
    out = tmp_path / "out"
    for count in (5, 11, 11):
        # The first run is ended after five samples, in the middle of a part.
        def items(count=count):
            yield from rows[:count]
            if count < 11:
                raise RuntimeError("the stream broke")

        if count < 11:
            with pytest.raises(RuntimeError, match="the stream broke"):
                ox.explain_dataset(
                    table_network(), items(), out, "input-x-gradient", batch_size=2, part_size=4
                )
            continue
        found = ox.explain_dataset(table_network(), items(), out, "input-x-gradient")
    assert found.manifest["samples"] is None and found.ids == [str(k) for k in range(11)]
    np.testing.assert_allclose(found[:].map("a"), table_truth["a"], rtol=1e-4, atol=1e-6)
    # A source whose last part is full.
    whole = ox.explain_dataset(
        table_network(), iter(rows[:8]), tmp_path / "w", "input-x-gradient", part_size=4, batch_size=4
    )
    assert len(whole) == 8 and len(list((tmp_path / "w").glob("part-*"))) == 2


def test_two_runs_of_one_shard_are_refused_and_a_killed_one_leaves_no_lock(model_file, photos, tmp_path):
    out, inside, leave = tmp_path / "out", threading.Event(), threading.Event()

    def wait(done, total):
        inside.set()
        leave.wait(20)

    other = threading.Thread(
        target=lambda: ox.explain_dataset(model_file, photos, out, "gradient", progress=wait)
    )
    other.start()
    inside.wait(20)
    try:
        with pytest.raises(AnalysisError, match="another run writes shard 0 of 1"):
            ox.explain_dataset(model_file, photos, out, "gradient")
    finally:
        leave.set()
        other.join()
    assert not list(out.glob(".*"))
    (out / ".shard-0000.lock").touch()
    assert len(ox.explain_dataset(model_file, photos, out, "gradient")) == 9


def killed_run(arguments, done, pause):
    """Explain a data set in a child process, and kill it once so many samples are done."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        sizes = {"batch_size": 2, "part_size": 4}
        ox.explain_dataset(
            *arguments, attributions=True, progress=lambda *one: os.write(writing, bytes([one[0]])), **sizes
        )
        os._exit(0)
    os.close(writing)
    while (count := os.read(reading, 1)) and count[0] < done:
        pass
    time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_kill_9_loses_the_part_in_work_alone(model_file, photos, tmp_path, undisturbed):
    out, rng = tmp_path / "out", np.random.default_rng(0)
    for done in (0, 2, 4, 8, 8, 9):
        killed_run((model_file, photos, out), done, float(rng.uniform(0, 0.01)))
        # Whatever is there is whole, and no earlier part is lost.
        lengths = [part.samples for part in find_parts(out)]
        assert lengths == [4, 4, 1][: len(lengths)] and sum(lengths) >= 4 * (done // 4) - 4
    ox.explain_dataset(model_file, photos, out, attributions=True, **SIZES)
    assert rows_of(out) == rows_of(undisturbed[1])
    assert {p.name for p in out.iterdir()} == {p.name for p in undisturbed[1].iterdir()}


def test_what_an_interrupted_run_of_another_job_has_kept_is_not_taken(model_file, photos, tmp_path):
    def end(done, total):
        if done:
            raise RuntimeError("ended")

    out, given = tmp_path / "out", {"batch_size": 1, "part_size": 4, "shard": (1, 2)}
    with pytest.raises(RuntimeError):
        ox.explain_dataset(model_file, photos, out, "gradient", target=0, progress=end, **given)
    assert list(out.glob(".partial-0001-*"))
    ox.explain_dataset(
        model_file, photos, out, "gradient", target=1, resume=False, **(given | {"shard": (0, 2)})
    )
    found = ox.explain_dataset(model_file, photos, out, "gradient", target=1, **given)
    assert set(found.table(["target"])["target"].to_pylist()) == {1} and len(found) == 9
    part = found.paths[0]
    other = ox.explain_dataset(
        model_file, photos, tmp_path / "b", "gradient", target=0, **(given | {"shard": (0, 2)})
    )
    part.write_bytes(other.paths[0].read_bytes())
    with pytest.raises(AnalysisError, match="belongs to another job"):
        ox.explain_dataset(model_file, photos, out, "gradient", target=1, **(given | {"shard": (0, 2)}))
