"""Every kind of source gives the same samples, with ids and labels, from any position; faults name their place."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from analyzer.data.labels import LabelIndex
from analyzer.data.sources import open_source
from analyzer.data.sources.tables import _ROWS
from analyzer.errors import InputError

ROWS = np.random.default_rng(3).standard_normal((_ROWS + 9, 2, 3)).astype(np.float32)
LABELS = np.arange(len(ROWS)) % 4


def hugging_face(names) -> dict[bytes, bytes]:
    """The metadata in which `datasets` keeps class names."""
    features = {"label": {"names": list(names), "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def table(rows=ROWS, labels=LABELS):
    """The rows as nested lists, with labels."""
    return pa.table({"x": pa.array(rows.tolist(), pa.list_(pa.list_(pa.float32()))), "label": labels})


class Numbered:
    """A data set as torch has it."""

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, index):
        return ROWS[index], LABELS[index]


def parquet(folder):
    pq.write_table(table(), folder / "t.parquet", row_group_size=7)
    return folder / "t.parquet"


def arrow_file(folder):
    with pa.ipc.new_file(folder / "t.arrow", table().schema) as writer:
        writer.write_table(table(), max_chunksize=6)
    return folder / "t.arrow"


def arrow_stream(folder):
    """As `datasets` saves one to disk, in two files."""
    half = len(ROWS) // 2
    for number, part in enumerate((table().slice(0, half), table().slice(half))):
        with pa.ipc.new_stream(folder / f"data-0000{number}-of-00002.arrow", part.schema) as writer:
            writer.write_table(part, max_chunksize=5)
    return folder


def tensors(folder):
    """Parquet with the tensor type of Arrow."""
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(ROWS))
    pq.write_table(pa.table({"x": column, "label": LABELS}), folder / "t.parquet")
    return folder / "*.parquet"


def npy_files(folder):
    for k, (row, label) in enumerate(zip(ROWS, LABELS, strict=True)):
        (folder / str(label)).mkdir(exist_ok=True)
        np.save(folder / str(label) / f"{k}.npy", row)
    names = [f"{label}/{k}.npy\t{label}" for k, label in enumerate(LABELS)]
    (folder / "list.txt").write_text("\n".join(names) + "\n\n")
    return folder / "list.txt"


def npz(folder):
    np.savez(folder / "x.npz", x=ROWS, label=LABELS)
    return folder / "x.npz"


SOURCES = {
    "npz": npz,
    "arrays": lambda folder: {"x": ROWS, "label": LABELS},
    "parquet": parquet,
    "arrow file": arrow_file,
    "arrow stream": arrow_stream,
    "tensors": tensors,
    "text file": npy_files,
    "data set": lambda folder: Numbered(),
    "iterable": lambda folder: iter(Numbered()[k] for k in range(len(ROWS))),
    "mappings": lambda folder: [{"x": x, "label": int(k)} for x, k in zip(ROWS, LABELS, strict=True)],
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_gives_all_samples_from_any_position(kind, tmp_path):
    source = open_source(SOURCES[kind](tmp_path), ["x"])
    assert source.samples in (None, len(ROWS))
    spans = [(0, 3), (3, 5), (9, _ROWS + 5), (_ROWS + 5, len(ROWS) + 10)]
    found = [record for start, stop in spans for record in source.records(start, stop)]
    positions = [p for start, stop in spans for p in range(start, min(stop, len(ROWS)))]
    assert not any(record.error for record in found)
    np.testing.assert_array_equal([record.values["x"] for record in found], ROWS[positions])
    assert [int(record.label) for record in found] == LABELS[positions].tolist()
    assert len({record.id for record in found}) == len(positions)
    assert list(source.records(len(ROWS), len(ROWS) + 4)) == []


def test_a_folder_of_images_has_its_sub_folders_as_labels_in_natural_order(tmp_path, recwarn):
    for name in ("cat/img10.png", "cat/img2.png", "dog/deep/a.jpg", "top.png", "dog/.hidden.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "dog" / "notes.csv").write_text("a")
    (tmp_path / "dog" / "up").symlink_to(tmp_path)
    source = open_source(tmp_path, ["image"])
    found = [(record.id, record.label) for record in source.records(0, 9)]
    assert found == [
        ("top.png", None),
        ("cat/img2.png", "cat"),
        ("cat/img10.png", "cat"),
        ("dog/deep/a.jpg", "dog"),
    ]
    assert any("skipped 1 other" in str(one.message) and "notes.csv" in str(one.message) for one in recwarn)
    pattern = open_source(str(tmp_path / "*" / "*.png"), ["image"])
    assert [record.id for record in pattern.records(0, 9)] == [
        str(tmp_path / "cat" / name) for name in ("img2.png", "img10.png")
    ]
    assert open_source([tmp_path / "top.png"], ["image"]).samples == 1


def test_images_in_a_table_are_bytes_or_files_below_it(tmp_path):
    Image.new("RGB", (5, 4), (9, 8, 7)).save(tmp_path / "own.png")
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4)).save(buffer, "PNG")
    cells = [
        {"bytes": buffer.getvalue(), "path": "x.png"},
        {"bytes": None, "path": "own.png"},
        {"bytes": None, "path": "../secret.png"},
        {"bytes": None, "path": str(tmp_path.parent / "secret.png")},
        {"bytes": None, "path": None},
        None,
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"image": pa.array(cells, kind), "label": [0, 1, 2, 0, 1, 7], "caption": ["a"] * 6}
    found = pa.table(columns).replace_schema_metadata(hugging_face(["cat", "dog", "fish"]))
    pq.write_table(found, tmp_path / "t.parquet")
    source = open_source(tmp_path / "t.parquet", ["pixels"])
    records = list(source.records(0, 9))
    assert records[0].values == {"pixels": buffer.getvalue()}
    assert records[1].values == {"pixels": str(tmp_path / "own.png")}
    assert ["leads out" in r.error for r in records[2:4]] == [True, True]
    assert ["no bytes" in records[4].error, "null" in records[5].error] == [True, True]
    assert source.label_names == ("cat", "dog", "fish")
    labels = LabelIndex(source.label_names, ["fish", "cat", "dog"], 3)
    assert [labels.text(r.label) for r in records] == ["cat", "dog", "fish", "cat", "dog", "7"]
    assert [labels.index(r.label) for r in records] == [1, 2, 0, 1, 2, None]


@pytest.mark.parametrize(
    ("names", "class_names", "classes", "label", "index"),
    [
        (None, ["cat", "dog"], 2, "dog", 1),
        (None, ["tabby, tabby cat", "dog"], 2, "Tabby_Cat", 0),
        (None, ["cat", "dog"], 2, "n0123", None),
        (None, None, 2, "cat", None),
        (None, None, 2, "1", 1),
        (None, None, 2, "2", None),
        (None, None, 12, "007", 7),
        (None, ["1", "0"], 2, "1", 0),
        (None, ["a", "a"], 2, "a", None),
        (None, ["a", "b"], 2, "-1", None),
        (None, ["a", "b"], 2, 1, 1),
        (None, None, 2, 2, None),
        (None, None, 2, -1, None),
        (("dog", "cat"), ["cat", "dog"], 2, 0, 1),
        (("dog", "bird"), ["cat", "dog"], 2, 1, None),
        (("dog", "cat"), None, 2, 1, 1),
        (("dog", "cat"), None, 1000, 1, None),
        (None, None, 2, None, None),
    ],
)
def test_a_label_is_a_class_only_where_that_is_certain(names, class_names, classes, label, index):
    assert LabelIndex(names, class_names, classes).index(label) == index


def broken(folder, name, content=b"no such file"):
    (folder / name).write_bytes(content)
    return folder / name


def uneven(folder):
    np.savez(folder / "u.npz", x=ROWS, label=LABELS[:3])
    return folder / "u.npz"


def objects(folder):
    np.save(folder / "o.npy", np.array([{}], object), allow_pickle=True)
    return folder / "o.npy"


def two_images(folder):
    image = pa.array([b"a"], pa.binary())
    pq.write_table(pa.table({"left": image, "right": image}), folder / "t.parquet")
    return folder / "t.parquet"


REFUSED = {
    "missing": (lambda folder: folder / "nothing", "no such file or folder"),
    "empty folder": (lambda folder: folder, "expected a folder with images"),
    "no match": (lambda folder: str(folder / "*.jpg"), "matches no file"),
    "unknown suffix": (lambda folder: broken(folder, "a.csv"), "not a source of samples"),
    "broken parquet": (lambda folder: broken(folder, "a.parquet"), "not a readable Parquet file"),
    "broken arrow": (lambda folder: broken(folder, "a.arrow"), "not a readable Arrow file"),
    "broken npy": (lambda folder: broken(folder, "a.npy"), "not a readable .npy file"),
    "broken npz": (lambda folder: broken(folder, "a.npz"), "not a readable .npz file"),
    "binary text": (lambda folder: broken(folder, "a.txt", b"\xff\xfe\x00"), "not a readable text file"),
    "empty text": (lambda folder: broken(folder, "a.txt", b"\n"), "the file is empty"),
    "pickle": (objects, "not a readable .npy file"),
    "uneven": (uneven, "different numbers of rows"),
    "no rows": (lambda folder: {"x": ROWS[:0]}, "holds no sample"),
    "two columns": (two_images, "Fix: name it, column='left'"),
    "number": (lambda folder: 5, "expected a source of samples"),
    "no item": (lambda folder: [], "the data set has no item"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_source_is_refused(kind, tmp_path):
    make, message = REFUSED[kind]
    with pytest.raises(InputError) as raised:
        open_source(make(tmp_path), ["x"])
    assert message in str(raised.value) and "Fix: " in str(raised.value)


def test_a_loader_of_batches_is_refused_and_a_fault_of_one_item_is_its_own():
    torch = pytest.importorskip("torch")
    rows = torch.utils.data.TensorDataset(torch.tensor(ROWS), torch.tensor(LABELS))
    with pytest.raises(InputError, match=r"\.dataset"):
        open_source(torch.utils.data.DataLoader(rows, batch_size=4), ["x"])
    assert [r.label for r in open_source(rows, ["x"]).records(0, 6)] == [0, 1, 2, 3, 0, 1]

    class Iterated(torch.utils.data.IterableDataset):
        def __len__(self):
            return len(ROWS)

        def __iter__(self):
            return iter(rows)

    assert [r.label for r in open_source(Iterated(), ["x"]).records(1, 4)] == [1, 2, 3]

    class Faulty(Numbered):
        def __getitem__(self, index):
            return super().__getitem__(index)[:1] if index else 1 / 0

    first, second = open_source(Faulty(), ["x"]).records(0, 2)
    assert "ZeroDivisionError" in first.error and not second.error


def test_a_model_of_several_inputs_takes_named_columns(tmp_path):
    both = {"a": ROWS, "b": ROWS[:, 0]}
    for source in (both, [{"a": a, "b": b} for a, b in zip(*both.values(), strict=True)]):
        record = next(open_source(source, ["a", "b"]).records(1, 2))
        np.testing.assert_array_equal(record.values["b"], ROWS[1, 0])
    with pytest.raises(InputError, match="the model's inputs are a, b"):
        open_source({"a": ROWS}, ["a", "b"])
    np.save(tmp_path / "x.npy", ROWS)
    with pytest.raises(InputError, match=r"\.npz"):
        open_source(tmp_path / "x.npy", ["a", "b"])


def test_a_mapped_file_and_a_large_row_group_are_not_read_whole(tmp_path):
    np.save(tmp_path / "x.npy", ROWS)
    source = open_source(tmp_path / "x.npy", ["x"])
    assert isinstance(source.arrays["x"], np.memmap)
    record = next(source.records(2, 3))
    assert record.id == "x.npy[2]" and not isinstance(record.values["x"], np.memmap)

    np.savez(tmp_path / "x.npz", x=ROWS, y=np.asfortranarray(ROWS[:, 0]), label=LABELS)
    source = open_source(tmp_path / "x.npz", ["x", "y"])
    assert all(isinstance(array, np.memmap) for array in source.arrays.values())
    np.testing.assert_array_equal(next(source.records(4, 5)).values["y"], ROWS[4, 0])
    np.savez_compressed(tmp_path / "x.npz", x=ROWS)
    np.testing.assert_array_equal(
        next(open_source(tmp_path / "x.npz", ["x"]).records(4, 5)).values["x"], ROWS[4]
    )

    rng, size, count = np.random.default_rng(0), 2**18, 128
    # Pages of some rows each in one row group: pyarrow writes a page for each batch of rows.
    table = pa.table({"x": [rng.bytes(size) for _ in range(count)]})
    pq.write_table(table, tmp_path / "t.parquet", write_batch_size=4, use_dictionary=False)
    source, pool = open_source(tmp_path / "t.parquet", ["x"]), pa.default_memory_pool()
    held = pool.bytes_allocated()
    most = max(pool.bytes_allocated() - held for _ in source.records(0, count))
    assert source.samples == count and most < size * count / 2
