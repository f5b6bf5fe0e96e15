"""Explain batches on a Ray cluster: as an engine of `explain_dataset`, and as a step of a Ray Dataset.

An actor holds one explainer, whose session is made once. Ray starts an actor again that ended, and gives its batch to
another one. Ray is imported when it is used.
"""

from __future__ import annotations

import math
import pickle
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from analyzer.data.batch_explainer import BatchExplainer
from analyzer.data.engines.ordered import in_order
from analyzer.data.engines.protocol import WorkerLost
from analyzer.data.engines.reading import reading
from analyzer.data.engines.shares import for_workers, on_gpu
from analyzer.errors import AnalysisError, MissingDependency
from analyzer.types import Arrays
from converters.errors import one_line
from converters.system.extras import install

if TYPE_CHECKING:
    from ray.data import Dataset

    from analyzer.backends import Differentiable, ModelLike
    from analyzer.target.target import TargetLike

RESTARTS = 3
"""How often Ray starts an actor again that ended, and gives a batch to an actor again."""
_REMOTE: dict[str, Any] = {"max_restarts": RESTARTS, "scheduling_strategy": "SPREAD"}
# Processors of an actor. More threads wait for one another.
_CORES = 4
# Seconds that a cluster has to answer.
_PATIENCE = 15
# Bytes of an argument that Ray copies to each actor; larger ones lie in its store once.
_SMALL = 50_000


def module() -> Any:
    """Return Ray. Raises MissingDependency."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependency(f"Ray is not installed. Fix: {install('ray')}") from error
    return ray


class ExplainBatch:
    """The state of an actor: an explainer, whose session is made with the first batch."""

    def __init__(self, explainer: BatchExplainer) -> None:
        self._explainer = explainer

    def __call__(self, batch: Mapping[str, Any]) -> Arrays:
        """Return the columns of a batch."""
        return self._explainer(batch)

    def explain(self, batch: Mapping[str, Any]) -> Arrays:
        """Return the columns of a batch."""
        return self._explainer(batch)


class RayEngine:
    """The engine of a Ray cluster. See `Engine`.

    workers: actors; default one for each graphics card where the explainer uses them, else one for each four
    processors of the cluster. address: of the cluster. Default: the one of this process or of this machine, else a new
    one.
    """

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        module()
        self._workers, self._address = workers, address
        self._stopped = threading.Event()

    def map(
        self, explainer: BatchExplainer, batches: Iterable[Mapping[str, Any]]
    ) -> Iterator[tuple[int, Arrays]]:
        """Yield the index and the columns of every batch, in order."""
        ray = module()
        started = connected(self._address)
        crew: _Actors | None = None
        try:
            crew = _Actors(explainer, Share.of(explainer, self._workers))
            with reading(batches, _same, crew.count, self._stopped) as source:
                yield from in_order(source, crew.begin, _taken, 2 * crew.count)
        finally:
            if crew is not None:
                crew.close()
            if started:
                ray.shutdown()

    def stop(self) -> None:
        """Begin no further batch."""
        self._stopped.set()


@dataclass(frozen=True)
class Share:
    """What each actor gets. cpus, gpus: that Ray reserves. threads: of its session."""

    workers: int
    cpus: float
    gpus: float
    threads: int

    @classmethod
    def of(cls, explainer: BatchExplainer, workers: int | None) -> Share:
        """Divide the cluster. One processor is left for tasks that read; without it, they would wait for ever."""
        there = module().cluster_resources()
        cores, cards = there.get("CPU", 1.0), there.get("GPU", 0.0)
        gpus = 1.0 if on_gpu(explainer) else 0.0
        if gpus and not cards:
            raise AnalysisError(
                "the explainer runs on a graphics card, and the Ray cluster has none. Fix: omit device, or start Ray "
                "on a machine with one"
            )
        count = workers or int(cards if gpus else max(1, cores // _CORES))
        largest = max(one["Resources"].get("CPU", 1.0) for one in module().nodes() if one["Alive"])
        cpus = min((cores - 1) / count, largest)
        reserved = float(math.floor(cpus)) if cpus >= 1 else max(round(cpus, 2), 0.01)
        return cls(count, reserved, gpus, int(max(1, min(cores // count, largest))))


class _Actors:
    """Actors with one explainer each, and the batches that each has in work."""

    def __init__(self, explainer: BatchExplainer, share: Share) -> None:
        self._ray = module()
        made = self._ray.remote(ExplainBatch).options(
            num_cpus=share.cpus, num_gpus=share.gpus, max_task_retries=RESTARTS, **_REMOTE
        )
        # Held as long as actors may be started again.
        self._explainer: Any = for_workers(explainer, share.workers, share.threads)
        if len(pickle.dumps(self._explainer)) > _SMALL:
            self._explainer = self._ray.put(self._explainer)
        actors = [made.remote(self._explainer) for _ in range(share.workers)]
        self._busy: list[tuple[Any, list[Any]]] = [(actor, []) for actor in actors]

    @property
    def count(self) -> int:
        """The number of actors."""
        return len(self._busy)

    def begin(self, index: int, batch: Mapping[str, Any]) -> Any:
        """Give a batch to the actor with the fewest in work."""
        for _, tasks in self._busy:
            if tasks:
                _, tasks[:] = self._ray.wait(tasks, num_returns=len(tasks), timeout=0)
        actor, tasks = min(self._busy, key=lambda one: len(one[1]))
        tasks.append(actor.explain.remote(batch))
        return tasks[-1]

    def close(self) -> None:
        """End the actors, those that are at work at once."""
        for actor, _ in self._busy:
            self._ray.kill(actor)


def connected(address: str | None) -> bool:
    """Connect this process to a cluster, unless it is connected. Returns whether the caller is to end the connection.

    Raises AnalysisError where there is no cluster at the address.
    """
    ray = module()
    if ray.is_initialized():
        return False
    try:
        if address is not None:
            _reach(address)
        ray.init(address=address, logging_level="error", **({} if address else {"include_dashboard": False}))
    except (OSError, RuntimeError, ValueError) as error:
        raise AnalysisError(
            f"no Ray cluster answers at {address!r} ({one_line(error)}). Fix: give the address that `ray start --head` "
            "has printed, or omit it"
        ) from error
    return True


def _reach(address: str) -> None:
    """Raise OSError where nothing answers at host:port, for which Ray would look for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()


