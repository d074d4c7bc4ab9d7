from pathlib import Path

import pytest

from cram.data.text.sources import open_source


@pytest.mark.parametrize("folder", ["br[2024]", "a,b", "a #b", "a=b", "a: b", "a{b}", "a$b", "a'b", "*", "日本"])
def test_an_existing_file_is_taken_literally(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder / "a[1].txt"
    path.parent.mkdir()
    path.write_text("a text")
    assert [part.name for part in open_source(str(path)).parts] == [str(path)]


def test_a_folder_stands_for_the_files_below_it(tmp_path: Path) -> None:
    for name in ("b.txt", "deeper/a.jsonl.gz", "notes.pdf", "deeper/er/C.PARQUET"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "deeper" / "round").symlink_to(tmp_path)
    found = [Path(part.name).relative_to(tmp_path) for part in open_source(str(tmp_path)).parts]
    assert [str(path) for path in found] == ["b.txt", "deeper/a.jsonl.gz", "deeper/er/C.PARQUET"]
    (tmp_path / "notes.pdf").unlink()
    found = [Path(part.name).relative_to(tmp_path) for part in open_source(f"{tmp_path}/**").parts]
    assert [str(path) for path in found] == ["b.txt", "deeper/a.jsonl.gz", "deeper/er/C.PARQUET"]
    (tmp_path / "c.txt").symlink_to("b.txt")  # a file of two names is two files
    assert len(open_source(f"{tmp_path}/**/*.txt").parts) == 2
