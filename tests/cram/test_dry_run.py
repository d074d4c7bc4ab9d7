import re
from pathlib import Path

import pytest

from cram.config.recipe import load_config, read_config, recipe_names
from cram.data.text.hub_source import HubSource
from cram.errors import CramError
from cram.prepare import main as prepare
from cram.train import main as train
from tests.cram.data.preparation.small_corpus import texts, write


def _unreachable(source: HubSource) -> None:
    raise CramError("the Hub cannot be reached\ncheck the network.")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_says_what_would_run_and_writes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HubSource, "parts", property(_unreachable))
    assert train([f"recipe={name}", "device=cpu", "--print"]) == 0
    assert list(tmp_path.iterdir()) == []
    recipe, _, figures = capsys.readouterr().out.partition("\n\n")
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert load_config(tmp_path / "recipe.yaml") == read_config([f"recipe={name}", "device=cpu", "dry_run=true"])
    found = dict(line.split(maxsplit=1) for line in figures.splitlines())
    planned = "planned when training begins" in found["model"]
    assert planned == (read_config([f"recipe={name}"]).model.size == "auto")
    sizes = ["model", "data"] if planned else ["model", "memory", "update", "data"]
    if read_config([f"recipe={name}"]).data.source.startswith("hf:"):
        sizes.append("prepare")
        assert found["prepare"] == "cannot be estimated: the Hub cannot be reached"
    assert list(found) == [*sizes, "device", "precision", "attention", "kernels", "compiled", "run"]
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


def test_what_preparing_takes_and_a_text_that_does_not_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write(tmp_path / "texts", texts(400))
    words = ["recipe=bert_demo", f"data.source={data.source}", f"data.dir={tmp_path}/shards", "--print"]
    assert train([*words, "budget=1e6tokens"]) == 0
    assert "prepare " not in capsys.readouterr().out, "it takes seconds"
    monkeypatch.setattr("cram.dry_run.SMALL_TEXT", 0)
    assert train([*words, "budget=1e6tokens"]) == 0
    said = re.findall(r"^prepare +(.*)", capsys.readouterr().out, re.MULTILINE)
    assert "400 documents" in said[0] and "process(es)" in said[1]
    share, epochs = re.fullmatch(
        r"the text lasts for about (\d+)% of the budget; give more, or allow data.epochs=(\d+)", said[2]
    ).groups()  # type: ignore[union-attr]
    assert int(share) * int(epochs) == pytest.approx(100, rel=0.3)
    assert train([*words, "budget=1000tokens"]) == 0
    assert "the text lasts" not in capsys.readouterr().out
    assert not (tmp_path / "shards").exists()
