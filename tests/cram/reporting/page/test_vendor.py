import hashlib
import json
from importlib.resources import files


def test_vendored_files_are_those_that_were_released() -> None:
    folder = files("cram.reporting.page") / "vendor" / "uplot"
    facts = json.loads((folder / "VENDORED.json").read_text())
    assert facts["version"] == "1.6.32"
    assert {file.name for file in folder.iterdir()} == {*facts["sha256"], "VENDORED.json"}
    for name, expected in facts["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected, name
