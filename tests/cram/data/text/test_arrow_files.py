import io
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cram.data.text.formats import read_documents
from cram.data.text.options import ReadingOptions
from cram.data.text.sources import open_source
from cram.errors import CramError
from tests.cram.data.text.files import TEXTS, read


@pytest.mark.parametrize("kind", ["file", "stream"])
@pytest.mark.parametrize(
    "type_", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_arrow_files_and_streams(tmp_path: Path, kind: str, type_: pa.DataType) -> None:
    path = tmp_path / "a.arrow"
    table = pa.table({"id": range(1200), "text": pa.array(TEXTS[:3] * 400).cast(type_)})
    with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=700)
    documents = read(path)
    assert [one.text for one in documents] == TEXTS[:3] * 400
    assert documents[700].origin == "a.arrow:701"
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(CramError, match=r"^a.arrow: damaged or not readable"):
        read(path)


def test_offsets_that_lead_outside_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    offsets = np.array([0, 2, 1 << 30, 4], np.int32)
    column = pa.StringArray.from_buffers(3, pa.py_buffer(offsets), pa.py_buffer(b"abcd"))
    with pa.ipc.new_file(path, pa.schema({"text": pa.string()})) as writer:
        writer.write_batch(pa.record_batch({"text": column}))
    with pytest.raises(CramError, match=r"^a.arrow: damaged or not readable"):
        read(path)


@pytest.mark.parametrize(("content", "message"), [(b"", "it is empty"), (b"ARROW1 and more", "")])
def test_a_file_that_is_not_arrow(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.arrow"
    path.write_bytes(content)
    with pytest.raises(CramError, match=rf"^a.arrow: damaged or not readable \(.*{message}"):
        read(path)


def test_saved_data_sets(tmp_path: Path) -> None:
    import datasets

    texts = [f"text {number}" for number in range(30)]
    whole = datasets.Dataset.from_dict({"text": texts})
    whole.save_to_disk(tmp_path / "one", num_shards=3)
    (tmp_path / "one" / "cache-1.arrow").write_bytes(b"of another use")
    source = open_source(str(tmp_path / "one"))
    assert [one.text for part in source.parts for one in part.documents()] == texts
    datasets.DatasetDict({"train": whole, "test": whole}).save_to_disk(tmp_path / "both")
    with pytest.raises(CramError, match=r"is a saved data set with the splits test, train\ngive the folder of one"):
        open_source(str(tmp_path / "both"))
    assert len(open_source(str(tmp_path / "both" / "train")).parts) == 1


@pytest.mark.parametrize("field", ["text", "more.inner"])
def test_damaged_files_give_faults_and_nothing_else(field: str) -> None:
    schema = pa.schema({"text": pa.string(), "more": pa.struct({"inner": pa.string()})})
    table = pa.Table.from_pylist([{"text": text, "more": {"inner": text}} for text in TEXTS[:3]], schema)
    stream = io.BytesIO()
    with pa.ipc.new_file(stream, schema) as writer:
        writer.write_table(table)
    faults = 0
    for seed in range(300):
        damaged, choice = bytearray(stream.getvalue()), random.Random(seed)
        for _ in range(20):
            damaged[choice.randrange(len(damaged))] ^= 1 << choice.randrange(8)
        options = ReadingOptions(field, on_error="skip")
        first, second = (list(read_documents(io.BytesIO(damaged), "a.arrow", options)) for _ in range(2))
        assert first == second
        faults += any(one.fault for one in first)
    assert faults > 200
