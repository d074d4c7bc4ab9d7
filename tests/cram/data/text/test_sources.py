import json
import pickle
from pathlib import Path

import pytest

from cram.data.text.source import Source
from cram.data.text.sources import open_source


def texts(source: Source) -> list[str]:
    return [document.text for part in source.parts for document in part.documents()]


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files of 5, 6 and 7 records."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(3):
        records = [{"body": f"text {number} {i}", "id": i} for i in range(5 + number)]
        (folder / f"train-{number}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


@pytest.mark.parametrize("spec", ["{}/*.jsonl", "hf:{}"])
def test_a_source_reads_the_same_after_pickling(corpus: Path, spec: str) -> None:
    source = open_source(spec.format(corpus), text_field="body")
    assert len(texts(source)) == 18
    assert texts(pickle.loads(pickle.dumps(source))) == texts(source)
