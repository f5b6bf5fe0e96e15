"""Engines: batches in order, equal to the explainer called in a loop; workers that are killed; stops and errors."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from contextlib import closing

import numpy as np
import psutil
import pytest

import onnxplain as ox
from analyzer.data.engines import LocalEngine, ProcessEngine, WorkerLost, engine_of
from analyzer.data.engines.shares import for_workers, on_gpu
from analyzer.data.engines.worker import Worker
from tests.analyzer.data.networks import image_model, photographs

BATCHES = [{"image": np.stack(photographs(3, seed)), "id": np.arange(3) + 3 * seed} for seed in range(8)]
ENGINES = {"local": LocalEngine, "processes": lambda: ProcessEngine(1)}


@pytest.fixture(scope="module")
def explainer():
    return ox.BatchExplainer(image_model(), attributions=True)


@pytest.fixture(scope="module")
def expected(explainer):
    return [explainer(batch) for batch in BATCHES]


def refuse_difference(found, expected):
    assert [index for index, _ in found] == list(range(len(expected)))
    for (_, columns), wanted in zip(found, expected, strict=True):
        assert list(columns) == list(wanted)
        for name, array in wanted.items():
            np.testing.assert_array_equal(columns[name], array, err_msg=name)


def children():
    """The processes that were started since the fixture `others` ran."""
    return [one for one in psutil.Process().children() if one.pid not in OTHERS]


OTHERS = set()


@pytest.fixture(autouse=True)
def others():
    """Processes of other tests, such as the kernel of a notebook or multiprocessing's tracker, go on."""
    OTHERS.clear()
    OTHERS.update(one.pid for one in psutil.Process().children())


@pytest.mark.parametrize("name", ENGINES)
def test_batches_come_in_order_and_few_are_read_ahead(name, explainer, expected):
    read = []

    def batches():
        for batch in BATCHES:
            read.append(batch)
            yield batch

    found, before = [], len(children())
    for index, columns in ENGINES[name]().map(explainer, batches()):
        found.append((index, columns))
        assert len(read) <= index + 6
    refuse_difference(found, expected)
    assert len(children()) == before


class Killed(ox.BatchExplainer):
    """End the process in the middle of some batches, the first time that each is explained."""

    folder = ""
    fatal = ()
    always = False

    def explain(self, samples):
        first = int(samples.passed["id"][0])
        marker = os.path.join(self.folder, str(first))
        if first in self.fatal and (self.always or not os.path.exists(marker)):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().explain(samples)


def killed_at(explainer, folder, *fatal, always=False):
    found = Killed(explainer.model, attributions=True)
    found.folder, found.fatal, found.always = str(folder), fatal, always
    return found


def test_a_batch_whose_worker_is_killed_is_explained_by_another(explainer, expected, tmp_path):
    fatal = killed_at(explainer, tmp_path, 0, 3, 12)
    refuse_difference(list(ProcessEngine(2).map(fatal, BATCHES)), expected)
    assert len(list(tmp_path.iterdir())) == 3
    assert not children()


def test_a_batch_that_ends_every_worker_is_an_error_after_the_batches_before_it(
    explainer, expected, tmp_path
):
    found = []
    with pytest.raises(WorkerLost, match=r"SIGKILL.*Fix: "):
        for one in ProcessEngine(1).map(killed_at(explainer, tmp_path, 6, always=True), BATCHES):
            found.append(one)
    refuse_difference(found, expected[:2])
    assert not children()


@pytest.mark.parametrize("name", ENGINES)
def test_an_error_is_raised_after_the_batches_before_it(name, explainer, expected):
    def broken():
        yield from BATCHES[:2]
        raise OSError("the disk is gone")

    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        for one in ENGINES[name]().map(explainer, broken()):
            found.append(one)
    refuse_difference(found, expected[:2])
    wrong = ox.BatchExplainer(explainer.model, target=7)
    with pytest.raises(ox.AnalysisError, match="7"):
        list(ENGINES[name]().map(wrong, BATCHES))
    assert not children()


@pytest.mark.parametrize("name", ENGINES)
def test_stop_finishes_what_is_in_work_and_reads_no_more(name, explainer, expected):
    engine, closed = ENGINES[name](), threading.Event()

    def endless():
        try:
            while True:
                yield from BATCHES
        finally:
            closed.set()

    found = []
    for one in engine.map(explainer, endless()):
        found.append(one)
        engine.stop()
    refuse_difference(found, expected[: len(found)])
    assert len(found) <= 5 and closed.is_set() and not children()
    with closing(ENGINES[name]().map(explainer, endless())) as left:
        next(left)
    assert not children() and threading.active_count() < 10


def test_a_worker_ends_when_its_input_ends(explainer, expected):
    worker = Worker(pickle.dumps(explainer), threads=1)
    try:
        columns, _ = worker.explain(BATCHES[0])
        np.testing.assert_array_equal(columns["map"], expected[0]["map"])
        # As when the parent is killed. Ctrl-C does not end it.
        os.kill(worker.pid, signal.SIGINT)
        assert worker._process.poll() is None
        worker._process.stdin.close()
        assert worker._process.wait(20) == 0
    finally:
        worker.close()


def test_workers_share_the_machine(explainer, tmp_path):
    fn = ox.differentiate(explainer.model)
    for model in (explainer.model, fn):
        shared = for_workers(ox.BatchExplainer(model), 2, threads=1)
        whole = for_workers(ox.BatchExplainer(model), 1, threads=1)
        assert shared.fn.engine.options["threads"] == 1
        assert 0.4 < shared.fn.max_memory / whole.fn.max_memory < 0.6
    given = ox.BatchExplainer(explainer.model, threads=2, batch_size=3)
    kept = for_workers(given, 2, threads=1).fn
    assert (kept.engine.options["threads"], kept.batch_size, kept.max_memory) == (2, 3, None)
    assert on_gpu(ox.BatchExplainer(explainer.model, device="cuda:0")) and not on_gpu(given)


def test_without_ray_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"onnxplain\[ray\]"):
        engine_of(2, "ray")
    with pytest.raises(ox.AnalysisError, match=r"onnxplain\[ray\]"):
        ox.ray.explain(None, "model.onnx")


def test_engines_are_chosen_by_name():
    assert isinstance(engine_of(), LocalEngine)
    assert isinstance(engine_of(3), ProcessEngine)
    for wrong in ({"kind": "spark"}, {"address": "host:1"}, {"workers": -1}):
        with pytest.raises(ox.AnalysisError, match="Fix: "):
            engine_of(**wrong)
