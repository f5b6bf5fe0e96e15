"""Ray: the same rows as in one process, on two nodes, with a worker killed in the middle."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

import onnxplain as ox
from analyzer.data.engines import engine_of
from analyzer.data.engines.ray import Share, mapped
from tests.analyzer.data.networks import image_model, photographs, png

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'onnxplain[ray]'")

IMAGES = photographs(24)


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    made.add_node(**node)
    ray.init(address=made.address, log_to_driver=False, logging_level="error")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    yield made
    ray.shutdown()
    made.shutdown()


class Killed(ox.BatchExplainer):
    """End the process in the middle of one batch, the first time that it is explained; tell the node of the others."""

    folder = ""

    def explain(self, samples):
        marker = os.path.join(self.folder, "killed")
        if 9 in samples.passed["id"] and not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        node = np.full(len(samples), ray.get_runtime_context().get_node_id(), object)
        return {**super().explain(samples), "node": node}


@pytest.fixture
def explainer(tmp_path):
    found = Killed(image_model(), attributions=True, column="image")
    found.folder = str(tmp_path)
    return found


@pytest.fixture(scope="module")
def expected():
    found = ox.BatchExplainer(image_model(), attributions=True, column="image")(
        {"image": np.stack(IMAGES), "id": np.arange(len(IMAGES))}
    )
    assert not any(found["error"])
    return found


def refuse_difference(columns, expected):
    assert list(columns["id"]) == list(range(len(IMAGES)))
    for name in ("target", "predicted", "error"):
        assert list(columns[name]) == list(expected[name]), name
    for name in ("output", "probability", "map", "attributions"):
        np.testing.assert_allclose(columns[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_rows_of_two_nodes_are_those_of_one_process_though_a_worker_is_killed(
    cluster, explainer, expected, tmp_path
):
    assert len([one for one in ray.nodes() if one["Alive"]]) == 2
    rows = [{"image": png(pixels), "id": index} for index, pixels in enumerate(IMAGES)]
    dataset = mapped(ray.data.from_items(rows, override_num_blocks=6), explainer, 2, 4)
    dataset.write_parquet(str(tmp_path / "out"))
    found = ray.data.read_parquet(str(tmp_path / "out")).take_all()
    assert os.path.exists(tmp_path / "killed")
    found.sort(key=lambda row: row["id"])
    refuse_difference({name: np.array([row[name] for row in found]) for name in found[0]}, expected)
    assert len({row["node"] for row in found}) == 2


def test_the_engine_yields_batches_in_order_though_a_worker_is_killed(cluster, explainer, expected):
    batches = [
        {"image": [png(one) for one in IMAGES[at : at + 4]], "id": np.arange(at, at + 4)}
        for at in range(0, len(IMAGES), 4)
    ]
    engine = engine_of(2, "ray")
    found = list(engine.map(explainer, iter(batches)))
    assert [index for index, _ in found] == list(range(6))
    columns = [one for _, one in found]
    refuse_difference({name: np.concatenate([one[name] for one in columns]) for name in columns[0]}, expected)
    with pytest.raises(ox.AnalysisError, match="target"):
        list(engine_of(1, "ray").map(ox.BatchExplainer(image_model(), target=9), batches))
    assert ray.is_initialized()


def test_wrong_arguments_are_refused_before_anything_runs(cluster):
    assert ox.ray.explain.__module__ == "analyzer.data.engines.ray"
    with pytest.raises(ox.AnalysisError, match=r"ray\.data"):
        ox.ray.explain([1, 2], image_model())
    with pytest.raises(ox.AnalysisError, match="full-grad"):
        ox.ray.explain(ray.data.range(3), image_model(), "full_grad")
    with pytest.raises(ox.AnalysisError, match="graphics card"):
        ox.ray.explain(ray.data.range(3), image_model(), device="cuda")
    share = Share.of(ox.BatchExplainer(image_model()), None)
    assert (share.workers, share.cpus, share.gpus, share.threads) == (1, 1.0, 0.0, 1)
