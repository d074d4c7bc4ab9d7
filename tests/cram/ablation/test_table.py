"""Tables of arms: read from yaml files, or refused."""

from pathlib import Path

import pytest

from cram.ablation.table import load_table
from cram.errors import CramError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "about: x\nbudget: 1m\nseeds: 1\nbaseline: b\narms: {a: {words: []}}",
            "baseline: b is not one of the arms a",
        ),
        (
            "about: x\nbudget: 1m\nseeds: 1\nbaseline: a\narms: {a: {words: [], budget_share: 2}}",
            "budget_share=2 is out of range: give a number above 0, at most 1",
        ),
        ("about: x\nbudgets: 1m", "unknown key 'budgets'"),
        ("- a", "a yaml mapping"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(CramError, match=message):
        load_table(str(path))


@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/b", "/a", "a\\\\b", "-a", ".a", "~", "a\\0b", "a\\nb", "a b", "é", "a" * 101]
)
def test_an_arm_whose_name_cannot_name_a_folder_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f'baseline: b\narms: {{b: {{words: []}}, "{name}": {{words: []}}}}\n')
    with pytest.raises(
        CramError, match=r"mine\.yaml: arms: '.* cannot name a folder\. Use up to 100 letters"
    ) as caught:
        load_table(str(path))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("place", ["/tmp/other", "../other", "~/other"])
@pytest.mark.parametrize(
    ("key", "text"),
    [("words", "words: [{}]\narms: {{a: {{words: []}}}}\n"), ("arms.a.words", "arms: {{a: {{words: [{}]}}}}\n")],
)
def test_a_table_cannot_write_outside_the_working_folder(key: str, text: str, place: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("baseline: a\n" + text.format(f"data.dir={place}"))
    with pytest.raises(CramError, match=rf"mine\.yaml: {key}: data\.dir=.*other is not inside the working folder"):
        load_table(str(path))


@pytest.mark.parametrize("word", ["run=runs/x", "seed=3", "budget=3h"])
def test_words_that_belong_to_single_runs_are_refused(tmp_path: Path, word: str) -> None:
    path = tmp_path / "mine.yaml"
    for key, text in (("words", "words: [{}]\narms: {{a: {{}}}}"), ("arms.a.words", "arms: {{a: {{words: [{}]}}}}")):
        path.write_text("baseline: a\n" + text.format(word))
        with pytest.raises(CramError, match=rf"mine\.yaml: {key}: {word}: each run of a table has its own \w+\. Use "):
            load_table(str(path))


def test_an_unknown_table_is_refused_with_the_nearest() -> None:
    with pytest.raises(CramError, match=r"table=recip is unknown\. Nearest: recipe\."):
        load_table("recip")
