from pathlib import Path

import pytest

from cram.config.recipe import load_config, read_config, recipe_names
from cram.errors import CramError
from cram.prepare import main as prepare
from cram.train import main as train


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_says_what_would_run_and_writes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train([f"recipe={name}", "device=cpu", "--print"]) == 0
    assert list(tmp_path.iterdir()) == []
    recipe, _, figures = capsys.readouterr().out.partition("\n\n")
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert load_config(tmp_path / "recipe.yaml") == read_config([f"recipe={name}", "device=cpu", "dry_run=true"])
    found = dict(line.split(maxsplit=1) for line in figures.splitlines())
    planned = "planned when training begins" in found["model"]
    assert planned == (read_config([f"recipe={name}"]).model.size == "auto")
    sizes = ["model", "data"] if planned else ["model", "memory", "update", "data"]
    assert list(found) == [*sizes, "device", "precision", "attention", "compiled", "run"]
    assert planned or "parameters" in found["model"]
    assert found["compiled"] == "nothing"


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("75s", "how much 75s need depends on the speed"),
        ("2.5e6tokens", "2.50 M are needed"),
        ("500steps", "about 1.02 M are needed for 500 updates"),
    ],
)
def test_the_data_that_a_budget_needs(budget: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["recipe=bert_demo", "model.size=given", "model.width=192", "batch.tokens=2048"]
    assert train([*words, f"budget={budget}", "dry_run=true"]) == 0
    assert said in capsys.readouterr().out


def test_preparing_has_it_too_and_what_cannot_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    size = ["model.size=given", "model.layers=3", "model.width=192", "model.heads=3", "model.mlp_width=384"]
    assert prepare(["recipe=bert_demo", *size, "--print"]) == 0
    assert "1,930,752 parameters" in capsys.readouterr().out
    with pytest.raises(CramError, match=r"model\.attention=flash cannot run"):
        train(["recipe=bert_demo", "model.attention=flash", "device=cpu", "--print"])
