import json
from pathlib import Path

import pytest


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
