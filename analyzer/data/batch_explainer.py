"""Explain batches of a data set: a picklable object from {column: array} to {column: array}.

The unit of work of every engine: a loop in this process, a pool of processes, Ray, Spark. The model is loaded and its
session is made at the first batch. A sample that cannot be read or explained gets the reason in the column `error`; an
error that concerns all samples, such as an op without a rule, is raised.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, cast

import numpy as np

from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.backends.watched import watched
from analyzer.data.columns import (
    ATTRIBUTIONS,
    ERROR,
    FIXED,
    MAP,
    TARGET,
    Column,
    array_columns,
    arrays_of,
    lost_in,
    numbers_of,
)
from analyzer.data.noise import noise_like, noise_sample
from analyzer.data.requests import (
    refuse_rows,
    refuse_rows_of_settings,
    says_nothing,
    settings_of,
    with_class,
)
from analyzer.data.rows import (
    FoundRows,
    filled_columns,
    reason_of,
    refuse_other_axes,
    with_and_without_class,
)
from analyzer.data.samples import Columns, SampleReader, Samples
from analyzer.errors import (
    AnalysisError,
    InputError,
    MissingDependency,
    TargetError,
    UndefinedResult,
    UnknownTensor,
    UnsupportedOp,
    VerificationError,
    each_note_once,
)
from analyzer.methods import METHODS
from analyzer.methods.names import suggested
from analyzer.methods.result import Attribution
from analyzer.target.target import TargetLike
from analyzer.types import Arrays
from converters import Model, load
from converters.system.forks import ForkLock

DTYPES = ("float16", "float32", "float64")
# Errors of the model or of the settings, and errors of a sample; any other is tried on noise.
_OF_ALL = (UnsupportedOp, UnknownTensor, MissingDependency)
_OF_SAMPLE = (InputError, UndefinedResult, VerificationError)


class BatchExplainer:
    """Explain batches of samples: `explainer({"image": images})` gives a column for each number, map and reason.

    The object pickles, so that processes, Ray and Spark can work with it: a model given by its path stays a path, any
    other model travels with its weights. Batches may come from several threads, and are explained one after another.
    """

    one_array = True
    """Whether the samples of an array have the shape of all samples. Blocks of Ray hold arrays of a few samples."""
    _lock: ForkLock
    _remarks: set[tuple[type[Warning], str]]
    _arrays: dict[str, Column] | None
    _noise_error: tuple[type[Exception], ...] | None

    def __init__(
        self,
        model: Differentiable | ModelLike,
        method: str = "full-grad",
        *,
        target: TargetLike | str = None,
        attributions: bool = False,
        dtype: Literal["float16", "float32", "float64"] = "float32",
        backend: str = "onnxruntime",
        threads: int | None = None,
        max_memory: int | str | None = None,
        column: str | None = None,
        keep_inputs: bool = False,
        **settings: Any,
    ) -> None:
        """Describe the work. The model is loaded at the first batch.

        model: what `differentiate` takes, the path of a file among it. A Differentiable keeps its own backend, threads
            and memory.
        method: the name of a registered method, such as "integrated-gradients".
        target: as for the method, for all samples. For a class of each sample, give the batch a column `target`.
        attributions: also return the attributions, besides the map.
        dtype: of maps and attributions. A sample with numbers that float16 does not hold gets an error.
        backend, threads, max_memory: as for `differentiate`. Each worker takes half of the free memory by default.
        column: the column of the model's only input, where it does not have the input's name. Without it, the only
            column of the batch is taken.
        keep_inputs: also return the columns of the inputs.
        settings: those of the method, such as steps=50, and further options of `differentiate`, such as device="cuda".
        Raises AnalysisError for an unknown method or dtype, TypeError for a setting that neither has, InputError for a
        path without a file.
        """
        if method not in METHODS:
            meant = suggested(method, METHODS) if isinstance(method, str) else None
            fix = f"give {meant!r}" if meant else f"choose from {', '.join(METHODS)}"
            raise AnalysisError(f"unknown method {method!r}. Fix: {fix}")
        if dtype not in DTYPES:
            raise AnalysisError(f"unknown dtype {dtype!r}. Fix: choose from {', '.join(DTYPES)}")
        self.method, self.target, self.attributions, self.dtype = method, target, bool(attributions), dtype
        self.column, self.keep_inputs = column, bool(keep_inputs)
        self.settings, options = settings_of(method, settings)
        self.options = {"backend": backend, "threads": threads, "max_memory": max_memory, **options}
        refuse_rows(target)
        self.model = _kept(model, options)
        self._forget()

    def __repr__(self) -> str:
        """Return the method and the model."""
        return (
            f"BatchExplainer({self.method} of {self.model if self._is_path else type(self.model).__name__})"
        )

    def __call__(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the columns that explain a batch, a row for each sample.

        batch: {column: a value for each sample}. The inputs of the model have their ONNX names, or `column`: arrays as
            the model takes them, an object array where their shapes differ; where the model stores a preprocessing
            also pixels (height, width, 3) of uint8, the bytes of image files, and paths. Optional: `target`, the class
            of each sample, or −1 for the highest; `error`, a text for each sample that is not to be explained.
            Other columns are returned as they are.
        Returns the columns of `schema`. A row with an `error` has NaN, −1 and empty texts in the others.
        Raises AnalysisError for an error that concerns all samples.
        """
        return self.explain(self.prepare(batch))

    def prepare(self, batch: Columns) -> Samples:
        """Read the samples of a batch: decode and normalise images, check arrays. Another thread may compute meanwhile.

        Raises AnalysisError where the batch has no column for an input, or names a class and the explainer does, too.
        """
        with each_note_once(self._remarks):
            found = self._reader.read(batch)
        if clash := [name for name in found.passed if name in self._names]:
            raise AnalysisError(
                f"the batch has a column {clash[0]!r}, which the results have, too. Fix: rename it or leave it out"
            )
        if found.targets is not None and not says_nothing(self.target):
            raise AnalysisError(
                "the batch has a column 'target', and a target is given for all samples. Fix: leave one of them out"
            )
        return found

    def explain(self, samples: Samples) -> dict[str, np.ndarray]:
        """Return the columns that explain samples which `prepare` read. See `__call__`."""
        found: list[FoundRows] = []
        with self._lock, each_note_once(self._remarks):
            for rows in samples.groups(self._reader.alone):
                for part in with_and_without_class(rows, samples.targets):
                    found += self._explained(samples, part)
            columns = self._columns(samples.fixed)
        return {**samples.passed, **filled_columns(columns, samples.errors, found)}

    def schema(self, batch: Columns | None = None) -> tuple[Column, ...]:
        """Return the columns of results, without those of the batch that are returned as they are.

        batch: a first batch of the data set, which tells whether all samples have one shape where the model takes
            several. Without it, the shapes that the model states are taken.
        Raises AnalysisError where the shape of the map is found by neither the batch nor noise.
        """
        if batch is not None and self._arrays is None:
            self.explain(self.prepare(batch))
        with self._lock:
            return self._columns(noise_sample(self.fn)[1])

    @cached_property
    def fn(self) -> Differentiable:
        """The model on its backend, made at the first use in each process."""
        with self._lock:
            if "fn" in self.__dict__:  # Another thread was first.
                return cast("Differentiable", self.__dict__["fn"])
            made = differentiate(self.model, **self.options)
            if made.samples == "joint":
                raise AnalysisError(
                    'samples="joint" makes one result of a whole batch. Fix: explain each call with the method itself'
                )
            refuse_rows_of_settings(self.settings, self.target, made.graph)
            self.__dict__["fn"] = made
            return made

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes that the model stores."""
        return self.fn.class_names

    def release(self) -> None:
        """Let go of the session; it is made again at the next batch."""
        if "fn" in self.__dict__:
            self.fn.release()

    # What one call explains.

    def _explained(self, samples: Samples, rows: list[int]) -> list[FoundRows]:
        """The samples of one group, together; where that fails in halves, until the samples at fault are alone."""
        try:
            return [self._run(samples, rows)]
        except Exception as error:
            if self._concerns_all(error, samples, rows[0]):
                raise
            if len(rows) == 1:
                samples.errors[rows[0]] = reason_of(error)
                return []
        half = len(rows) // 2
        return [*self._explained(samples, rows[:half]), *self._explained(samples, rows[half:])]

    def _run(self, samples: Samples, rows: list[int]) -> FoundRows:
        target = self.target
        if samples.targets is not None:
            target = with_class(self.fn, target, [samples.targets[row] for row in rows])
        each = [arrays for row in rows if (arrays := samples.arrays[row]) is not None]
        result, numbers = self._result(each, target)
        if len(result.output) != len(rows):
            raise AnalysisError(
                f"expected a result for each of {len(rows)} samples, got {len(result.output)}: the samples of the "
                "model depend on one another. Fix: explain each call with the method itself"
            )
        if self._arrays is None:
            self._arrays = self._array_columns(result, samples.fixed)
        arrays = arrays_of(result, self._arrays)
        for name, array in arrays.items():
            self._fits(self._arrays[name], array)
            for row, one in zip(rows, array, strict=True):
                samples.errors[row] = samples.errors[row] or lost_in(one, self.dtype)
        with np.errstate(over="ignore"):
            cast = {name: array.astype(self.dtype, copy=False) for name, array in arrays.items()}
        kept = [place for place, row in enumerate(rows) if not samples.errors[row]]
        if len(kept) == len(rows):
            return FoundRows(rows, numbers, cast)
        numbers, cast = ({name: array[kept] for name, array in part.items()} for part in (numbers, cast))
        return FoundRows([rows[place] for place in kept], numbers, cast)

    def _result(self, each: Sequence[Arrays], target: Any) -> tuple[Attribution, Arrays]:
        """The method's result for some samples, and the numbers of each."""
        alone = self._reader.alone
        if alone is None:
            (inputs,) = each
            fn = self.fn
        else:
            fn = self._independent
            inputs = {
                name: array if name in alone else np.stack([one[name] for one in each])
                for name, array in each[0].items()
            }
        run = METHODS[self.method].run
        single = len(inputs) == 1
        with watched(inputs) as watch:
            result = run(fn, next(iter(inputs.values())) if single else inputs, target, **self.settings)
        if alone is not None and result.arrangement is not None:
            refuse_other_axes(result, inputs)
        return result, numbers_of(result, watch)

    def _fits(self, column: Column, array: np.ndarray) -> None:
        if column.shape is not None and array.shape[1:] != column.shape:
            raise InputError(
                f"expected samples of one shape, whose {column.name} has the shape {column.shape}, got "
                f"{array.shape[1:]}. Fix: give samples of different shapes as an object array"
            )

    @cached_property
    def _independent(self) -> Differentiable:
        """The model, which refuses samples that depend on one another."""
        return self.fn if self.fn.samples is not None else replace(self.fn, samples="independent")

    def _concerns_all(self, error: Exception, samples: Samples, row: int) -> bool:
        """Whether an error is one of the model or the settings: noise in the place of a sample raises it, too."""
        if isinstance(error, _OF_ALL):
            return True
        of_class = isinstance(error, TargetError) and samples.targets is not None
        if isinstance(error, _OF_SAMPLE) or of_class:
            return False
        if self._noise_error is None:
            arrays = samples.arrays[row]
            assert arrays is not None
            try:
                self._result([noise_like(arrays)], self.target)
                self._noise_error = ()
            except Exception as raised:
                self._noise_error = (type(raised),)
        return type(error) in self._noise_error

    # Columns.

    @property
    def _names(self) -> set[str]:
        """The names of results that a column of a batch cannot have."""
        arrays = {MAP, ATTRIBUTIONS} if self._arrays is None else set(self._arrays)
        return {*arrays, *(column.name for column in FIXED if column.name not in (ERROR, TARGET))}

    def _array_columns(self, result: Attribution, fixed: bool) -> dict[str, Column]:
        found = array_columns(result, fixed=fixed, attributions=self.attributions, dtype=self.dtype)
        return {column.name: column for column in found}

    def _columns(self, fixed: bool) -> tuple[Column, ...]:
        """All columns. Where no sample was explained yet, noise tells the shapes of the arrays. See `Samples.fixed`."""
        if self._arrays is None:
            result, _ = self._result([noise_sample(self.fn)[0]], self.target)
            self._arrays = self._array_columns(result, fixed)
        return (*FIXED, *self._arrays.values())

    # Pickling.

    @property
    def _is_path(self) -> bool:
        return isinstance(self.model, str)

    def _forget(self) -> None:
        """Start without what belongs to a process."""
        self._lock, self._remarks = ForkLock(), set()
        self._arrays = self._noise_error = None

    @cached_property
    def _reader(self) -> SampleReader:
        return SampleReader(self.fn, self.column, self.keep_inputs, self.one_array)

    def __getstate__(self) -> dict[str, Any]:
        own = ("fn", "_independent", "_reader", "_lock", "_remarks", "_arrays", "_noise_error")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


def _kept(model: Any, options: Mapping[str, Any]) -> Any:
    """The model in a form that pickles: a path as text, anything else as a Model or a Differentiable."""
    if isinstance(model, (Differentiable, Model)):
        return model
    if isinstance(model, (str, os.PathLike)):
        path = os.fspath(model)
        if path.lower().endswith(".onnx") and not os.path.isfile(path):
            raise InputError(f"{path}: no such file. Fix: give the path of a model")
        # A worker may run in another folder.
        return os.path.abspath(path) if os.path.exists(path) else path
    # A network of PyTorch is traced from an example, and refused here without one.
    return load(model, verify=options.get("verify", True), trust=options.get("trust", False))
