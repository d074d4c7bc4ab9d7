from pathlib import Path

import pytest

from cram.data.text import pydocs
from cram.data.text.source import Source
from cram.data.text.sources import open_source
from cram.errors import CramError


def texts(source: Source) -> list[str]:
    return [document.text for part in source.parts for document in part.documents()]


def test_a_file_of_the_installation_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydocs, "find_documentation", lambda: [("p/a.md", tmp_path / "gone.md")])
    with pytest.raises(CramError, match=r"^p/a.md: cannot be read \(No such file.*\nor set data.on_error=skip"):
        texts(open_source("pydocs"))
    skip = open_source("pydocs", on_error="skip")
    assert texts(skip) == [""] and skip.fingerprint()
