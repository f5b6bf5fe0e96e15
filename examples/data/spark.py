"""Explain image files on Spark: a row with the class, its probability and the map for each file.

    python examples/data/spark.py model.onnx photos/ results.parquet

Needs pyspark, Java 17 or later, and `pip install "onnxplain[data]"` on every node. The model stores its preprocessing
(onnxplain convert --size --mean --std). Its path must name the same file on every node.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

import onnxplain as ox

if TYPE_CHECKING:
    import pandas
    from pyspark.sql import DataFrame, SparkSession

ROWS = "path string, error string, target long, output double, probability float, map array<float>, shape array<int>"
Explain = Callable[[Iterator["pandas.DataFrame"]], Iterator["pandas.DataFrame"]]


def explained(explainer: ox.BatchExplainer) -> Explain:
    """Return a function for `mapInPandas`: files to rows of results. Spark sends it, and the explainer, to workers."""

    def explain(frames: Iterator[pandas.DataFrame]) -> Iterator[pandas.DataFrame]:
        import pandas

        for frame in frames:
            found = explainer({"image": frame["content"].to_numpy(), "path": frame["path"].to_numpy()})
            maps = found.pop("map")
            rows = {name: found[name] for name in ("path", "error", "target", "output", "probability")}
            shapes = [np.array(one.shape, np.int32) for one in maps]
            yield pandas.DataFrame({**rows, "map": [one.ravel() for one in maps], "shape": shapes})

    return explain


def explain_images(spark: SparkSession, files: str, explainer: ox.BatchExplainer) -> DataFrame:
    """Return a row for each image file of a folder or a pattern. Nothing is computed before the rows are used."""
    images = spark.read.format("binaryFile").load(files).select("path", "content")
    return images.mapInPandas(explained(explainer), ROWS)


def session(cores: int) -> SparkSession:
    """Return Spark on this machine. On a cluster, `spark-submit` gives the address of the master."""
    from pyspark.sql import SparkSession

    # The Python of workers. Spark reads it when it starts.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(f"local[{cores}]").appName("onnxplain")
    options = {
        # Rows of a batch. A session is made for each task, so that few large tasks are best.
        "spark.sql.execution.arrow.maxRecordsPerBatch": 16,
        "spark.ui.enabled": "false",
    }
    for name, value in options.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


if __name__ == "__main__":
    model, folder, results = sys.argv[1:]
    spark = session(cores=2)
    # Each task has one thread. With more, set spark.task.cpus to the same number.
    work = ox.BatchExplainer(model, "full-grad", dtype="float32", threads=1)
    explain_images(spark, folder, work).write.mode("overwrite").parquet(results)
    spark.stop()