def _taken(index: int, task: Any) -> Arrays:
    """The columns of a batch. Raises what the explainer raised, or WorkerLost."""
    ray = module()
    try:
        found: Arrays = ray.get(task)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:
        raise WorkerLost(
            f"actors of Ray ended again and again before they had explained batch {index} ({one_line(error)}). Fix: "
            "smaller batches or fewer workers where memory is short"
        ) from error
    return found


def _same(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    return batch


def explain(
    dataset: Dataset,
    model: Differentiable | ModelLike,
    method: str = "full-grad",
    *,
    concurrency: int | tuple[int, int] | None = None,
    batch_size: int = 16,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    target: TargetLike | str = None,
    attributions: bool = False,
    dtype: Literal["float16", "float32", "float64"] = "float32",
    backend: str = "onnxruntime",
    threads: int | None = None,
    max_memory: int | str | None = None,
    column: str | None = None,
    keep_inputs: bool = False,
    **settings: Any,
) -> Dataset:
    """Explain the rows of a Ray Dataset: return one with the columns of `BatchExplainer`, lazily and streaming.

    dataset: has a column for each input of the model, or one of images for its only input; see `BatchExplainer`.
    model: what `differentiate` takes. A path must name the same file on every node; any other model travels along.
    concurrency: actors, or (least, most). Default: one for each graphics card where `device` names one, else one for
        each four processors.
    batch_size: rows that are explained together.
    num_cpus, num_gpus: what Ray reserves for an actor. Default: one graphics card where `device` names one, and an
        equal share of the processors, but for one that is left to the tasks that read.
    The other arguments are those of `BatchExplainer`.
    Rows that fail have a text in the column `error`. An actor that ends is started again, and its rows are explained
    by another: each row is in the result once.
    Raises AnalysisError and TypeError for wrong arguments, MissingDependency where Ray is not installed.
    """
    ray = module()
    if not isinstance(dataset, ray.data.Dataset):
        raise AnalysisError(
            f"expected a Ray Dataset, got {type(dataset).__name__}. Fix: give ray.data.read_images(…), "
            "ray.data.from_numpy(…) or another one"
        )
    explainer = BatchExplainer(
        model,
        method,
        target=target,
        attributions=attributions,
        dtype=dtype,
        backend=backend,
        threads=threads,
        max_memory=max_memory,
        column=column,
        keep_inputs=keep_inputs,
        **settings,
    )
    return mapped(dataset, explainer, concurrency, batch_size, num_cpus, num_gpus)


def mapped(
    dataset: Dataset,
    explainer: BatchExplainer,
    concurrency: int | tuple[int, int] | None = None,
    batch_size: int = 16,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
) -> Dataset:
    """Return a Ray Dataset whose batches an explainer explains. See `explain` for the arguments."""
    connected(None)
    most = concurrency[1] if isinstance(concurrency, tuple) else concurrency
    share = Share.of(explainer, most)
    least = concurrency[0] if isinstance(concurrency, tuple) else share.workers
    own = for_workers(explainer, share.workers, share.threads)
    own.one_array = False
    found: Dataset = dataset.map_batches(
        ExplainBatch,
        fn_constructor_args=(own,),
        batch_size=batch_size,
        batch_format="numpy",
        compute=module().data.ActorPoolStrategy(min_size=least, max_size=share.workers),
        num_cpus=share.cpus if num_cpus is None else num_cpus,
        num_gpus=share.gpus if num_gpus is None else num_gpus,
        max_task_retries=RESTARTS,
        **_REMOTE,
    )
    return found
