"""Explain a data set: from a model and a source of samples to a folder of result parts, which a later run continues."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from analyzer.backends import Differentiable, ModelLike
from analyzer.backends.batching.memory import budget
from analyzer.backends.batching.planning import plan_batch
from analyzer.data import manifest as manifests
from analyzer.data.arrow import arrow
from analyzer.data.batch_explainer import BatchExplainer
from analyzer.data.columns import Column
from analyzer.data.engines import Engine, LocalEngine, engine_of
from analyzer.data.identity import described, model_identity, versions
from analyzer.data.job import Job, Watcher
from analyzer.data.labels import LabelIndex, has_class
from analyzer.data.noise import noise_sample
from analyzer.data.parts import find_parts, remove_shard
from analyzer.data.results import Results
from analyzer.data.sources import Source, open_source
from analyzer.data.table_schema import LABEL, schema_of, stored_columns
from analyzer.data.table_schema import described as columns_described
from analyzer.errors import AnalysisError
from analyzer.graph.batch_axis import batched_inputs
from analyzer.methods import METHODS
from analyzer.target.target import TargetLike
from converters.system.locks import only_holder, only_writer

BATCH, BATCHES = 16, 8
"""By default a batch has at most so many samples, and a part so many batches."""
# Entries of the manifest that each part has, too, so that it can be understood alone.
_IN_PARTS = ("format", "model", "method", "settings", "class_names", "schema")


def explain_dataset(
    model: Differentiable | ModelLike,
    source: Any,
    out: str | os.PathLike[str],
    method: str = "full-grad",
    *,
    target: TargetLike | str = None,
    batch_size: int | None = None,
    shard: tuple[int, int] = (0, 1),
    resume: bool = True,
    attributions: bool = False,
    dtype: Literal["float16", "float32", "float64"] = "float32",
    part_size: int | None = None,
    fail_fast: bool = False,
    workers: int = 0,
    engine: str = "local",
    address: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    label: str | None = None,
    column: str | None = None,
    backend: str = "onnxruntime",
    **settings: Any,
) -> Results:
    """Explain all samples of a source, and write the results to a folder of Parquet files.

    A run that was ended in any way is continued by the same call: complete parts are kept, and the rest gives the same
    numbers as a run that was not ended.

    model: what `differentiate` takes, the path of a file among it.
    source: a folder of images, whose sub-folders are labels; a pattern such as "photos/*.jpg"; a text file of paths; a
        .npy or an .npz file; Parquet or Arrow files; arrays; a torch data set, or any iterable of samples, of pairs
        (sample, label) or of mappings.
    out: the folder of the results. method, target, attributions, dtype, backend, settings: as for `BatchExplainer`.
        target="label" explains the class of each sample's label; a sample whose label is no class of the model fails.
    batch_size: samples that are explained together. Default: at most 16, as many as half of the free memory holds.
    shard: (i, n), the part i of n of the work, for several processes or machines that write to the same folder.
    resume: continue what is in `out`. False removes the results of this shard first.
    part_size: samples in a file. Default: 8 batches.
    fail_fast: raise an error for the first sample that fails. By default failures are listed in errors-0000.jsonl.
    workers: processes that explain; 0 explains in this process, while a thread reads ahead. On Ray, actors.
    engine, address: "ray" explains on the Ray cluster at an address; default is this machine.
    progress: called with the samples that are done and their number, 0 where it is not known.
    label: the column of labels of a table, an .npz file or mappings. Default: "label", where there is one.
    column: the column of the model's only input, where it has another name.
    Returns the results of the folder, those of other shards among them.
    Raises OtherJob where `out` holds results of another model, method, setting or source; InputError for a source that
    cannot be read; SampleFailed with fail_fast; AnalysisError where another process writes the same shard;
    Interrupted (a KeyboardInterrupt) after Ctrl-C, when the batch in hand is finished.
    """
    arrow()
    explainer = BatchExplainer(
        model, method, target=target, attributions=attributions, dtype=dtype, backend=backend, **settings
    )
    asked = JobOptions(
        batch_size=batch_size,
        part_size=part_size,
        shard=shard,
        resume=resume,
        fail_fast=fail_fast,
        label=label,
        column=column,
        workers=workers,
    )
    watcher = Watcher() if progress is None else Watcher(progress=progress)
    return explain(explainer, model, source, Path(out), asked, engine_of(workers, engine, address), watcher)


@dataclass(frozen=True)
class JobOptions:
    """How the work is divided and continued; see `explain_dataset`. name: of the model, where it is known better."""

    batch_size: int | None = None
    part_size: int | None = None
    shard: tuple[int, int] = (0, 1)
    resume: bool = True
    fail_fast: bool = False
    label: str | None = None
    column: str | None = None
    workers: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        for name in ("batch_size", "part_size"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise AnalysisError(
                    f"expected {name} of at least 1, got {value!r}. Fix: give a whole number above 0"
                )
        try:
            index, count = self.shard
            right = all(isinstance(one, int) for one in self.shard) and 0 <= index < count
        except (TypeError, ValueError):
            right = False
        if not right:
            raise AnalysisError(
                f"expected shard=(i, n) with 0 ≤ i < n, got {self.shard!r}. Fix: count from 0, as in (0, 4) to (3, 4)"
            )


def explain(
    explainer: BatchExplainer,
    model: Any,
    source: Any,
    out: Path,
    asked: JobOptions,
    engine: Engine,
    watcher: Watcher,
) -> Results:
    """Explain a source on an engine; see `explain_dataset`. model: as it was given, for the manifest."""
    fn = explainer.fn
    target = explainer.target
    by_label = target == LABEL and not has_class(fn.class_names, LABEL)
    if by_label:
        explainer.target = None
    opened = open_source(source, fn.graph.inputs, label=asked.label, column=asked.column)
    out.mkdir(parents=True, exist_ok=True)
    index, shards = asked.shard
    try:
        with only_holder(out / f".shard-{index:04d}.lock"):
            manifest, columns = _agreed(explainer, model, opened, out, asked, target)
            job = Job(
                explainer=explainer,
                source=opened,
                labels=LabelIndex(opened.label_names, explainer.class_names, _classes(fn)),
                folder=out,
                key=manifests.job_of(manifest),
                schema=schema_of(columns, {name: manifest[name] for name in _IN_PARTS}),
                part_size=manifest["part_size"],
                batch_size=manifest["batch_size"],
                shard=index,
                shards=shards,
                fail_fast=asked.fail_fast,
                by_label=by_label,
                watcher=watcher,
            )
            if not isinstance(engine, LocalEngine):
                # Workers have sessions of their own.
                explainer.release()
            job.run(engine)
    except BlockingIOError as error:
        raise AnalysisError(
            f"{out}: another run writes shard {index} of {shards} now. Fix: wait for it, or give each run another "
            "shard"
        ) from error
    return Results(out)


def _agreed(
    explainer: BatchExplainer, model: Any, source: Source, out: Path, asked: JobOptions, target: Any
) -> tuple[dict[str, Any], list[Column]]:
    """The manifest of the job, written by its first run, and the columns. Raises OtherJob."""
    index, shards = asked.shard
    with only_writer(out):
        if not asked.resume:
            remove_shard(out, index)
            if not find_parts(out):
                (out / manifests.NAME).unlink(missing_ok=True)
        stored = manifests.read(out)
        if stored is None and find_parts(out):
            raise AnalysisError(
                f"{out}: holds parts of results without a {manifests.NAME}. Fix: give another folder, or restore the "
                "file"
            )
        batch = asked.batch_size or (
            stored["batch_size"] if stored else _batch_size(explainer, asked.workers)
        )
        _fix_batch(explainer, batch)
        part = asked.part_size or (stored["part_size"] if stored else BATCHES * batch)
        wanted = {
            **_identity(explainer, model, source, asked),
            "target": described(target),
            "part_size": part,
            "batch_size": batch,
            "shards": shards,
        }
        if stored is not None:
            manifests.refuse_another(stored, wanted, out)
            return stored, stored_columns(stored["schema"])
        columns = list(explainer.schema(_first(source)))
        found = {
            "format": manifests.FORMAT,
            **wanted,
            "samples": source.samples,
            "inputs": list(explainer.fn.graph.inputs),
            "preprocessing": _preprocessing(explainer),
            "class_names": explainer.class_names,
            "schema": columns_described(columns),
        }
        manifests.write(out, found)
        return found, columns


def _preprocessing(explainer: BatchExplainer) -> dict[str, Any] | None:
    found = explainer.fn.model.preprocessing
    return None if found is None else asdict(found)


def _identity(explainer: BatchExplainer, model: Any, source: Source, asked: JobOptions) -> dict[str, Any]:
    options = {
        key: value for key, value in explainer.options.items() if key not in _OF_MACHINE and value is not None
    }
    backend = options.pop("backend")
    settings = {**_defaults(explainer.method), **explainer.settings, **options}
    told = source.described()
    of_model = model_identity(model, explainer.fn.model.proto)
    return {
        "model": {**of_model, "name": asked.name or of_model["name"]},
        "method": explainer.method,
        "settings": {key: described(value) for key, value in settings.items()},
        "backend": explainer.fn.backend if isinstance(model, Differentiable) else backend,
        "attributions": explainer.attributions,
        "dtype": explainer.dtype,
        "source": {**told["identity"], "path": told["path"]},
        "label": asked.label,
        "column": asked.column,
        "versions": versions(),
    }


def _defaults(method: str) -> dict[str, Any]:
    """The settings of a method that are not given."""
    return {name: parameter.default for name, parameter in METHODS[method].parameters.items()}


# Options that change how fast a machine computes, and not what.
_OF_MACHINE = frozenset({"threads", "max_memory", "batch_size", "verify", "trust"})


def _first(source: Source) -> Mapping[str, Any] | None:
    """The first sample as a batch, which tells the shapes of the results; None of a source that is read once."""
    if source.samples is None:
        return None
    record = next(source.records(0, 1))
    if record.error:
        return None
    values: dict[str, Any] = {}
    for name, value in record.values.items():
        one = np.empty(1, object)
        one[0] = value
        values[name] = np.stack([value]) if source.stacked else one
    return values


def _batch_size(explainer: BatchExplainer, workers: int) -> int:
    """As many samples as half of the free memory holds for each worker, at most BATCH; a power of two."""
    fn = explainer.fn
    if fn.batch_size is not None:
        return fn.batch_size
    if fn.engine.batch is not None:
        return max(fn.engine.batch, 1)
    arrays, _ = noise_sample(fn)
    batched = batched_inputs(fn.graph)
    one = {name: array[None] if name in batched else array for name, array in arrays.items()}
    share = budget(fn.max_memory) // max(workers, 1)
    fits = plan_batch(fn.bind(one), at_most=BATCH, max_memory=share) if batched else BATCH
    return int(2 ** np.floor(np.log2(max(fits, 1))))


def _fix_batch(explainer: BatchExplainer, size: int) -> None:
    """Let the explainer compute batches as they are: a split by the memory that is free would change roundings."""
    explainer.options["batch_size"] = size
    if isinstance(explainer.model, Differentiable):
        explainer.model = replace(explainer.model, batch_size=size)
    explainer.fn = replace(explainer.fn, batch_size=size)


def _classes(fn: Differentiable) -> int | None:
    """The number of classes of the output, where the model states it."""
    shape = fn.graph.tensors[fn.graph.default_output].shape
    return shape[1] if shape and len(shape) > 1 and isinstance(shape[1], int) else None
