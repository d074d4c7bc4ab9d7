from pathlib import Path

import pytest

from cram.data.text.document import Document
from cram.data.text.pydocs_source import PydocsPart
from cram.data.text.source import SourcePart, hash_content
from cram.data.text.sources import open_source
from cram.errors import CramError

TEXTS = ["one", "größer", "", "four"]


@pytest.fixture(params=["file", "pydocs"])
def part(request: pytest.FixtureRequest, tmp_path: Path) -> SourcePart:
    if request.param == "pydocs":
        return PydocsPart("package", [Document(text, "module.py") for text in TEXTS], "stop")
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    return open_source(str(tmp_path / "a.txt"), document_rule="line").parts[0]


def test_a_part_may_be_read_while_it_is_being_read(part: SourcePart) -> None:
    first, second = part.read(), part.read()
    readings = [(next(first), next(second)) for _ in TEXTS]
    assert [document.text for (document, _), _ in readings] == TEXTS
    assert all(one == other for one, other in readings)
    assert list(first) == list(second) == []


def test_positions_rise_up_to_the_size(part: SourcePart) -> None:
    positions = [position for _, position in part.read()]
    assert positions == sorted(positions) and positions[-1] == part.size


def test_documents_are_those_that_are_read(part: SourcePart) -> None:
    assert list(part.documents()) == [document for document, _ in part.read()]


def test_a_hash_of_content_depends_on_names_contents_and_heading_but_not_on_the_order(tmp_path: Path) -> None:
    files = [(name, tmp_path / name) for name in ("a", "b")]
    for name, path in files:
        path.write_text(name)
    content = hash_content("heading", files)
    assert content == hash_content("heading", files[::-1])
    assert content != hash_content("another", files)
    assert content != hash_content("heading", [("c", tmp_path / "a"), files[1]])
    (tmp_path / "b").write_text("changed")
    assert content != hash_content("heading", files)
    (tmp_path / "b").unlink()
    with pytest.raises(CramError, match=r"b: cannot be read .*leave it out\nor set data.on_error=skip"):
        hash_content("heading", files)
    assert hash_content("heading", files, "skip") == hash_content("heading", files, "skip")
