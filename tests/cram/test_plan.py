"""The door `cram.plan` with fit=: it reads finished runs, and takes no other word than to=."""

from pathlib import Path

import pytest

from cram.errors import CramError
from cram.plan import main


@pytest.mark.parametrize(("words", "to"), [([], None), (["to=law.json"], Path("law.json"))])
def test_fits_are_made_of_the_folder(words: list[str], to: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, Path | None]] = []
    monkeypatch.setattr("cram.planner.fit_report.print_fit", lambda folder, to: asked.append((folder, to)) or 0)
    assert main(["fit=some/table", *words]) == 0
    assert asked == [(Path("some/table"), to)]


@pytest.mark.parametrize("word", ["recipe=bert_demo", "seconds=3", "model.layers=2"])
def test_other_words_beside_fit_are_refused(word: str) -> None:
    with pytest.raises(CramError, match=f"{word}: fit= reads finished runs and takes to= alone. Remove this word."):
        main(["fit=some/table", word])


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CramError, match="there is no run"):
        main([f"fit={tmp_path}"])
